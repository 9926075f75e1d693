"""Stripe: `POST /v1/tokens` or `POST /v1/payment_methods`, a form, with an Idempotency-Key that is kept for a day
(docs.stripe.com/api/tokens/create_card, .../payment_methods/create, .../idempotent_requests, .../errors)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from mediaproxy.config import GatewayConfig, Reason
from mediaproxy.vault.body import Part, Values, form_parts
from mediaproxy.vault.gateway import Adapter, at

_CARD: Final = {
    "number": "{pan}", "exp_month": "{expiry.month}", "exp_year": "{expiry.year}", "cvc": "{cvv}",
}  # fmt: skip
_WRONG_FIELD: Final = frozenset(
    {
        "incorrect_number", "invalid_number", "invalid_expiry_month", "invalid_expiry_year", "expired_card",
        "incorrect_cvc", "invalid_cvc",
    }
)  # fmt: skip


class Stripe(Adapter):
    """Which of the two is asked for is told by the URL."""

    content_type = "application/x-www-form-urlencoded"

    def __init__(self, config: GatewayConfig) -> None:
        super().__init__(config)
        method = urlsplit(config.url).path.rstrip("/").endswith("/payment_methods")
        self._template = ({"type": "card"} if method else {}) | {"card": _CARD}

    def body(self, values: Values) -> list[Part] | None:
        return form_parts(self._template, values) if "pan" in values.names() else None

    def refusal(self, status: int, answer: Any) -> Reason | None:
        kind, code = at(answer, "error.type"), answer["error"].get("code")
        if code in _WRONG_FIELD:
            return "invalid-field"
        if kind == "card_error":
            return "gateway-unavailable" if code == "processing_error" else "declined"
        return "not-configured" if kind in ("invalid_request_error", "idempotency_error") else None
