"""The HTTP API: openapi.yaml, beside this file, in code. Who may ask for what is the table at its beginning."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from mediaproxy.agent import operators, pages, shown
from mediaproxy.agent.audit import Audit, Unwritten
from mediaproxy.agent.auth import Auth, Principal
from mediaproxy.agent.desk import Desk, View
from mediaproxy.agent.limits import Buckets
from mediaproxy.agent.origins import Gate, Origins
from mediaproxy.agent.problem import Problem, on_error, on_http, on_problem
from mediaproxy.agent.queries import Page, Start, Which, page, read_body, text, which
from mediaproxy.agent.streams import Streams
from mediaproxy.config import EVERYTHING, Config, Role
from mediaproxy.ipc import messages as m

BURST: Final = 5.0
"""Seconds' worth of requests that may come at once."""
STRANGERS: Final = (5.0, 50.0)
"""Requests without a good token, of one address: a second, and at once. Beyond, they are not logged."""
REFUSALS: Final = (20.0, 200.0)
"""Lines about refusals: a second, and at once. Beyond, they are counted only."""
SAFER: Final = frozenset({"capture-cancel", "guard"})
"""What is done though it cannot be written down."""
_EVERYONE: Final[tuple[Role, ...]] = ("agent", "supervisor", "auditor")
_PEOPLE: Final[tuple[Role, ...]] = ("agent", "supervisor")

_ORIGIN: Final = re.compile(r"[a-z]+://[A-Za-z0-9.-]+(:[0-9]{1,5})?")

Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, Principal], Awaitable[Response]]


