"""The vault's life: keys from the media workers and signalling, orders from the agent process, tokens from gateways."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time

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

_FAULTS = ("call-ended", "media-restarted", "not-armed", "sealed")
"""What signalling and the agent process may report of a capture: it ends, wiped."""


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
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
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
            capture.key(key, time.monotonic())
            if capture.state == READY and self._config.capture.auto_submit:
                capture.submit()
            self._submit(capture)

    def _messages(self, channel: Channel) -> None:
        now = time.monotonic()
        for message in channel.receive():
            if isinstance(message, m.BeginCapture):
                self._begin(message, now)
            elif isinstance(message, m.Act):
                capture = self._captures.get(message.capture)
                if capture is None:
                    continue
                if message.action in _FAULTS:
                    if not capture.ended:
                        capture.end(FAILED, message.action)
                else:
                    capture.act(message.action, message.field, now)
                self._submit(capture)
                self._tell(capture, now)
            elif isinstance(message, m.Ping):
                channel.send(m.Pong(self._counters | {"running": float(len(self._captures) - len(self._ended))}))
            elif isinstance(message, m.Stop):
                self._stop.set()
            elif isinstance(message, m.Hello) and channel is self._agent:
                for capture in self._captures.values():
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
        if route.gateway not in self._gateways:
            capture.end(FAILED, "not-configured")
        self._tell(capture, now)

    def _submit(self, capture: Capture) -> None:
        if capture.state == SUBMITTING and not capture.sent:
            capture.sent = True
            task = asyncio.create_task(self._tokenize(capture))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tokenize(self, capture: Capture) -> None:
        gateway = self._gateways[self._routes[capture.route].gateway]
        key = secrets.token_urlsafe(18)
        try:
            token = await asyncio.to_thread(gateway.tokenize, capture.fields, key)
        except GatewayError as error:
            self._counters["failed"] += 1
            log.get().warning("tokenization-failed", reason=error.reason, gateway=self._routes[capture.route].gateway)
            capture.end(FAILED, error.reason)
        except Exception as error:  # a bug must not keep the digits alive
            self._counters["failed"] += 1
            log.get().error("tokenization-failed", exc_info=error)
            capture.end(FAILED, "gateway-unavailable")
        else:
            if not capture.ended:
                self._counters["tokens"] += 1
                capture.end(TOKEN, token=token)

    def _tick(self, now: float) -> None:
        for capture in list(self._captures.values()):
            capture.tick(now)
            if capture.dirty:
                self._tell(capture, now)
        for number in [n for n, when in self._ended.items() if now - when > KEEP]:
            del self._captures[number], self._ended[number]

    def _tell(self, capture: Capture, now: float) -> None:
        capture.dirty = False
        self._agent.send(capture.snapshot())
        if capture.ended and capture.number not in self._ended:
            self._ended[capture.number] = now
            self._signalling.send(m.CaptureEnded(capture.number))
