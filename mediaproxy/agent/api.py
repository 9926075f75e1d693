"""The HTTP API: openapi.yaml, beside this file, in code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import resources
from itertools import accumulate
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from mediaproxy import log
from mediaproxy.agent.auth import Tokens, may_see, need_supervisor
from mediaproxy.agent.desk import Desk, View
from mediaproxy.agent.problem import Problem, on_error, on_http, on_problem
from mediaproxy.config import TokenConfig
from mediaproxy.ipc import messages as m

LARGEST_BODY = 16_384
KEEP_ALIVE = 15.0
"""Seconds between comments on a quiet event stream, so that proxies keep it open."""
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class _Which(msgspec.Struct, forbid_unknown_fields=True):
    extension: str = ""
    call_id: str = ""
    correlation: str = ""


class _Start(msgspec.Struct, forbid_unknown_fields=True):
    call: _Which
    fields: tuple[str, ...] = ()
    template: str = ""


class Api:
    """The application around a Desk."""

    def __init__(self, desk: Desk, tokens: Tokens) -> None:
        self._desk, self._tokens = desk, tokens
        self._registry = CollectorRegistry()
        self._registry.register(_Metrics(desk))
        capture = "/v1/captures/{id}"
        self.app = Starlette(
            routes=[
                Route("/v1/captures", self.start, methods=["POST"]),
                Route(capture, self.show),
                Route(capture + "/events", self.events),
                Route(capture + "/cancel", self.cancel, methods=["POST"]),
                Route(capture + "/submit", self.submit, methods=["POST"]),
                Route(capture + "/fields/{field}/reset", self.reset, methods=["POST"]),
                Route("/v1/calls", self.calls),
                Route("/v1/calls/{id}/release", self.release, methods=["POST"]),
                Route("/v1/calls/{id}/guard", self.guard, methods=["POST"]),
                Route("/healthz", self.health),
                Route("/readyz", self.ready),
                Route("/metrics", self.metrics),
                Route("/openapi.yaml", _file("openapi.yaml", "application/yaml")),
                Route("/agent", _file("web/agent.html", "text/html")),
                Route("/agent.js", _file("web/agent.js", "text/javascript")),
                Route("/agent.css", _file("web/agent.css", "text/css")),
                Route("/", lambda _: RedirectResponse("/agent")),
            ],
            exception_handlers={Problem: on_problem, HTTPException: on_http, Exception: on_error},
        )

    # Captures

    async def start(self, request: Request) -> Response:
        token = self._tokens.identify(request)
        wanted = await _body(request)
        call = self._find_call(token, wanted.call)
        view = await self._desk.start(call, wanted.fields, wanted.template)
        _audit(token, "capture-start", "ok", capture=view.id, call=call.call)
        return _json(_shown(view), 201, {"Location": f"/v1/captures/{view.id}"})

    async def show(self, request: Request) -> Response:
        return _json(_shown(self._capture(request)[1]))

    async def cancel(self, request: Request) -> Response:
        return self._act(request, "cancel")

    async def submit(self, request: Request) -> Response:
        return self._act(request, "submit")

    async def reset(self, request: Request) -> Response:
        return self._act(request, "reset", request.path_params["field"])

    def _act(self, request: Request, action: str, kind: str = "") -> Response:
        number, view, token = self._owned(request)
        if kind and kind not in {f.name for f in (view.state.fields if view.state else ())}:
            raise Problem(404, "not-found", "the capture has no such field")
        if view.ended:
            raise Problem(409, "ended", "the capture has ended")
        if view.state is not None and view.state.state == "submitting":
            raise Problem(409, "submitting", "the fields are on their way to the gateway")
        if action == "submit" and (view.state is None or view.state.state != "complete"):
            raise Problem(409, "not-complete", "not all fields are complete")
        self._desk.act(number, action, kind)
        _audit(token, f"capture-{action}", "ok", capture=view.id, call=view.call)
        return _json(_shown(view), 202)

    async def events(self, request: Request) -> Response:
        _, view = self._capture(request)
        last = request.headers.get("last-event-id", "0")
        after = int(last) if last.isascii() and last.isdecimal() and len(last) < 10 else 0
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(view, after), media_type="text/event-stream", headers=headers)

    async def _stream(self, view: View, after: int) -> AsyncIterator[bytes]:
        if view.events and after > view.events[-1]["seq"]:
            after = 0  # counted by an agent process that has been restarted since
        while not self._desk.stopping.is_set():
            changed = view.changed
            for event in [e for e in view.events if e["seq"] > after]:
                after = event["seq"]
                yield b"id: %d\ndata: %s\n\n" % (after, msgspec.json.encode(event))
            if view.ended:
                return
            try:
                await asyncio.wait_for(changed.wait(), KEEP_ALIVE)
            except TimeoutError:
                yield b": quiet\n\n"

    def _capture(self, request: Request) -> tuple[int, View]:
        return self._owned(request)[:2]

    def _owned(self, request: Request) -> tuple[int, View, TokenConfig]:
        token = self._tokens.identify(request)
        try:
            number = int(request.path_params["id"], 16)
        except ValueError:
            number = 0
        view = self._desk.captures.get(number)
        if view is None or not may_see(token, view.number):
            raise Problem(404, "not-found", "no such capture")
        return number, view, token

    def _find_call(self, token: TokenConfig, which: _Which) -> m.CallState:
        if sum(map(bool, (which.extension, which.call_id, which.correlation))) != 1:
            raise Problem(422, "call", "name the call by one of extension, call_id, correlation")
        found = [
            call
            for call in self._desk.calls.values()
            if call.state == "answered"
            and may_see(token, call.number)
            and (
                (which.extension and call.number == which.extension)
                or (which.call_id and which.call_id in (call.call, *call.sip_call_ids))
                or (which.correlation and call.correlation == which.correlation)
            )
        ]
        if not found:
            raise Problem(404, "no-call", "no answered call fits")
        if len(found) > 1:
            raise Problem(409, "several-calls", "more than one call fits; name it by call_id")
        return found[0]

    # Calls

    async def calls(self, request: Request) -> Response:
        token = self._tokens.identify(request)
        seen = [_shown_call(call) for call in self._desk.calls.values() if may_see(token, call.number)]
        return _json({"calls": seen})

    async def release(self, request: Request) -> Response:
        return self._order(request, release=True)

    async def guard(self, request: Request) -> Response:
        return self._order(request, release=False)

    def _order(self, request: Request, release: bool) -> Response:
        token = self._tokens.identify(request)
        need_supervisor(token)
        call = self._desk.calls.get(request.path_params["id"])
        if call is None:
            raise Problem(404, "not-found", "no such call")
        if release and call.mode != "sealed":
            raise Problem(409, "not-sealed", "the call is not sealed")
        if not release and call.mode != "passthrough":
            raise Problem(409, "not-passthrough", "the call is not in passthrough")
        self._desk.guard(call.call, release)
        _audit(token, "release" if release else "guard", "ok", call=call.call)
        return _json(_shown_call(call), 202)

    # Operators

    async def health(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        roles = self._desk.counters.roles
        up = bool(roles) and all(c.get("ready") for c in roles.values()) and not self._desk.stopping.is_set()
        return _json({"status": "ready" if up else "starting"}, 200 if up else 503)

    async def metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._registry), media_type="text/plain; version=0.0.4")


GAUGES = frozenset({"calls", "connections", "down", "load", "memory_locked", "ready", "running", "waiting"})
"""What a process tells that may fall again; all else only grows, until the process is restarted."""


class _Metrics(Collector):
    """Every process's counters, as they were last told to the supervisor."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> Any:
        counters = self._desk.counters
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for role, values in sorted(counters.roles.items()):
            for name, value in sorted(values.items()):
                key = f"flattone_{role.partition('-')[0]}_{name.removesuffix('_total')}"
                kind = GaugeMetricFamily if name in GAUGES else CounterMetricFamily
                family = families.setdefault(key, kind(key, name.replace("_", " "), labels=["worker"]))
                family.add_metric([role], value)
        histograms: dict[str, HistogramMetricFamily] = {}
        for role, timings in sorted(counters.timings.items()):
            for name, found in timings.items():
                key = f"flattone_{role.partition('-')[0]}_{name}_seconds"
                histogram = histograms.setdefault(key, HistogramMetricFamily(key, name, labels=["worker"]))
                below = list(accumulate(found.counts))
                names = [*(f"{bound:g}" for bound in found.bounds), "+Inf"]
                histogram.add_metric([role], list(zip(names, below, strict=True)), found.seconds)
        restarts = CounterMetricFamily("flattone_restarts", "processes restarted", labels=["worker"])
        for role, count in counters.restarts.items():
            restarts.add_metric([role], count)
        return [*families.values(), *histograms.values(), restarts]


