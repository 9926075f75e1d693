"""Any gateway that takes JSON or a form over HTTPS and answers JSON: all by configuration."""

from __future__ import annotations

from typing import Any

from mediaproxy.config import GatewayConfig, Reason
from mediaproxy.vault.body import Part, Values, form_parts, json_parts
from mediaproxy.vault.gateway import Adapter, at


class Rest(Adapter):
    """See GatewayConfig for what can be set."""

    def __init__(self, config: GatewayConfig) -> None:
        super().__init__(config)
        self._parts = json_parts
        if config.encoding == "form":
            self._parts, self.content_type = form_parts, "application/x-www-form-urlencoded"

    def body(self, values: Values) -> list[Part] | None:
        return self._parts(self._config.body or {name: f"{{{name}}}" for name in values.names()}, values)

    def token(self, answer: Any) -> Any:
        return at(answer, self._config.token)

    def refusal(self, status: int, answer: Any) -> Reason | None:
        code = at(answer, self._config.error) if self._config.error else None
        return self._config.errors.get(str(code)) or self._config.errors.get(str(status))
