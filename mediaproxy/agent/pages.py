"""The pages and what they load: read once, sent with headers that let them do no more than they have to.

The payment bar is one file: its texts (`web/i18n`, plain JSON) are put into it here, so that a site can keep a copy.
"""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from mediaproxy.agent.origins import Origins
from mediaproxy.agent.problem import Problem
from mediaproxy.config import Config

COMPONENT: Final = "flattone-payment.js"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src {}; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors {}"
)
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), clipboard-read=(), clipboard-write=()",
}
_FOR_OTHERS: Final = _HEADERS | {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
"""What pages of other sites load. There is nothing in it that is not public."""
_COMMENT: Final = re.compile(r"^ +//.*\n", re.MULTILINE)
"""Is for who reads the source; the head of the file stays."""
_PAGES: Final = {"/agent": "agent.html", "/live": "live.html"}
_SCRIPTS: Final = ("desk.js", "live.js", "embed.js", "access.js", "sign-in.js", "phone.js")
_LIBRARY: Final = "/web/jssip.js"


def component() -> bytes:
    """The payment bar with its texts."""
    folder = _web().joinpath("i18n")
    texts = {
        file.name.removesuffix(".json"): msgspec.json.decode(file.read_bytes())
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".json")
    }
    source = _COMMENT.sub("", _web().joinpath(COMPONENT).read_text("utf-8"))
    return source.replace("/* web/i18n */ {}", msgspec.json.encode(texts).decode(), 1).encode()


def routes(origins: Origins, config: Config) -> list[Route]:
    """Every page and file. Issuers with a client sign people in on this server's own pages; the desk has a phone where
    there is a WebSocket for it and a script that speaks over it."""
    issuers, phone = config.api.issuers, _phone(config)
    found = [Route("/", lambda _: RedirectResponse("/agent"))]
    doors = [issuer for issuer in issuers if issuer.client_id]
    reached = " ".join(["'self'", *sorted({"https://" + urlsplit(issuer.issuer).netloc for issuer in doors}), phone])
    for path, name in _PAGES.items():
        headers = _page_headers("'none'", reached.strip(), bool(phone) and path == "/agent")
        found.append(_file(path, _web().joinpath(name).read_bytes(), "text/html", headers))
    place = {"url": phone, "library": _LIBRARY if phone else ""}
    found.append(_file("/web/phone.json", msgspec.json.encode(place), "application/json", _HEADERS))
    if phone:
        found.append(_file(_LIBRARY, Path(config.api.phone_script).read_bytes(), "text/javascript", _HEADERS))
    told = [
        {name: getattr(issuer, name) for name in ("name", "issuer", "client_id", "login_scope")} for issuer in doors
    ]
    found.append(_file("/web/issuers.json", msgspec.json.encode(told), "application/json", _HEADERS))
    for name in _SCRIPTS:
        found.append(_file(f"/web/{name}", _web().joinpath(name).read_bytes(), "text/javascript", _HEADERS))
    found.append(_file("/web/icon.svg", _web().joinpath("icon.svg").read_bytes(), "image/svg+xml", _HEADERS))
    found.append(_file("/web/page.css", _web().joinpath("page.css").read_bytes(), "text/css", _HEADERS))
    found.append(_file(f"/{COMPONENT}", component(), "text/javascript", _FOR_OTHERS))
    api = resources.files("mediaproxy.agent").joinpath("openapi.yaml").read_bytes()
    found.append(_file("/openapi.yaml", api, "application/yaml", _FOR_OTHERS))
    found.append(Route("/embed", _embed(origins)))
    return found


def _web() -> resources.abc.Traversable:
    return resources.files("mediaproxy.agent.web")


def _phone(config: Config) -> str:
    """Where the desk's phone speaks SIP; empty where it has none."""
    socket = config.agent.websocket
    if socket is None or not config.api.phone_script:
        return ""
    return config.api.phone_url or f"wss://{socket.advertise or socket.listen}"


def _page_headers(ancestors: str, reached: str = "'self'", phone: bool = False) -> dict[str, str]:
    headers = _HEADERS | {"Content-Security-Policy": _POLICY.format(reached, ancestors)}
    if phone:
        headers["Permissions-Policy"] = headers["Permissions-Policy"].replace("microphone=()", "microphone=(self)")
    return headers


def _file(path: str, data: bytes, media_type: str, headers: dict[str, str]) -> Route:
    packed = gzip.compress(data, 9, mtime=0)

    async def serve(request: Request) -> Response:
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(data, 200, headers | {"Vary": "Accept-Encoding"}, media_type)
        return Response(packed, 200, headers | {"Vary": "Accept-Encoding", "Content-Encoding": "gzip"}, media_type)

    return Route(path, serve)


def _embed(origins: Origins) -> Callable[[Request], Awaitable[Response]]:
    """The page for a frame: it may stand on a tenant's sites only, and listens to nobody else."""
    page = _web().joinpath("embed.html").read_text("utf-8")

    async def serve(request: Request) -> Response:
        tenant = request.query_params.get("tenant", "")
        if tenant not in origins.tenants():
            raise Problem(404, "not-found", "no such tenant")
        sites = origins.of(tenant)
        text = page.replace("{origins}", html.escape(" ".join(sites), quote=True))
        return Response(text, 200, _page_headers(" ".join(sites) or "'none'"), "text/html")

    return serve
