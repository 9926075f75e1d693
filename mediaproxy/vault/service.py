"""The vault's life: keys from the media workers and signalling, orders from the agent process, tokens from gateways."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from mediaproxy import log
from mediaproxy.errors import GatewayError
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.channel import Channel
from mediaproxy.ipc.key import KeyReceiver
from mediaproxy.ipc.process import Process
from mediaproxy.vault import adapters, secret
from mediaproxy.vault.capture import READY, SUBMITTING, Capture
from mediaproxy.vault.fields import kinds
from mediaproxy.vault.submission import Submission
from mediaproxy.vault.timings import Histogram

GRID = 0.35
"""Seconds between looks at what is told to the agent: coarse, so that the rhythm of keys is not to be read off events,
and short enough for a key's dot to be on the page within 0.4."""
AT_ONCE = 50
"""Captures looked at before the keys that have come meanwhile are taken."""
KEEP = 600.0
"""Seconds that an ended capture (which holds no digit) can still be asked for."""
THREADS = 64
"""Captures that may wait for one gateway at once; one that hangs keeps no other from answering."""
LAST_ANSWERS = 3.0
"""Seconds at the end for what is on its way to a gateway."""

_NO_CUE: tuple[int, tuple[str, ...], bool] = (0, (), False)
_FAULTS = ("call-ended", "not-armed", "sealed")
"""What signalling and the agent process may report of a capture: it ends, wiped."""