async def _body(request: Request) -> _Start:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > LARGEST_BODY:
            raise Problem(413, "too-large", "the body is too large")
    try:
        return msgspec.json.decode(data, type=_Start)
    except msgspec.DecodeError:
        raise Problem(422, "body", "the body must be JSON as openapi.yaml describes it") from None


def _shown(view: View) -> dict[str, Any]:
    state = view.state
    if state is None:
        return {"id": view.id, "call": view.call, "state": "keying", "speech": "off", "fields": []}
    fields = [
        {"name": f.name, "state": f.state, "digits_received": f.digits_received}
        | ({"reason": f.reason} if f.reason else {})
        for f in state.fields
    ]
    extra = {key: getattr(state, key) for key in ("token", "brand", "last4", "reason") if getattr(state, key)}
    return {"id": view.id, "call": view.call, "state": state.state, "speech": state.speech, "fields": fields} | extra


def _shown_call(call: m.CallState) -> dict[str, Any]:
    names = ("state", "mode", "direction", "number", "correlation", "sip_call_ids", "route")
    capture = f"{call.capture:016x}" if call.capture else None
    return {"id": call.call, "capture": capture} | {name: getattr(call, name) for name in names}


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(body), status, {"Cache-Control": "no-store"} | (headers or {}), "application/json"
    )


def _file(name: str, media_type: str) -> Any:
    data = resources.files("mediaproxy.agent").joinpath(name).read_bytes()

    async def serve(_: Request) -> Response:
        return Response(data, 200, _PAGE_HEADERS, media_type)

    return serve


def _audit(token: TokenConfig, action: str, result: str, **fields: str) -> None:
    log.get().info("audit", user=token.name, action=action, result=result, **fields)
