"""Errors as application/problem+json (RFC 9457). The text is ours, never the input."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response


class Problem(Exception):
    """What went wrong, from a closed list of kinds. retry_after: seconds; 0 where there is nothing to wait for."""

    def __init__(self, status: int, kind: str, detail: str, retry_after: int = 0) -> None:
        super().__init__(kind)
        self.status, self.kind, self.detail = status, kind, detail
        self.retry_after = retry_after or int(status in (429, 503))

    def response(self) -> Response:
        body = {"type": f"about:blank#{self.kind}", "title": self.kind, "status": self.status, "detail": self.detail}
        headers = {"Cache-Control": "no-store"}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.retry_after:
            headers["Retry-After"] = str(self.retry_after)
        return Response(msgspec.json.encode(body), self.status, headers, "application/problem+json")


async def on_problem(_: Request, error: Exception) -> Response:
    """Starlette's handler for Problem."""
    assert isinstance(error, Problem)
    return error.response()


async def on_error(_: Request, __: Exception) -> Response:
    """Starlette's handler for everything else: nothing of the error gets out."""
    return Problem(500, "internal-error", "this is a fault of the server").response()


async def on_http(_: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405."""
    status = getattr(error, "status_code", 500)
    kind = {404: "not-found", 405: "method-not-allowed"}.get(status, "http-error")
    response = Problem(status, kind, "see /openapi.yaml").response()
    response.headers.update(getattr(error, "headers", None) or {})
    return response
