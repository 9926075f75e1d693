"""What the agent side knows: live calls, captures as the vault tells them, and the events made of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mediaproxy import log
from mediaproxy.agent.alarms import Alarms
from mediaproxy.agent.audit import SYSTEM, Audit
from mediaproxy.agent.problem import Problem
from mediaproxy.agent.webhook import Webhooks
from mediaproxy.config import Config
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.process import Process

ANSWER = 3.0
"""Seconds that the vault and the media worker have to answer."""
HISTORY = 400
"""Events kept of one capture."""
CAPTURES = 2000
"""Captures kept; the oldest ended ones go."""
EACH = 20
"""Ended ones kept of one extension, so that nobody's captures push out everybody else's."""
ENDED = ("token", "failed", "cancelled")


async def _nobody(question: m.Vouch) -> m.Vouched:
    return m.Vouched(question.question, 503)


@dataclass(slots=True)
class View:
    """One capture as the API shows it. `changed` is renewed with every event."""

    id: str
    call: str
    number: str
    correlation: str = ""
    route: str = ""
    began: float = field(default_factory=time.monotonic)
    state: m.CaptureState | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    armed: asyncio.Future[bool] | None = None

    @property
    def ended(self) -> bool:
        return self.state is not None and self.state.state in ENDED


@dataclass(frozen=True, slots=True)
class Wish:
    """A capture that is to begin."""

    number: int
    fields: tuple[str, ...]
    template: str = ""

    @property
    def id(self) -> str:
        return f"{self.number:016x}"


class Desk:
    """Calls and captures, and the channels behind them. epoch: of this process, which counts events anew."""

    def __init__(self, process: Process, audit: Audit) -> None:
        self._process, self._audit = process, audit
        self.epoch = secrets.token_hex(4)
        self._config: Config = process.config
        self._signalling, self._vault = process.channels["signalling"], process.channels["vault"]
        self._routes = {route.name: route for route in self._config.routes}
        self._templates = {template.name: template for template in self._config.templates}
        self._gateways = {gateway.name: gateway for gateway in self._config.gateways}
        self._webhooks = Webhooks(self._config)
        self._started: dict[str, None] = {}
        """Calls on which a capture has been started by their route."""
        self._starting: set[asyncio.Task[None]] = set()
        self.calls: dict[str, m.CallState] = {}
        self.captures: dict[int, View] = {}
        self.counters = m.Counters({}, {})
        self.alarms = Alarms()
        self.vouch: Callable[[m.Vouch], Awaitable[m.Vouched]] = _nobody
        """Who knows tokens."""
        self._heard: set[str] = set()
        """Who has told what there was before this process."""
        self._begun: set[str] = set()
        """Calls on which a capture is being started."""
        self.stopping = asyncio.Event()
        self.streams = self.refused = 0
        """Event streams that are open; requests that were turned away."""

    def attach(self) -> None:
        """Listen to the channels from now on."""
        loop = asyncio.get_running_loop()
        for name, channel in self._process.channels.items():
            loop.add_reader(channel.fileno(), self._messages, name)
        self._process.begin()

    def _messages(self, name: str) -> None:
        for message in self._process.channels[name].receive():
            try:
                self._message(name, message)
            except Exception as error:  # a bug: this message is lost, the rest goes on
                log.get().error("agent-bug", exc_info=error)

    def _message(self, name: str, message: m.Any_) -> None:
        channel = self._process.channels[name]
        if isinstance(message, m.CallState):
            if message.state == "ended":
                self.calls.pop(message.call, None)
            else:
                self._mode_changed(self.calls.get(message.call), message)
                self.calls[message.call] = message
                self._start_by_route(message)
        elif isinstance(message, m.CaptureState):
            self._captured(message)
        elif isinstance(message, m.Armed):
            view = self.captures.get(message.capture)
            if view is not None and view.armed is not None and not view.armed.done():
                view.armed.set_result(message.ok)
        elif isinstance(message, m.Vouch):
            task = asyncio.create_task(self._vouch(message))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
        elif isinstance(message, m.Happened):
            self._audit.system(
                message.action, message.route, message.who or SYSTEM, call=message.call, reason=message.reason
            )
        elif isinstance(message, m.Hello) and name == "signalling":
            self.calls.clear()
            self._heard.add(name)
        elif isinstance(message, m.Hello) and name == "vault":
            self._vault_lost()
            self._heard.add(name)
        elif isinstance(message, m.Told):
            self._heard.add(name)
        elif isinstance(message, m.Ping):
            channel.send(m.Pong(self._count()))
        elif isinstance(message, m.Counters):
            self.counters = message
            self.alarms.look(message)
        elif isinstance(message, m.Stop):
            self.stopping.set()

    async def _vouch(self, question: m.Vouch) -> None:
        """Say whose a token is, to whoever registers a phone with it."""
        self._signalling.send(await self.vouch(question))

    def _count(self) -> dict[str, float]:
        now = {"calls": len(self.calls), "captures": len(self.captures), "streams": self.streams}
        counted = {"audit_failed": self._audit.failed, "refused": self.refused}
        return {key: float(value) for key, value in (now | counted).items()} | self._webhooks.counters

    @property
    def informed(self) -> bool:
        """Whether calls and captures from before this process are known."""
        return self._heard >= {"signalling", "vault"}

    def tenant(self, route: str) -> str:
        """Whose the calls of a route are."""
        return self._routes[route].tenant if route in self._routes else ""

    def event_id(self, view: View) -> str:
        """Of the last event of a capture; numbers count anew in every process."""
        return f"{self.epoch}-{view.events[-1]['seq'] if view.events else 0}"

    def _mode_changed(self, before: m.CallState | None, now: m.CallState) -> None:
        """An agent whose line is sealed in the middle of a capture has to know why nothing is heard."""
        view = self.captures.get(now.capture)
        if before is None or before.mode == now.mode or "sealed" not in (before.mode, now.mode):
            return
        if view is not None and view.state is not None and not view.ended:
            self._event(view, {"field": None, "state": view.state.state, "digits_received": None, "mode": now.mode})

    def _start_by_route(self, call: m.CallState) -> None:
        """Where a route says so the first capture begins with the answer."""
        if call.state == "answered" and not call.captures and self._routes[call.route].start == "answer":
            if call.call in self._started:
                return
            self._started[call.call] = None
            while len(self._started) > CAPTURES:
                del self._started[next(iter(self._started))]
            task = asyncio.create_task(self._start_alone(call))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start_alone(self, call: m.CallState) -> None:
        try:
            view = await self.start(call, self.wish(call))
        except Problem as problem:
            log.get().warning("capture-not-started", call=call.call, reason=problem.kind)
        else:
            about = {"capture": view.id, "call": call.call, "number": call.number}
            self._audit.system("capture-start", call.route, **about)

    def _vault_lost(self) -> None:
        for number, view in self.captures.items():
            if not view.ended and view.state is not None:
                fields = tuple(m.FieldState(f.name, "waiting", 0) for f in view.state.fields)
                self._captured(m.CaptureState(number, "failed", fields, "vault-restarted"))

    def _captured(self, state: m.CaptureState) -> None:
        owner = state.call, state.number, state.correlation, state.route
        view = self.captures.setdefault(state.capture, View(f"{state.capture:016x}", *owner))
        before = view.state
        if before is not None and view.ended:
            return
        view.state, view.began = state, state.began or view.began
        known = {f.name: f for f in before.fields} if before is not None else {}
        for f in state.fields:
            if known.get(f.name) != f:
                event = {"field": f.name, "state": f.state, "digits_received": f.digits_received}
                if f.name == "pan" and f.state == "complete":
                    event |= {key: value for key, value in (("brand", state.brand), ("last4", state.last4)) if value}
                self._event(view, event | ({"reason": f.reason} if f.reason else {}))
        speech = before.speech if before is not None else "off"
        if before is None or before.state != state.state or speech != state.speech:
            extra = {key: getattr(state, key) for key in ("token", "brand", "last4", "reason") if getattr(state, key)}
            if speech != state.speech or state.speech != "off":
                extra["speech"] = state.speech
            self._event(view, {"field": None, "state": state.state, "digits_received": None} | extra)

        if view.ended and (before is not None or not self._audit.has_end(self.tenant(state.route), view.id)):
            about = {"capture": view.id, "call": view.call, "number": view.number, "reason": state.reason}
            self._audit.system("capture-ended", state.route, result=state.state, **about)
        if state.state == "token":
            self._webhooks.send(view.id, view.call, view.correlation, state)

    def _event(self, view: View, event: dict[str, Any]) -> None:
        seq = view.events[-1]["seq"] + 1 if view.events else 1
        view.events.append({"seq": seq, "capture": view.id} | event)
        del view.events[:-HISTORY]
        view.changed.set()
        view.changed = asyncio.Event()

    # Orders

    def wish(self, call: m.CallState, fields: tuple[str, ...] = (), template: str = "") -> Wish:
        """What a capture of `fields` (default: the route's) or of a template on a call would be. Raises Problem."""
        route = self._routes[call.route]
        if fields and template:
            raise Problem(422, "fields", "name a template or fields, not both")
        if template and template not in route.templates:
            allowed = ", ".join(route.templates) or "no template"
            raise Problem(422, "template", f"the call's route allows: {allowed}")
        if not route.gateway and not (template and self._templates[template].gateway):
            raise Problem(409, "not-configured", "the call's route has no gateway")
        fields = self._templates[template].fields if template else fields or route.fields
        if not template and (not set(fields) <= set(route.fields) or len(set(fields)) != len(fields)):
            raise Problem(422, "fields", f"the call's route allows: {', '.join(route.fields)}")
        gateway = self._gateways[self._templates[template].gateway or route.gateway if template else route.gateway]
        if gateway.kind != "rest" and "pan" not in fields:
            raise Problem(422, "fields", "the call's gateway needs pan")
        return Wish(secrets.randbits(63) | 1, fields, template)

    async def start(self, call: m.CallState, wish: Wish) -> View:
        """Begin a capture. Raises Problem."""
        if call.call in self._begun:
            raise Problem(409, "busy", "a capture is being started on this call")
        self._begun.add(call.call)
        try:
            return await self._start(call, wish)
        finally:
            self._begun.discard(call.call)

    async def _start(self, call: m.CallState, wish: Wish) -> View:
        call = await self._settled(call)
        if call.mode == "sealed":
            raise Problem(409, "sealed", "the call is sealed; a supervisor can release it")
        if call.capture:
            raise Problem(409, "busy", f"capture {call.capture:016x} runs on this call")
        number = wish.number
        view = View(wish.id, call.call, call.number, call.correlation, call.route)
        self.captures[number] = view
        self._forget_oldest(view)
        changed = view.changed
        view.armed = asyncio.get_running_loop().create_future()
        sent = self._vault.send(
            m.BeginCapture(number, wish.fields, call.route, wish.template, call.call, call.number, call.correlation)
        )
        if not sent or not await _within(changed.wait()) or view.ended:
            self._vault.send(m.Act(number, "not-armed"))
            if view.state is None:
                del self.captures[number]
            raise Problem(503, "vault-unavailable", "the capture could not begin", retry_after=1)
        sent = self._signalling.send(m.Arm(call.call, number))
        if not sent or not await _within(view.armed) or not view.armed.result():
            self._vault.send(m.Act(number, "not-armed"))
            raise Problem(503, "not-armed", "the call's media could not be armed; nothing was captured", retry_after=1)
        return view

    async def _settled(self, call: m.CallState) -> m.CallState:
        """The call once the leg has been disarmed of a capture that has ended: signalling says so a moment later."""
        deadline = asyncio.get_running_loop().time() + ANSWER
        while (view := self.captures.get(call.capture)) is not None and view.ended:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.02)
            call = self.calls.get(call.call, call)
        return call

    def act(self, number: int, action: str, kind: str = "") -> None:
        """Pass on an agent's action. Raises Problem."""
        if not self._vault.send(m.Act(number, action, kind)):
            raise Problem(503, "vault-unavailable", "the action could not be passed on")

    def guard(self, call: str, release: bool) -> None:
        """Pass on a supervisor's order. Raises Problem."""
        if not self._signalling.send(m.Guard(call, release)):
            raise Problem(503, "signalling-unavailable", "the order could not be passed on")

    def _forget_oldest(self, new: View) -> None:
        same = (new.route, new.number)
        theirs = [n for n, view in self.captures.items() if view.ended and (view.route, view.number) == same]
        for number in theirs[:-EACH]:
            del self.captures[number]
        while len(self.captures) > CAPTURES:
            oldest = next((n for n, view in self.captures.items() if view.ended), None)
            if oldest is None:
                return
            del self.captures[oldest]


async def _within(what: Any) -> bool:
    try:
        await asyncio.wait_for(asyncio.shield(what) if isinstance(what, asyncio.Future) else what, ANSWER)
    except TimeoutError:
        return False
    return True
