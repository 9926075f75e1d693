"""One media worker: calls in slots, a tick every 5 ms, messages between ticks."""

from __future__ import annotations

import gc
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from select import poll

import numpy as np

from mediaproxy import log
from mediaproxy.config import Config, port_range
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.key import Key, KeySender
from mediaproxy.ipc.process import Process
from mediaproxy.ipc.tap import Tap
from mediaproxy.media import modes
from mediaproxy.media.engine import Engine
from mediaproxy.media.modes import Mode
from mediaproxy.media.pump import PortPool, Pump
from mediaproxy.media.rows import Rows
from mediaproxy.media.source import SourceRule

TICK: float = 0.005
IDLE_CHECK: float = 1.0


@dataclass(slots=True)
class Call:
    """slots and ports in the order of OpenCall; `trunk` is the slot of the caller's leg."""

    id: str
    slots: tuple[int, int]
    ports: tuple[int, int]
    trunk: int
    record: bool
    number: int
    capture: int = 0
    orphan: bool = False
    """Signalling was restarted and does not know this call: it goes on until its RTP ends."""


class Worker:
    """The state of one worker; `run` is its life."""

    def __init__(self, process: Process, clock: Callable[[], float] = time.monotonic) -> None:
        config: Config = process.config
        self._process = process
        self._clock = clock
        self._signalling = process.channels["signalling"]
        self._keys = KeySender(process.channels["vault-keys"])
        self._tap = Tap(process.channels["recording"])
        self._engine = Engine(2 * config.media.max_calls)
        self._pump = Pump()
        first, last = _share(port_range(config.media), process.role, config.media.workers)
        self._ports = PortPool(first, last, config.media.port_rest_seconds)
        self._timeout = config.media.rtp_timeout_seconds
        self._free = list(range(2 * config.media.max_calls - 1, -1, -1))
        self._calls: dict[str, Call] = {}
        self._by_slot: dict[int, Call] = {}
        self._numbers = 0
        self._next_idle_check = 0.0
        self._ticks = np.zeros(4, np.int64)
        """Ticks that took up to 1, up to 2.5, up to 5 and more than 5 ms."""
        self.stopping = False

    def run(self) -> None:
        """Work until told to stop."""
        poller = poll()
        for channel in (self._signalling, self._process.supervisor, self._tap.channel):
            poller.register(channel.fileno(), 1)
        gc.freeze()
        gc.disable()
        deadline = self._clock()
        while not self.stopping:
            wait = max(0.0, deadline - self._clock()) if self._calls else 0.2
            if poller.poll(wait * 1000 if not self._calls else 0):
                self._messages()
            elif self._calls and wait:
                time.sleep(wait)
            now = self._clock()
            deadline = deadline + TICK if now < deadline + TICK else now + TICK
            if self._calls:
                self._tick(now)
            if now >= self._next_idle_check:
                self._next_idle_check = now + IDLE_CHECK
                self._check_idle(now)
                gc.collect(0)
        for call in list(self._calls.values()):
            self._close(call)

    def _tick(self, now: float) -> None:
        rows = self._pump.drain()
        try:
            out = self._engine.process(rows, now, time.time())
        except Exception as error:  # a bug must not end in unmasked audio or in the end of all calls
            log.get().error("engine-failed", exc_info=error)
            self._seal_all("engine-failed")
            return
        self._pump.send(out)
        for slot in self._engine.alarms:
            self._fault(self._by_slot[slot], "guard")
        for key in self._engine.keys:
            call = self._by_slot[key.slot]
            record = Key(call.capture, int(now * 1000), key.event, key.source)
            key.event = 0
            if not self._keys.send(record):
                self._fault(call, "vault-full")
        if self._engine.heard:
            self._record(out, now)
        out.wipe()  # in passthrough it may hold telephone-events
        took = self._clock() - now
        self._ticks[0 if took <= 0.001 else 1 if took <= 0.0025 else 2 if took <= TICK else 3] += 1

    def _record(self, out: Rows, now: float) -> None:
        for row, slot, timestamp, codec in self._engine.heard:
            call = self._by_slot.get(slot)
            if call is not None:
                side = 1 if slot == call.trunk else 0  # what leaves by the trunk slot is what the agent said
                self._tap.add(call.number, side, codec, timestamp, now, out.slab[row, 12 : out.length[row]])
        self._tap.flush()

    # Messages

    def _messages(self) -> None:
        for message in self._process.supervisor.receive():
            if isinstance(message, m.Ping):
                self._process.supervisor.send(m.Pong(self.counters()))
            elif isinstance(message, m.Stop):
                self.stopping = True
        for message in self._tap.channel.receive():
            if isinstance(message, m.Hello):
                for call in self._calls.values():
                    if call.record:
                        self._tap.start(call.id, call.number, self._clock())
        for message in self._signalling.receive():
            if isinstance(message, m.OpenCall):
                self._open(message)
            elif isinstance(message, m.Hello):
                self._orphan()
            elif isinstance(message, m.UpdateCall | m.SetMode | m.CloseCall):
                known = self._calls.get(message.call)
                if known is None:
                    continue
                if isinstance(message, m.UpdateCall):
                    self._update(known, message)
                elif isinstance(message, m.SetMode):
                    self._set_mode(known, message)
                else:
                    self._close(known)

    def _open(self, message: m.OpenCall) -> None:
        now = self._clock()
        if len(self._free) < 2:
            self._signalling.send(m.OpenFailed(message.call, "full"))
            return
        slots = (self._free.pop(), self._free.pop())
        ports: list[int] = []
        for slot, leg in zip(slots, message.legs, strict=True):
            port = self._bind(slot, leg, now)
            if port is None:
                break
            ports.append(port)
        if len(ports) < 2:
            for slot, port in zip(slots, ports, strict=False):
                self._pump.close(slot)
                self._ports.give_back(port, now)
            self._free += slots
            log.get().warning("no-ports", call=message.call)
            self._signalling.send(m.OpenFailed(message.call, "no-ports"))
            return
        trunk = slots[0] if message.legs[0].side == "trunk" else slots[1]
        agent = slots[1] if trunk == slots[0] else slots[0]
        self._engine.open(trunk, agent, modes.parse(message.mode), lambda: secrets.randbits(32), message.record, now)
        self._numbers += 1
        call = Call(message.call, slots, (ports[0], ports[1]), trunk, message.record, self._numbers)
        self._calls[call.id] = call
        for slot in slots:
            self._by_slot[slot] = call
        if call.record:
            self._tap.start(call.id, call.number, now)
        self._signalling.send(m.Opened(call.id, call.ports))

    def _bind(self, slot: int, leg: m.LegSetup, now: float) -> int | None:
        if leg.port:
            self._ports.take_this(leg.port)
            rule = SourceRule(leg.peer_rule, leg.peer_network)
            return leg.port if self._pump.open(slot, leg.bind, leg.port, rule) else None
        for _ in range(len(self._ports) + 1):
            port = self._ports.take(now)
            if port is None:
                return None
            if self._pump.open(slot, leg.bind, port, SourceRule(leg.peer_rule, leg.peer_network)):
                return port
            self._ports.give_back(port, now)  # somebody else's; try again after the rest
        return None

    def _update(self, call: Call, message: m.UpdateCall) -> None:
        for slot, leg in zip(call.slots, message.legs, strict=True):
            self._pump.update(slot, (leg.host, leg.port) if leg.host else None, leg.control_port)
            self._engine.update(slot, leg.receive, leg.send, leg.ptime)

    def _set_mode(self, call: Call, message: m.SetMode) -> None:
        event = {"armed": "arm", "guarded": "guard", "sealed": "fault", "released": "release"}[message.mode]
        mode = self._engine.change_mode(call.trunk, event)
        call.capture = message.capture if mode == Mode.ARMED else 0
        self._signalling.send(m.ModeSet(call.id, modes.name(mode), message.capture))

    def _fault(self, call: Call, reason: str) -> None:
        mode = self._engine.change_mode(call.trunk, "fault")
        log.get().error("leg-fault", call=call.id, reason=reason, mode=modes.name(mode))
        self._signalling.send(m.ModeSet(call.id, modes.name(mode), call.capture, reason))
        call.capture = 0

    def _seal_all(self, reason: str) -> None:
        """After a bug: legs start cold, armed ones are sealed."""
        for call in self._calls.values():
            for slot in call.slots:
                self._engine.line.reset(slot)
                self._engine.ears.reset(slot)
            self._fault(call, reason)

    def _orphan(self) -> None:
        """Signalling was restarted: calls go on as they are, but nobody can finish a capture."""
        for call in self._calls.values():
            call.orphan = True
            self._engine.change_mode(call.trunk, "fault")

    def _close(self, call: Call) -> None:
        now = self._clock()
        del self._calls[call.id]
        for slot, port in zip(call.slots, call.ports, strict=True):
            del self._by_slot[slot]
            self._pump.close(slot)
            self._engine.close(slot)
            self._ports.give_back(port, now)
            self._free.append(slot)
        if call.record:
            self._tap.stop(call.number)

    def _check_idle(self, now: float) -> None:
        for call in list(self._calls.values()):
            quiet = now - max(self._engine.last_arrival[slot] for slot in call.slots)
            if call.orphan and quiet > 10:
                self._close(call)
            elif self._timeout and quiet > self._timeout and not call.orphan:
                self._signalling.send(m.CallIdle(call.id))

    def counters(self) -> dict[str, float]:
        """For the metrics page."""
        c = self._engine.counters
        return {
            "calls": len(self._calls),
            "packets": c.packets,
            "unknown_payload": c.unknown_payload,
            "malformed": c.malformed,
            "late": c.late,
            "lost": c.lost,
            "masked_ms": c.masked_samples / 8,
            "keys": c.keys,
            "guard_alarms": c.alarms,
            "overflow": c.overflow,
            "strangers": self._pump.strangers,
            "unsent": self._pump.unsent,
            "recording_dropped": self._tap.dropped,
            "ticks": float(self._ticks.sum()),
            "ticks_over_5ms": float(self._ticks[3]),
        }


def _share(ports: tuple[int, int], role: str, workers: int) -> tuple[int, int]:
    """The part of the port range that belongs to worker `media-N`."""
    index = int(role.rpartition("-")[2]) if "-" in role else 0
    each = (ports[1] - ports[0] + 1) // max(workers, 1) & ~1
    first = ports[0] + index * each
    return first, first + each - 1
