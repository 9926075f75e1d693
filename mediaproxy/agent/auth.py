"""Who asks: bearer tokens by their SHA-256, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac

from starlette.requests import Request

from mediaproxy.agent.problem import Problem
from mediaproxy.config import TokenConfig


class Tokens:
    """The configured tokens."""

    def __init__(self, tokens: tuple[TokenConfig, ...]) -> None:
        self._tokens = tokens

    def identify(self, request: Request) -> TokenConfig:
        """The token that `request` carries. Raises Problem 401."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(given.strip().encode()).hexdigest()
        found: TokenConfig | None = None
        for token in self._tokens:
            if hmac.compare_digest(digest, token.sha256):
                found = token
        if scheme.lower() != "bearer" or found is None:
            raise Problem(401, "unauthorized", "a bearer token is needed")
        return found


def may_see(token: TokenConfig, number: str) -> bool:
    """Whether calls of extension `number` are this token's business."""
    return token.role == "supervisor" or not token.numbers or number in token.numbers


def need_supervisor(token: TokenConfig) -> None:
    """Raise Problem 403 for anyone else."""
    if token.role != "supervisor":
        raise Problem(403, "forbidden", "this needs a supervisor's token")
