"""Basis Theory: `POST /tokens` of type card; the key of the application is `header_files = {"BT-API-KEY" = FILE}`
(developers.basistheory.com/docs/api/tokens)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from mediaproxy.config import GatewayConfig, Reason
from mediaproxy.errors import GatewayError
from mediaproxy.vault.body import Part, Values, json_parts
from mediaproxy.vault.fields import Field
from mediaproxy.vault.gateway import at

_CARD: Final = {
    "number": "{pan}", "expiration_month": "int:{expiry.month}", "expiration_year": "int:{expiry.year}", "cvc": "{cvv}",
}  # fmt: skip


class BasisTheory:
    """The application's access rule must mask or redact: an answer that reveals the number is refused."""

    idempotent = True
    idempotency_header = "BT-IDEMPOTENCY-KEY"
    content_type = "application/json"

    def __init__(self, config: GatewayConfig) -> None:
        return

    def body(self, values: Values) -> list[Part]:
        parts = json_parts({"type": "card", "data": _CARD}, values) if "pan" in values.names() else None
        if not parts:
            raise GatewayError("not-configured")
        return parts

    def clean(self, answer: bytearray, fields: Iterable[Field]) -> None:
        return

    def token(self, answer: Any) -> Any:
        return at(answer, "id")

    def refusal(self, status: int, answer: Any) -> Reason | None:
        return None
