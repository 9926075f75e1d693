"""Which web sites' pages may call the API and hold the payment bar in a frame: those of the configuration, by origin.

A browser says where a page comes from (Origin); what has no such header is no page. Pages of this server are let in, of
other sites the configured ones, and of these each only with tokens of the tenant whose site it is.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mediaproxy.agent.problem import Problem
from mediaproxy.config import EVERYTHING, Config

API = "/v1/"


class Origins:
    """The configured sites."""

    def __init__(self, config: Config) -> None:
        self._of = {"": frozenset(config.api.origins)}
        self._of |= {tenant.name: frozenset(tenant.origins) for tenant in config.tenants}
        self._all = frozenset().union(*self._of.values())

    def known(self, origin: str) -> bool:
        """Whether it is anybody's."""
        return origin in self._all

    def tenants(self) -> list[str]:
        return list(self._of)

    def of(self, tenant: str) -> list[str]:
        """A tenant's sites."""
        return sorted(self._of.get(tenant, ()))

    def allows(self, headers: Headers, tenant: str) -> bool:
        """Whether a page may use a token of `tenant`."""
        origin = headers.get("origin", "")
        return not origin or own(headers) or origin in (self._all if tenant == EVERYTHING else self._of.get(tenant, ()))


def own(headers: Headers) -> bool:
    """Whether the page is this server's own. There is no cookie to ride on: the host that was asked for will do."""
    return headers.get("origin", "").partition("://")[2] == headers.get("host", "")


class Gate:
    """Around the application: answers preflights, turns other sites away, and lets known ones read the answers."""

    def __init__(self, app: ASGIApp, origins: Origins, refused: Callable[[Scope], None]) -> None:
        self._app, self._origins, self._refused = app, origins, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(API):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        if not origin or own(headers):
            return await self._app(scope, receive, send)
        if not self._origins.known(origin):
            self._refused(scope)
            problem = Problem(403, "origin", "pages of this site may not use the API; see api.origins")
            return await problem.response()(scope, receive, send)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            return await Response(status_code=204, headers=_preflight(headers))(scope, receive, send)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields = MutableHeaders(scope=message)
                fields["Access-Control-Allow-Origin"] = origin
                fields.add_vary_header("Origin")
            await send(message)

        await self._app(scope, receive, answer)


def _preflight(headers: Headers) -> dict[str, str]:
    """What a known site is told beforehand."""
    told = {
        "Access-Control-Allow-Origin": headers["origin"],
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
        "Access-Control-Max-Age": "600",
        "Vary": "Origin",
    }
    if "access-control-request-private-network" in headers:  # a box in the office, a page in a cloud
        told["Access-Control-Allow-Private-Network"] = "true"
    return told
