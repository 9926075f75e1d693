"""The vault's life: keys from the media workers and signalling, orders from the agent process, tokens from gateways."""

from __future__ import annotations

import asyncio
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

from mediaproxy import log
from mediaproxy.errors import GatewayError
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.channel import Channel
from mediaproxy.ipc.key import KeyReceiver
from mediaproxy.ipc.process import Process
from mediaproxy.vault.adapters.rest import RestGateway
from mediaproxy.vault.capture import FAILED, READY, SUBMITTING, TOKEN, Capture
from mediaproxy.vault.gateway import Gateway

GRID = 0.5
"""Seconds between looks at what is told to the agent: the rhythm of keys is not to be read off events."""
KEEP = 600.0
"""Seconds that an ended capture (which holds no digit) can still be asked for."""

_FAULTS = ("call-ended", "not-armed", "sealed")
"""What signalling and the agent process may report of a capture: it ends, wiped."""


THREADS = 64
"""Captures that may wait for a gateway at once."""


class Vault:
    """All captures of this machine."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._config = process.config
        self._agent = process.channels["agent"]
        self._signalling = process.channels["signalling"]
        self._gateways: dict[str, Gateway] = {g.name: RestGateway(g) for g in self._config.gateways}
        self._routes = {route.name: route for route in self._config.routes}
        self._captures: dict[int, Capture] = {}
        self._ended: dict[int, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(THREADS, "gateway")
        self._patience = {g.name: 2 * g.timeout_seconds for g in self._config.gateways}
        """Seconds for a whole answer: a gateway that sends an octet now and then never times out by itself."""
        self._counters = {"captures": 0, "tokens": 0, "failed": 0, "keys": 0, "keys_unclaimed": 0}
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Work until told to stop; running captures end wiped."""
        loop = asyncio.get_running_loop()
        for name, channel in self._process.channels.items():
            if name.endswith("-keys"):
                loop.add_reader(channel.fileno(), self._keys, KeyReceiver(channel))
            else:
                loop.add_reader(channel.fileno(), self._messages, channel)
        self._process.begin()
        while not self._stop.is_set():
            self._tick(time.monotonic())
            try:
                await asyncio.wait_for(self._stop.wait(), GRID - time.monotonic() % GRID)
            except TimeoutError:
                continue
        for capture in self._captures.values():
            capture.end(FAILED, "stopped")

    def _keys(self, receiver: KeyReceiver) -> None:
        while (key := receiver.receive()) is not None:
            capture = self._captures.get(key.capture)
            if capture is None:
                self._counters["keys_unclaimed"] += 1
                key.event = 0
                continue
            self._counters["keys"] += 1
            try:
                capture.key(key, time.monotonic())
                self._submit(capture)
            except Exception as error:  # a bug ends this capture, wiped
                capture.end(FAILED, "fault")
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
            if capture is None:
                return
            if message.action == "interrupted":
                capture.interrupt(now)
            elif message.action in _FAULTS:
                if not capture.ended and capture.state != SUBMITTING:  # a token on its way is not thrown away
                    capture.end(FAILED, message.action)
            else:
                capture.act(message.action, message.field, now)
            self._submit(capture)
        elif isinstance(message, m.Ping):
            channel.send(m.Pong(self._counters | {"running": float(len(self._captures) - len(self._ended))}))
        elif isinstance(message, m.Stop):
            self._stop.set()
        elif isinstance(message, m.Hello) and channel is self._agent:
            for capture in sorted(self._captures.values(), key=lambda c: c.ended):
                self._agent.send(capture.snapshot())
        elif isinstance(message, m.Hello) and channel is self._signalling:
            for capture in self._captures.values():
                if not capture.ended:  # the calls are lost, nobody can key on
                    capture.end(FAILED, "call-lost")

    def _begin(self, message: m.BeginCapture, now: float) -> None:
        route = self._routes.get(message.route)
        if route is None:
            return
        capture = Capture.begin(
            message.capture, message.route, message.fields, route.show_last4,
            self._config.capture.field_seconds, self._config.capture.total_seconds, now,
        )  # fmt: skip
        self._captures[capture.number] = capture
        self._counters["captures"] += 1
        self._agent.send(capture.snapshot())
        if route.gateway not in self._gateways:
            capture.end(FAILED, "not-configured")

    def _submit(self, capture: Capture) -> None:
        if capture.state == READY and self._config.capture.auto_submit:
            capture.submit()
        if capture.state == SUBMITTING and not capture.sent:
            capture.sent = True
            task = asyncio.create_task(self._tokenize(capture))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tokenize(self, capture: Capture) -> None:
        gateway = self._gateways[self._routes[capture.route].gateway]
        key = secrets.token_urlsafe(18)
        try:
            work = asyncio.get_running_loop().run_in_executor(self._threads, gateway.tokenize, capture.fields, key)
            token = await asyncio.wait_for(work, self._patience[self._routes[capture.route].gateway])
        except (GatewayError, TimeoutError) as error:
            reason = error.reason if isinstance(error, GatewayError) else "gateway-unavailable"
            capture.end(FAILED, reason)
            self._counters["failed"] += 1
            log.get().warning("tokenization-failed", reason=reason, gateway=self._routes[capture.route].gateway)
        except Exception as error:  # a bug must not keep the digits alive
            capture.end(FAILED, "gateway-unavailable")
            self._counters["failed"] += 1
            log.get().error("tokenization-failed", exc_info=error)
        else:
            if not capture.ended:
                self._counters["tokens"] += 1
                capture.end(TOKEN, token=token)

    def _tick(self, now: float) -> None:
        for capture in list(self._captures.values()):
            capture.tick(now)
            self._submit(capture)
            if capture.dirty:
                self._tell(capture, now)
        for number in [n for n, when in self._ended.items() if now - when > KEEP]:
            del self._captures[number], self._ended[number]

    def _tell(self, capture: Capture, now: float) -> None:
        capture.dirty = not self._agent.send(capture.snapshot())
        if capture.ended and capture.number not in self._ended:
            if self._signalling.send(m.CaptureEnded(capture.number)):
                self._ended[capture.number] = now
                name = f"{capture.number:016x}"
                log.get().info("capture-ended", capture=name, state=capture.state, reason=capture.reason)
            else:
                capture.dirty = True
