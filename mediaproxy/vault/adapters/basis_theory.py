"""Basis Theory: `POST /tokens` of type card; the key of the application is `header_files = {"BT-API-KEY" = FILE}`
(developers.basistheory.com/docs/api/tokens)."""

from __future__ import annotations

from typing import Final

from mediaproxy.vault.body import Part, Values, json_parts
from mediaproxy.vault.gateway import Adapter

_CARD: Final = {
    "number": "{pan}", "expiration_month": "int:{expiry.month}", "expiration_year": "int:{expiry.year}", "cvc": "{cvv}",
}  # fmt: skip


class BasisTheory(Adapter):
    """The application's access rule must mask or redact: an answer that reveals the number is refused."""

    idempotency_header = "BT-IDEMPOTENCY-KEY"

    def body(self, values: Values) -> list[Part] | None:
        return json_parts({"type": "card", "data": _CARD}, values) if "pan" in values.names() else None
