"""The errors that may reach a person. Anything else is a bug, and seals the leg it happens on."""

from __future__ import annotations


class ConfigError(Exception):
    """The operator set something that cannot be. The text names the place and what is allowed."""


class GatewayError(Exception):
    """The tokenization gateway failed; `reason` is from the closed list of `vault.gateway`. cause: for the operator's
    log, a word of this program's own; status: the HTTP status, 0 where there was none."""

    def __init__(self, reason: str, cause: str = "", status: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.cause, self.status = reason, cause, status
