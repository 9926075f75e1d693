"""Any gateway that takes JSON or a form over HTTPS and answers JSON: all by configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mediaproxy.config import GatewayConfig, Reason
from mediaproxy.errors import GatewayError
from mediaproxy.vault.body import Part, Values, form_parts, json_parts
from mediaproxy.vault.fields import Field
from mediaproxy.vault.gateway import at


class Rest:
    """See GatewayConfig for what can be set."""

    idempotent = True
    idempotency_header = "Idempotency-Key"

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        form = config.encoding == "form"
        self.content_type = "application/x-www-form-urlencoded" if form else "application/json"

    def body(self, values: Values) -> list[Part]:
        template = self._config.body or {name: f"{{{name}}}" for name in values.names()}
        parts = form_parts(template, values) if self._config.encoding == "form" else json_parts(template, values)
        if not parts:
            raise GatewayError("not-configured")
        return parts

    def clean(self, answer: bytearray, fields: Iterable[Field]) -> None:
        return

    def token(self, answer: Any) -> Any:
        return at(answer, self._config.token)

    def refusal(self, status: int, answer: Any) -> Reason | None:
        code = at(answer, self._config.error) if self._config.error else None
        return self._config.errors.get(str(code)) or self._config.errors.get(str(status))