class Api:
    """The application around a Desk."""

    def __init__(self, desk: Desk, audit: Audit, config: Config) -> None:
        self._desk, self._audit = desk, audit
        self._auth, self._origins = Auth(config.api, (t.name for t in config.tenants)), Origins(config)
        self._streams = Streams(desk, config.api.streams)
        self._apart = bool(config.tenants)
        self._reading = asyncio.Semaphore(1)
        """Of audit logs: a thread at a time."""
        self._requests = Buckets(config.api.requests_a_second, BURST * config.api.requests_a_second)
        self._strangers, self._refusals = Buckets(*STRANGERS), Buckets(*REFUSALS)
        capture, call = "/v1/captures/{id}", "/v1/calls/{id}"
        table: list[tuple[str, str, Handler, str, tuple[Role, ...]]] = [
            ("POST", "/v1/captures", self._start, "capture-start", _PEOPLE),
            ("GET", "/v1/captures", self._list, "capture-list", _PEOPLE),
            ("GET", capture, self._show, "capture-show", _PEOPLE),
            ("GET", capture + "/events", self._events, "capture-events", _PEOPLE),
            ("POST", capture + "/cancel", self._cancel, "capture-cancel", _PEOPLE),
            ("POST", capture + "/submit", self._submit, "capture-submit", _PEOPLE),
            ("POST", capture + "/fields/{field}/reset", self._reset, "capture-reset", _PEOPLE),
            ("GET", "/v1/calls", self._calls, "call-list", _EVERYONE),
            ("POST", call + "/release", self._release, "release", ("supervisor",)),
            ("POST", call + "/guard", self._guard, "guard", ("supervisor",)),
            ("GET", "/v1/me", self._me, "me", _EVERYONE),
            ("POST", "/v1/notice", self._notice, "notice-accepted", _PEOPLE),
            ("GET", "/v1/alarms", self._alarms, "alarm-list", ("supervisor",)),
            ("GET", "/v1/audit", self._lines, "audit-read", ("auditor",)),
        ]
        by_path: dict[str, dict[str, Endpoint]] = {}
        for method, path, handler, action, roles in table:
            by_path.setdefault(path, {})[method] = self._entered(handler, action, roles)
        app = Starlette(
            routes=[
                *(Route(path, self._resource(rows), methods=list(rows)) for path, rows in by_path.items()),
                *operators.routes(desk),
                *pages.routes(self._origins, config),
            ],
            exception_handlers={Problem: on_problem, HTTPException: on_http, Exception: on_error},
        )
        desk.vouch = self._vouch
        self.app: ASGIApp = Gate(app, self._origins, self._foreign_page)

    async def _vouch(self, question: m.Vouch) -> m.Vouched:
        """Whose token a phone registers with: an agent's, who may have calls of these extensions."""
        try:
            who = await self._auth.identify(f"Bearer {question.token}")
        except Problem as problem:
            self._refusal(None, "phone-register", problem)
            return m.Vouched(question.question, problem.status)
        if "agent" not in who.roles or who.tenant == EVERYTHING or who.unlimited or not who.numbers:
            self._refusal(who, "phone-register", Problem(403, "forbidden", "a phone needs an agent's own extension"))
            return m.Vouched(question.question, 403)
        until = who.expires if math.isfinite(who.expires) else 0.0
        return m.Vouched(question.question, 200, who.tenant, tuple(sorted(who.numbers)), until)

    # Who comes in

    @staticmethod
    def _resource(methods: dict[str, Endpoint]) -> Endpoint:
        """What answers at one address."""

        async def endpoint(request: Request) -> Response:
            return await methods["GET" if request.method == "HEAD" else request.method](request)

        return endpoint

    def _entered(self, handler: Handler, action: str, roles: tuple[Role, ...]) -> Endpoint:
        """`handler` for those who may do `action`."""

        async def endpoint(request: Request) -> Response:
            who = await self._identify(request, action)
            if not self._desk.informed:
                raise Problem(503, "starting", "what there was before this process is not known yet")
            if not self._origins.allows(request.headers, who.tenant):
                raise self._refusal(who, action, Problem(403, "origin", "pages of this site may not use this token"))
            if not who.unlimited:
                self._requests.take(who.key)
            if not who.roles & set(roles):
                problem = Problem(403, "forbidden", f"this needs the role {' or '.join(roles)}")
                raise self._refusal(who, action, problem, **self._named(request, who))
            return await handler(request, who)

        return endpoint

    async def _identify(self, request: Request, action: str) -> Principal:
        try:
            return await self._auth.identify(request.headers.get("authorization", ""))
        except Problem as problem:
            if problem.status != 401:
                raise
            if problem.kind == "token-expired":  # somebody known, who is to get a fresh one
                raise self._refusal(None, action, problem) from None
            if not self._strangers.room(request.client.host if request.client else ""):
                raise Problem(429, "too-many-requests", "too many requests without a good token", 1) from None
            raise self._refusal(None, action, problem) from None

    def _refusal(self, who: Principal | None, action: str, problem: Problem, **fields: str) -> Problem:
        """Write down that somebody was turned away; returns `problem`."""
        self._desk.refused += 1
        if self._refusals.room(who.key if who is not None else ""):
            named = (who.name, who.by) if who is not None else ("nobody", "none")
            try:
                self._audit.write(
                    who.home if who is not None else "", *named, action, "refused", reason=problem.kind, **fields
                )
            except Unwritten:
                return problem
        return problem

    def _named(self, request: Request, who: Principal) -> dict[str, str]:
        """The call that an address names, where it is one of theirs."""
        call = self._desk.calls.get(request.path_params.get("id", ""))
        return {"call": call.call} if call is not None and who.of_tenant(self._desk.tenant(call.route)) else {}

    def _foreign_page(self, scope: Scope) -> None:
        self._refusal(None, "page", Problem(403, "origin", ""), origin=_plain(Headers(scope=scope)["origin"]))

    def _write(self, who: Principal, tenant: str, action: str, result: str = "ok", **fields: str) -> None:
        """Write down what is about to be done. Raises Problem 503 where that cannot be."""
        try:
            self._audit.write(tenant, who.name, who.by, action, result, **fields)
        except Unwritten:
            if action not in SAFER:
                raise Problem(503, "audit-unavailable", "nothing is done that cannot be written down", 5) from None

    # Captures

    async def _start(self, request: Request, who: Principal) -> Response:
        wanted = await read_body(request, Start)
        call = self._find_call(who, wanted.call)
        tenant = self._desk.tenant(call.route)
        wish = self._desk.wish(call, wanted.fields, wanted.template)
        about = {"call": call.call, "number": call.number, "capture": wish.id}
        self._write(who, tenant, "capture-start", "asked", **about)
        try:
            view = await self._desk.start(call, wish)
        except Problem as problem:
            self._write(who, tenant, "capture-start", "failed", reason=problem.kind, **about)
            raise
        try:
            self._write(who, tenant, "capture-start", **about)
        except Problem:
            self._desk.act(wish.number, "cancel")
            raise
        return _json(shown.capture(self._desk, view), 201, {"Location": f"/v1/captures/{view.id}"})

    async def _list(self, request: Request, who: Principal) -> Response:
        named = which(request)
        asked = page(request, r"[0-9a-f]{28}")
        found = sorted(
            (
                (f"{int(view.began * 1e6):012x}{view.id}", view)
                for view in self._desk.captures.values()
                if who.may_act(self._desk.tenant(view.route), view.number)
                and named.fits_capture(view, self._desk.calls)
            ),
            key=lambda item: item[0],
            reverse=True,
        )
        later = [item for item in found if not asked.after or item[0] < asked.after]
        return _page("captures", later, asked, lambda view: shown.capture(self._desk, view))

    async def _show(self, request: Request, who: Principal) -> Response:
        return _json(shown.capture(self._desk, self._owned(request, who, "capture-show")))

    async def _cancel(self, request: Request, who: Principal) -> Response:
        return self._act(request, who, "cancel")

    async def _submit(self, request: Request, who: Principal) -> Response:
        return self._act(request, who, "submit")

    async def _reset(self, request: Request, who: Principal) -> Response:
        return self._act(request, who, "reset", request.path_params["field"])

    def _act(self, request: Request, who: Principal, action: str, kind: str = "") -> Response:
        view = self._owned(request, who, f"capture-{action}")
        if kind and kind not in {f.name for f in (view.state.fields if view.state else ())}:
            raise Problem(404, "not-found", "the capture has no such field")
        if view.ended:
            raise Problem(409, "ended", "the capture has ended")
        if view.state is not None and view.state.state == "submitting":
            raise Problem(409, "submitting", "the fields are on their way to the gateway")
        if action == "submit" and (view.state is None or view.state.state != "complete"):
            raise Problem(409, "not-complete", "not all fields are complete")
        about = {"capture": view.id, "call": view.call, "number": view.number, "field": kind}
        self._write(who, self._desk.tenant(view.route), f"capture-{action}", **about)
        self._desk.act(int(view.id, 16), action, kind)
        return _json(shown.capture(self._desk, view), 202)

    async def _events(self, request: Request, who: Principal) -> Response:
        view = self._owned(request, who, "capture-events")
        response = self._streams.response(view, who, request.headers.get("last-event-id", ""))
        return response if request.method == "GET" else Response(headers=dict(response.headers))

    def _owned(self, request: Request, who: Principal, action: str) -> View:
        """The capture that is named. Raises Problem 404 also where it is somebody else's: that it is there is theirs to
        know."""
        try:
            number = int(request.path_params["id"], 16)
        except ValueError:
            number = 0
        view = self._desk.captures.get(number)
        if view is None or not who.may_act(tenant := self._desk.tenant(view.route), view.number):
            about = {"capture": view.id} if view is not None and who.of_tenant(tenant) else {}
            raise self._refusal(who, action, Problem(404, "not-found", "no such capture"), **about)
        return view

    def _find_call(self, who: Principal, named: Which) -> m.CallState:
        if named.named() != 1:
            raise Problem(422, "call", "name the call by one of extension, call_id, correlation")
        fitting = [call for call in self._desk.calls.values() if call.state == "answered" and named.fits_call(call)]
        found = [call for call in fitting if who.may_act(self._desk.tenant(call.route), call.number)]
        if not found:
            own = [call.call for call in fitting if who.of_tenant(self._desk.tenant(call.route))]
            about = {"call": own[0]} if own else {}
            raise self._refusal(who, "capture-start", Problem(404, "no-call", "no answered call fits"), **about)
        if len(found) > 1:
            raise Problem(409, "several-calls", "more than one call fits; name it by call_id")
        return found[0]

    # Calls

    async def _calls(self, request: Request, who: Principal) -> Response:
        asked = page(request, r"[0-9A-Za-z-]{1,64}")
        named = which(request)
        seen = [
            (call.call, call)
            for call in sorted(self._desk.calls.values(), key=lambda call: call.call)
            if named.fits_call(call)
            and call.call > asked.after
            and who.may_see(self._desk.tenant(call.route), call.number)
        ]
        return _page("calls", seen, asked, lambda call: shown.call(self._desk, call))

    async def _release(self, request: Request, who: Principal) -> Response:
        return self._order(request, who, "release", "sealed")

    async def _guard(self, request: Request, who: Principal) -> Response:
        return self._order(request, who, "guard", "passthrough")

    def _order(self, request: Request, who: Principal, action: str, mode: str) -> Response:
        call = self._desk.calls.get(request.path_params["id"])
        if call is None or not who.of_tenant(tenant := self._desk.tenant(call.route)):
            raise self._refusal(who, action, Problem(404, "not-found", "no such call"))
        if call.mode != mode:
            raise Problem(409, f"not-{mode}", f"the call is not {'in ' if mode == 'passthrough' else ''}{mode}")
        self._write(who, tenant, action, call=call.call, number=call.number)
        self._desk.guard(call.call, action == "release")
        return _json(shown.call(self._desk, call), 202)

    # People

    async def _me(self, _: Request, who: Principal) -> Response:
        return _json(shown.person(who, self._audit.accepted(who.home, who.name, who.by)))

    async def _notice(self, _: Request, who: Principal) -> Response:
        try:
            self._audit.accept(who.home, who.name, who.by)
        except Unwritten:
            raise Problem(503, "audit-unavailable", "it could not be written down", 5) from None
        return _json(shown.person(who, True))

    async def _alarms(self, _: Request, who: Principal) -> Response:
        if self._apart and who.tenant != EVERYTHING:
            raise Problem(403, "forbidden", "alarms are of the whole machine; this needs a token of every tenant")
        now, past = self._desk.alarms.present(), self._desk.alarms.past
        return _json({"now": now, "past": list(reversed(past))})

    async def _lines(self, request: Request, who: Principal) -> Response:
        asked = page(request, r"[0-9]{1,15}")
        tenant = text(request, "tenant") or who.home
        if tenant not in self._origins.tenants() or not who.of_tenant(tenant):
            raise Problem(404, "not-found", "no such tenant")
        if self._audit.path(tenant) is None:
            raise Problem(404, "no-audit-log", "audit.directory is not set")
        async with self._reading:
            entries = await asyncio.to_thread(self._audit.entries, tenant, int(asked.after or 0), asked.limit + 1)
        return _page("entries", [(str(entry["seq"]), entry) for entry in entries], asked, lambda entry: entry)


def _page(name: str, items: list[tuple[str, Any]], asked: Page, show: Callable[[Any], Any]) -> Response:
    """The first of `items`, which are (cursor, item), each as `show` has it; and where the next page begins."""
    last = items[asked.limit - 1][0] if len(items) > asked.limit else None
    return _json({name: [show(item) for _, item in items[: asked.limit]], "next": last})


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(body), status, {"Cache-Control": "no-store"} | (headers or {}), "application/json"
    )


def _plain(origin: str) -> str:
    """An origin for the log: what looks like one and could hold no card number, or nothing of it."""
    fits = _ORIGIN.fullmatch(origin) and len(origin) <= 100 and sum(map(str.isdigit, origin)) < 12
    return origin if fits else "other"