class Vault:
    """All captures of this machine."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._config = process.config
        self._agent = process.channels["agent"]
        self._signalling = process.channels["signalling"]
        self._gateways = adapters.gateways(self._config)
        self._kinds = kinds(self._config)
        self._routes = {route.name: route for route in self._config.routes}
        self._templates = {template.name: template for template in self._config.templates}
        self._captures: dict[int, Capture] = {}
        self._ended: dict[int, tuple[float, m.CaptureState]] = {}
        """When they ended, and how."""
        self._cued: dict[int, tuple[int, tuple[str, ...], bool]] = {}
        """What media has been told of each capture."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = {name: ThreadPoolExecutor(THREADS, name) for name in self._gateways}
        self._asking = dict.fromkeys(self._gateways, 0)
        """Captures that wait for each gateway."""
        self._counters = {"captures": 0, "tokens": 0, "failed": 0, "keys": 0, "keys_unclaimed": 0}
        self._timings = {"key": Histogram(), "gateway": Histogram()}
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Work until told to stop; running captures end wiped."""
        loop = asyncio.get_running_loop()
        for name, channel in self._process.channels.items():
            if name.endswith("-keys"):
                loop.add_reader(channel.fileno(), self._keys, KeyReceiver(channel))
            else:
                loop.add_reader(channel.fileno(), self._messages, channel)
        for name, gateway in self._gateways.items():
            if not gateway.has_credentials():
                log.get().error("gateway-without-credentials", gateway=name)
        self._process.begin()
        while not self._stop.is_set():
            await self._tick()
            try:
                await asyncio.wait_for(self._stop.wait(), GRID - time.monotonic() % GRID)
            except TimeoutError:
                continue
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_ANSWERS)
        for capture in list(self._captures.values()):
            capture.fail("stopped")
            self._tell(capture, time.monotonic())
            for f in capture.fields:
                f.wipe()

    def _keys(self, receiver: KeyReceiver) -> None:
        while (key := receiver.receive()) is not None:
            capture = self._captures.get(key.capture)
            if capture is None:
                self._counters["keys_unclaimed"] += 1
                key.event = 0
                continue
            self._counters["keys"] += 1
            now = time.monotonic()
            self._timings["key"].add(((int(now * 1000) - key.ms) & 0xFFFFFFFF) / 1000)
            try:
                capture.key(key, now)
                self._follow(capture, now)
            except Exception as error:  # a bug ends this capture, wiped
                capture.fail("fault")
                log.get().error("vault-bug", exc_info=error)

    def _messages(self, channel: Channel) -> None:
        for message in channel.receive():
            try:
                self._message(channel, message, time.monotonic())
            except Exception as error:  # a bug: this message is lost, the captures go on
                log.get().error("vault-bug", exc_info=error)

    def _message(self, channel: Channel, message: m.Any_, now: float) -> None:
        if isinstance(message, m.BeginCapture):
            self._begin(message, now)
        elif isinstance(message, m.Act):
            capture = self._captures.get(message.capture)
            if capture is not None:
                self._act(capture, message, now)
                self._follow(capture, now)
            elif message.action == "armed":  # for a capture that is over, or was never begun
                self._signalling.send(m.CaptureEnded(message.capture))
        elif isinstance(message, m.Ping):
            now_running = {"running": float(len(self._captures)), "memory_locked": float(secret.locked())}
            timings = {name: histogram.told() for name, histogram in self._timings.items()}
            channel.send(m.Pong(self._counters | now_running, timings))
        elif isinstance(message, m.Stop):
            self._stop.set()
        elif isinstance(message, m.Hello) and channel is self._agent:
            for _, ended in self._ended.values():
                self._agent.send(ended)
            for capture in self._captures.values():
                self._agent.send(capture.snapshot())
            self._agent.send(m.Told())
        elif isinstance(message, m.Hello) and channel is self._signalling:
            for capture in list(self._captures.values()):  # the calls are lost, nobody can key on
                capture.fail("call-lost")
                self._follow(capture, now)

    def _act(self, capture: Capture, message: m.Act, now: float) -> None:
        if message.action == "armed":
            capture.armed(now)
            policy = capture.route.speech != "off" or capture.route.mute_recording
            self._cued[capture.number] = -1, (), policy  # an armed leg begins muted where the route mutes at all
        elif message.action == "interrupted":
            capture.interrupt(now)
        elif message.action in _FAULTS:
            capture.fail(message.action)
        else:
            capture.act(message.action, message.field, now)

    def _begin(self, message: m.BeginCapture, now: float) -> None:
        """Nothing is believed but the route's name: which fields and which gateway is this configuration's to say."""
        route = self._routes.get(message.route)
        template = self._templates.get(message.template)
        if route is None or message.capture in self._captures:
            return
        if message.template:
            allowed = template is not None and template.name in route.templates
            names, gateway = (template.fields, template.gateway or route.gateway) if template is not None else ((), "")
        else:
            names, gateway = message.fields, route.gateway
            allowed = bool(names) and set(names) <= set(route.fields) and len(set(names)) == len(names)
        wanted = [self._kinds[name] for name in names] if allowed else []
        capture = Capture.begin(message.capture, route, gateway, wanted, self._config.capture, now)
        capture.owner = message.call, message.number, message.correlation
        self._captures[capture.number] = capture
        self._counters["captures"] += 1
        if gateway not in self._gateways or not wanted:
            capture.fail("not-configured")
        self._agent.send(capture.snapshot())
        self._follow(capture, now)

    def _follow(self, capture: Capture, now: float) -> None:
        """Do what a change of a capture calls for."""
        if capture.state == READY and self._config.capture.auto_submit:
            capture.submit()
            capture.automatic, capture.urgent = True, False  # it follows from a key
        if capture.state == SUBMITTING and not capture.sent:
            capture.sent = True
            task = asyncio.create_task(self._tokenize(capture))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._cue(capture)
        if capture.urgent:
            self._tell(capture, now)

    def _cue(self, capture: Capture) -> None:
        """Tell media what the caller is to hear now, and whether the caller may be heard."""
        play, muted = capture.cue()
        wanted, before = (capture.turn, play, muted), self._cued.get(capture.number, _NO_CUE)
        quiet = before[1:] == wanted[1:] == _NO_CUE[1:]
        if wanted != before and not quiet and self._signalling.send(m.Cue(capture.number, play, muted)):
            self._cued[capture.number] = wanted

    async def _tokenize(self, capture: Capture) -> None:
        began = time.monotonic()
        try:
            token = await self._ask(capture)
        except GatewayError as error:
            capture.refused(error.reason)
            log.get().warning(
                "tokenization-failed", capture=f"{capture.number:016x}", gateway=capture.gateway, reason=error.reason,
                error=error.cause, status=error.status,
            )  # fmt: skip
        except Exception as error:  # a bug must not keep the digits alive
            capture.refused("gateway-unavailable")
            log.get().error("tokenization-failed", exc_info=error)
        else:
            capture.answered(token)
            self._counters["tokens"] += 1
        now = time.monotonic()
        self._timings["gateway"].add(now - began)
        self._follow(capture, now)

    async def _ask(self, capture: Capture) -> str:
        """The token. Raises GatewayError."""
        first = self._gateways[capture.gateway]
        ways = [first, *([self._gateways[first.config.standby]] if first.config.standby else [])]
        if self._asking[capture.gateway] >= THREADS:
            raise GatewayError("gateway-unavailable", "busy")
        submission = Submission(ways, capture.fields)
        work = asyncio.get_running_loop().run_in_executor(self._threads[capture.gateway], submission.run)
        self._asking[capture.gateway] += 1
        work.add_done_callback(lambda _: self._asked(capture.gateway, submission))
        try:
            return await asyncio.wait_for(asyncio.shield(work), submission.seconds + 0.5)
        except TimeoutError:  # a server that sends an octet now and then never times out by itself
            submission.abort()
            work.add_done_callback(lambda done: done.exception())
            raise GatewayError("gateway-unavailable", "timeout") from None

    def _asked(self, gateway: str, submission: Submission) -> None:
        self._asking[gateway] -= 1
        submission.close()

    async def _tick(self) -> None:
        """Time passes for every capture; what has changed since the last time is told."""
        for i, capture in enumerate(list(self._captures.values())):
            now = time.monotonic()
            try:
                capture.tick(now)
                self._follow(capture, now)
                if capture.dirty:
                    self._tell(capture, now)
            except Exception as error:  # a bug ends this capture, wiped
                capture.fail("fault")
                log.get().error("vault-bug", exc_info=error)
            if i % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        now = time.monotonic()
        while self._ended and now - next(iter(self._ended.values()))[0] > KEEP:
            del self._ended[next(iter(self._ended))]

    def _tell(self, capture: Capture, now: float) -> None:
        state = capture.snapshot()
        capture.dirty = capture.urgent = not self._agent.send(state)
        if not capture.ended or capture.number not in self._captures or capture.dirty:
            return
        if not self._signalling.send(m.CaptureEnded(capture.number)):
            capture.dirty = True
            return
        del self._captures[capture.number]
        self._cued.pop(capture.number, None)
        self._ended[capture.number] = now, state
        self._counters["failed"] += state.state == "failed"
        log.get().info("capture-ended", capture=f"{capture.number:016x}", state=state.state, reason=state.reason)
