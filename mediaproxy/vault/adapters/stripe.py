"""Stripe: `POST /v1/tokens` or `POST /v1/payment_methods`, a form, with an Idempotency-Key that is kept for a day
(docs.stripe.com/api/tokens/create_card, .../payment_methods/create, .../idempotent_requests, .../errors)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from mediaproxy.config import GatewayConfig, Reason
from mediaproxy.errors import GatewayError
from mediaproxy.vault.body import Part, Values, form_parts
from mediaproxy.vault.fields import Field
from mediaproxy.vault.gateway import at

_CARD: Final = {
    "number": "{pan}", "exp_month": "{expiry.month}", "exp_year": "{expiry.year}", "cvc": "{cvv}",
}  # fmt: skip
_WRONG_FIELD: Final = frozenset(
    {
        "incorrect_number", "invalid_number", "invalid_expiry_month", "invalid_expiry_year", "expired_card",
        "incorrect_cvc", "invalid_cvc",
    }
)  # fmt: skip


class Stripe:
    """Which of the two is asked for is told by the URL."""

    idempotent = True
    idempotency_header = "Idempotency-Key"
    content_type = "application/x-www-form-urlencoded"

    def __init__(self, config: GatewayConfig) -> None:
        self._method = urlsplit(config.url).path.rstrip("/").endswith("/payment_methods")

    def body(self, values: Values) -> list[Part]:
        if "pan" not in values.names():
            raise GatewayError("not-configured")
        return form_parts(({"type": "card"} if self._method else {}) | {"card": _CARD}, values)

    def clean(self, answer: bytearray, fields: Iterable[Field]) -> None:
        return

    def token(self, answer: Any) -> Any:
        return at(answer, "id")

    def refusal(self, status: int, answer: Any) -> Reason | None:
        kind, code = at(answer, "error.type"), answer["error"].get("code")
        if code in _WRONG_FIELD:
            return "invalid-field"
        if kind == "card_error":
            return "gateway-unavailable" if code == "processing_error" else "declined"
        return "not-configured" if kind in ("invalid_request_error", "idempotency_error") and status < 429 else None
