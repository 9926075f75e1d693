"""One media worker: calls in slots, a tick every 5 ms, messages between ticks."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import resource
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from select import poll
from typing import Final

import msgspec
import numpy as np

from dsp import g711
from mediaproxy import log
from mediaproxy.config import Config, RouteConfig, port_range
from mediaproxy.ipc import messages as m
from mediaproxy.ipc import tap
from mediaproxy.ipc.key import Key, KeySender
from mediaproxy.ipc.process import Process
from mediaproxy.ipc.tap import Tap
from mediaproxy.media import doors, egress, modes, prompt, srtp, transcode
from mediaproxy.media.budget import Budget
from mediaproxy.media.doors import Doors
from mediaproxy.media.engine import Engine
from mediaproxy.media.load import BOUNDS, Load
from mediaproxy.media.modes import Mode
from mediaproxy.media.ports import PortPool
from mediaproxy.media.pump import Pump
from mediaproxy.media.rehearsal import rehearse
from mediaproxy.media.rows import Rows
from mediaproxy.media.source import SourceRule
from mediaproxy.media.srtp import Keyring
from mediaproxy.media.tally import NAMES
from mediaproxy.media.transcode import Coding, Transcoder

TICK: Final = 0.005
IDLE_CHECK: Final = 1.0
IDLE_WAIT: Final = 0.2
"""Seconds between two looks where there are no calls."""
ORPHAN_SECONDS: Final = 10.0
"""A call that no signalling knows ends when nothing has come for so long."""
STALL: Final = 0.2
"""After so long without a tick, what has piled up is thrown away: nobody wants to hear it now."""
_BEHIND: Final = 5
_BEHIND_AT_LEAST: Final = 60
"""So many packets a leg in one tick (the pump reads six at most), and so many in all: the worker lags behind all of its
calls by 100 ms."""
EMERGENCY_CALLS: Final = 8
"""Room beyond `max_calls` for calls of emergency routes."""


@dataclass(slots=True)
class Call:
    """slots and ports in the order of OpenCall; `trunk` is the slot of the caller's leg."""

    id: str
    slots: tuple[int, int]
    ports: tuple[int, int]
    trunk: int
    record: bool
    number: int
    began: float
    capture: int = 0
    unrecorded: bool = False
    """Its recording is silent now, both ways."""
    route: str = ""
    masked: int = 0
    """Samples of it that were masked until the last tick."""
    over: bool = False
    """Signalling has been told to end it."""
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
        capacity = 2 * (config.media.max_calls + EMERGENCY_CALLS)
        _raise_descriptors(2 * capacity)
        rehearse(config.peers)
        self._engine = Engine(capacity, _kept(process.memory.get("egress"), egress.octets(capacity)))
        self._keyring = Keyring(capacity, _kept(process.memory.get("srtp"), srtp.octets(capacity)))
        self._pump = Pump(capacity)
        kept = _kept(process.memory.get("doors"), doors.octets(capacity))
        self._doors = Doors(capacity, self._keyring, self._pump.reply, self._pump.move, kept)
        self._pump.judge = self._arrives
        self._transcoder = Transcoder(capacity)
        self._budget = Budget(capacity)
        first, last = _share(port_range(config.media), process.role, config.media.workers)
        self._ports = PortPool(first, last, config.media.port_rest_seconds)
        self._sides = {"trunk": config.trunk, "agent": config.agent}
        self._routes = {route.name: route for route in config.routes}
        self._prompts = prompt.load(config.prompts)
        self._timeout, self._longest = config.media.rtp_timeout_seconds, config.media.max_call_seconds
        self._free = list(range(capacity - 1, -1, -1))
        self._calls: dict[str, Call] = {}
        self._by_slot: dict[int, Call] = {}
        self._rejected = np.zeros(capacity, np.int64)
        """Packets of each leg that were no SRTP of its peer's."""
        self._numbers = 0
        self._next_idle_check = 0.0
        self.load = Load(TICK)
        self._last_tick = clock()
        self._closed = dict.fromkeys(NAMES, 0)
        """Counts of the legs that have ended."""
        self._counts = {"unsent": 0, "shed": 0, "stalls": 0, "keys_refused": 0}
        self._engine_faults = 0
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
            idle = not self._calls
            wait = max(0.0, deadline - self._clock())
            if poller.poll(IDLE_WAIT * 1000 if idle else 0):
                self._messages()
            elif not idle and wait:
                time.sleep(wait)
            now = self._clock()
            if idle:  # nothing was due, so nothing is late
                deadline = self._last_tick = now
                self.load.rest()
            if now < deadline:
                continue
            if self._calls:
                self._tick(now, now - deadline)
            deadline = deadline + TICK if now < deadline + TICK else now + TICK
            self._last_tick = now
            if now >= self._next_idle_check:
                self._next_idle_check = now + IDLE_CHECK
                self._check_idle(now)
                gc.collect(0)
        for call in list(self._calls.values()):
            self._close(call)

    def _tick(self, now: float, late: float) -> None:
        if now - self._last_tick > STALL:
            self._catch_up(now)
        rows = self._pump.drain()
        if rows.count >= max(_BEHIND_AT_LEAST, _BEHIND * len(self._by_slot)):
            self._catch_up(now)
            return
        self._doors.take(rows, now)
        self._doors.tick(now)
        self._keyring.open(rows)
        self._relearn()
        self._budget.admit(rows, now)
        self._transcoder.open(rows)
        out = self._work(rows, now)
        if out is None:
            return
        if self._engine.heard:
            self._record(out, now)
        self._send(out)
        out.wipe()  # in passthrough it may hold telephone-events
        self.load.tick(self._clock() - now, late)

    def _arrives(self, slot: int, source: tuple[str, int], datagram: bytes) -> bool | None:
        return self._doors.arrives(slot, source, datagram, self._clock())

    def _send(self, out: Rows) -> None:
        """The way out: coded, sealed, by the port it goes by."""
        self._transcoder.seal(out)
        self._keyring.seal(out)
        self._doors.mux(out)
        self._pump.send(out)

    def _relearn(self) -> None:
        """Whoever was learned as the source but cannot speak SRTP is not the peer: the next one is learned."""
        if not self._keyring.rejected.any():
            return
        for slot in np.flatnonzero(self._keyring.rejected):
            self._rejected[slot] += self._keyring.rejected[slot]
            if not self._keyring.good(int(slot)):
                self._pump.relearn(int(slot))
        self._keyring.rejected[:] = 0

    def _catch_up(self, now: float) -> None:
        """After a stall what has piled up is thrown away unread: to work through it would be the next stall. A key may
        have been in it, so what is being keyed must be keyed again."""
        self._counts["stalls"] += 1
        log.get().warning("stalled", seconds=round(now - self._last_tick, 3), count=self._pump.discard())
        for call in self._calls.values():
            if call.capture:
                self._signalling.send(m.Interrupted(call.id, call.capture, "stalled"))

    def _work(self, rows: Rows, now: float) -> Rows | None:
        try:
            out = self._engine.process(rows, now, time.time())
        except Exception as error:  # a bug must not end in unmasked audio or in the end of all calls
            log.get().error("engine-failed", exc_info=error)
            self._engine_faults += 1
            self._seal_all("engine-failed")
            return None
        self._send_keys(now)
        for slot in self._engine.alarms:
            self._fault(self._by_slot[slot], "guard")
        for slot in self._engine.latched:
            call = self._by_slot[slot]
            self._signalling.send(m.ModeSet(call.id, self._mode(call), 0, "keys"))
            self._note(call)
        return out

    def _send_keys(self, now: float) -> None:
        for key in self._engine.keys:
            call = self._by_slot[key.slot]
            record = Key(call.capture, int(now * 1000), key.event, key.source)
            key.event = 0
            if not self._keys.send(record):
                self._counts["keys_refused"] += 1
                self._fault(call, "vault-full")
        self._engine.keys.clear()

    def _record(self, out: Rows, now: float) -> None:
        masked = self._engine.tally.masked
        heard: list[Call] = []
        for row, slot, timestamp, codec, passed in self._engine.heard:
            call = self._by_slot.get(slot)
            if call is None:
                continue
            side, flags = 1, 0  # what leaves by the trunk slot is what the agent said
            if slot != call.trunk:
                heard.append(call)
                side, flags = 0, tap.MASKED if call.masked != int(masked[call.trunk]) else 0
            octets = out.slab[row, 12 : out.length[row]]
            if call.unrecorded or (passed and side == 0):  # in passthrough there may be keys in it
                octets = np.full_like(octets, g711.SILENCE[codec])
                flags |= tap.SILENT
            self._tap.add(call.number, side, codec, timestamp, now, octets, flags)
        self._tap.flush()
        for call in heard:
            call.masked = int(masked[call.trunk])

    # Messages

    def _messages(self) -> None:
        for message in self._process.supervisor.receive():
            if isinstance(message, m.Ping):
                self._process.supervisor.send(m.Pong(self.counters(), {"tick": self.ticks()}))
            elif isinstance(message, m.Stop):
                self.stopping = True
        for message in self._tap.channel.receive():
            if isinstance(message, m.Hello):
                self._tap.forget()
                for call in self._calls.values():
                    if call.record:
                        self._tap.start(call.id, call.number, self._clock(), call.route, self._mode(call))
        for message in self._signalling.receive():
            if isinstance(message, m.OpenCall):
                self._open(message)
            elif isinstance(message, m.Hello):
                self._orphan()
            elif isinstance(message, m.UpdateCall | m.SetMode | m.Cue | m.CloseCall):
                known = self._calls.get(message.call)
                if known is None:
                    continue
                if isinstance(message, m.UpdateCall):
                    self._update(known, message)
                elif isinstance(message, m.SetMode):
                    self._set_mode(known, message)
                elif isinstance(message, m.Cue):
                    self._cue(known, message)
                else:
                    self._close(known)

    def _open(self, message: m.OpenCall) -> None:
        known = self._calls.get(message.call)
        if known is not None:  # asked twice, by a signalling that has heard of two restarts at once
            self._signalling.send(m.Opened(known.id, known.ports, self._print(message)))
            return
        now = self._clock()
        refusal = self._no_room(message)
        if refusal:
            self._counts["shed"] += 1
            self._signalling.send(m.OpenFailed(message.call, refusal))
            return
        slots = (self._free.pop(), self._free.pop())
        ports: list[int] = []
        reason = "no-ports"
        try:
            for slot, leg in zip(slots, message.legs, strict=True):
                port = self._bind(slot, leg, now)
                if port is None:
                    break
                ports.append(port)
        except OSError as error:
            reason = "no-descriptors" if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS) else "no-address"
        if len(ports) < 2:
            for slot, port in zip(slots, ports, strict=False):
                self._doors.close(slot)
                self._pump.close(slot)
                self._ports.give_back(port, now)
            self._free += slots
            log.get().warning("not-opened", call=message.call, reason=reason)
            self._signalling.send(m.OpenFailed(message.call, reason))
            return
        trunk = slots[0] if message.legs[0].side == "trunk" else slots[1]
        agent = slots[1] if trunk == slots[0] else slots[0]
        by_slot = dict(zip(slots, ports, strict=True))
        self._engine.open(
            trunk, agent, modes.parse(message.mode), lambda: secrets.randbits(32), message.record, now,
            (by_slot[trunk], by_slot[agent]), again=bool(message.legs[0].port), guard_keys=message.guard_keys,
        )  # fmt: skip
        self._numbers += 1
        call = Call(message.call, slots, (ports[0], ports[1]), trunk, message.record, self._numbers, now)
        self._calls[call.id] = call
        for slot in slots:
            self._by_slot[slot] = call
        call.route = message.route
        if call.record:
            self._tap.start(call.id, call.number, now, call.route, self._mode(call))
        self._signalling.send(m.Opened(call.id, call.ports, self._print(message)))

    def _print(self, message: m.OpenCall) -> str:
        return self._doors.certificate.fingerprint if any(leg.ice[0] for leg in message.legs) else ""

    def _no_room(self, message: m.OpenCall) -> str:
        """Why a call cannot be taken; empty where it can. One that was here before a restart always can."""
        if len(self._free) < 2:
            return "full"
        if message.emergency or message.legs[0].port:
            return ""
        if len(self._free) < 2 * EMERGENCY_CALLS + 2:
            return "full"
        return "overload" if self.load.full else ""

    def _bind(self, slot: int, leg: m.LegSetup, now: float) -> int | None:
        """Open the sockets of a slot; its port, None where there is none. Raises OSError where none would do."""
        if leg.port:
            self._ports.take_this(leg.port)
        for _ in range(1 if leg.port else len(self._ports) + 1):
            port = leg.port or self._ports.take(now)
            if port is None:
                return None
            opened = False
            try:
                rule, side = SourceRule(leg.peer_rule, leg.peer_network), self._sides[leg.side]
                opened = self._pump.open(slot, leg.bind, port, rule, side.rtp_dscp, side.interface)
            finally:
                if not opened:  # somebody else's, or nothing can be opened: tried again after the rest
                    self._ports.give_back(port, now)
            if opened:
                if leg.ice[0]:
                    self._doors.open(slot, port, leg.ice, again=bool(leg.port))
                    self._pump.show(slot, True)
                return port
        return None

    def _update(self, call: Call, message: m.UpdateCall) -> None:
        first, second = message.legs
        for slot, port, leg, other in zip(call.slots, call.ports, (first, second), (second, first), strict=True):
            if leg.browser is not None:
                self._pump.show(slot, True)
                self._doors.update(slot, port, doors.Peer(*msgspec.structs.astuple(leg.browser)), self._clock())
            else:
                self._doors.close(slot)
                self._pump.show(slot, False)
                self._keyring.set(slot, port, leg.suite, leg.own_key, leg.peer_key)
                self._pump.update(slot, (leg.host, leg.port) if leg.host else None, leg.control_port)
            self._transcoder.set(slot, _coding(leg, other))
            if leg.coding is None:
                self._engine.update(slot, leg.receive, leg.send, leg.ptime)
            else:
                self._engine.update(slot, transcode.RECEIVE, transcode.SEND, leg.ptime)
            self._engine.prompts.ride_only(slot, bool(leg.suite) or leg.browser is not None)

    def _set_mode(self, call: Call, message: m.SetMode) -> None:
        self._engine.hear_out(self._clock())  # what was keyed until now belongs to the capture until now
        self._send_keys(self._clock())
        event = {"armed": "arm", "guarded": "guard", "sealed": "fault", "released": "release"}[message.mode]
        mode = self._engine.change_mode(call.trunk, event)
        call.capture = message.capture if mode == Mode.ARMED else 0
        route = self._routes.get(message.route)
        if route is not None and mode == Mode.ARMED:
            self._hush(call, route, True)
        elif mode != Mode.ARMED:
            call.unrecorded = False
        self._note(call)
        self._signalling.send(m.ModeSet(call.id, modes.name(mode), message.capture))

    def _cue(self, call: Call, message: m.Cue) -> None:
        """What the caller is to hear now, and whether the caller may be heard."""
        route = self._routes.get(message.route)
        if route is None:
            return
        self._hush(call, route, message.muted and message.capture == call.capture)
        self._engine.prompts.stop(call.trunk)
        audio = prompt.join(self._prompts.get(route.prompts, {}), message.play)
        if audio is not None:
            numbers = secrets.randbits(32), secrets.randbits(15), secrets.randbits(32)
            self._engine.prompts.play(call.trunk, audio, route.prompts_to_agent, numbers, self._clock())

    def _hush(self, call: Call, route: RouteConfig, muted: bool) -> None:
        self._engine.hush(call.trunk, muted and route.speech != "off")
        armed = self._engine.mode[call.trunk] == Mode.ARMED
        call.unrecorded = (muted and route.mute_recording) or (armed and route.pause_recording)

    def _mode(self, call: Call) -> str:
        return modes.name(int(self._engine.mode[call.trunk]))

    def _note(self, call: Call, alarm: str = "") -> None:
        """Tell the recorder the mode, and what is wrong if something is."""
        if call.record:
            self._tap.mode(call.number, self._clock(), self._mode(call), alarm)

    def _fault(self, call: Call, reason: str) -> None:
        mode = self._engine.change_mode(call.trunk, "fault")
        log.get().error("leg-fault", call=call.id, reason=reason, mode=modes.name(mode))
        self._signalling.send(m.ModeSet(call.id, modes.name(mode), call.capture, reason))
        self._note(call, reason)
        call.capture = 0

    def _seal_all(self, reason: str) -> None:
        """After a bug: legs start cold, armed ones are sealed."""
        for call in self._calls.values():
            for slot in call.slots:
                self._engine.start_cold(slot)
            self._fault(call, reason)

    def _orphan(self) -> None:
        """Signalling was restarted: calls go on as they are, but nobody can finish a capture."""
        for call in self._calls.values():
            call.orphan = True
            self._engine.change_mode(call.trunk, "fault")
            self._note(call, "signalling-restarted")

    def _close(self, call: Call) -> None:
        now = self._clock()
        del self._calls[call.id]
        for slot, port in zip(call.slots, call.ports, strict=True):
            self._send(self._engine.goodbye(slot))
            self._doors.close(slot)
            self._keyring.close(slot)
            self._transcoder.close(slot)
            self._count_closed(call, slot)
            del self._by_slot[slot]
            self._pump.close(slot)
            self._engine.close(slot)
            self._ports.give_back(port, now)
            self._free.append(slot)
        self._pump.wipe()  # the last tick's datagrams may hold what this call's caller keyed
        self._engine.out.wipe()
        if call.record:
            self._tap.stop(call.number)

    def _check_idle(self, now: float) -> None:
        self._tap.flush()
        for call in list(self._calls.values()):
            quiet = now - max(self._engine.last_arrival[slot] for slot in call.slots)
            too_old = 0 < self._longest < now - call.began
            if call.orphan and (quiet > ORPHAN_SECONDS or too_old):
                self._close(call)
            gone = any(self._doors.gone(slot, now) for slot in call.slots) or 0 < self._timeout < quiet
            if not call.orphan and not call.over and (too_old or gone):
                reason = "max-duration" if too_old else "rtp-timeout"
                call.over = self._signalling.send(m.CallOver(call.id, reason))

    def counters(self) -> dict[str, float]:
        """For the metrics page."""
        live = list(self._by_slot)
        counts = dict(self._closed)
        for slot in live:
            for name, value in self._leg(slot).items():
                counts[name] += value
        return {name: float(value) for name, value in counts.items()} | {
            "calls": len(self._calls),
            "load": round(self.load.share, 3),
            "overflow": self._engine.overflow,
            "unsent": float(self._counts["unsent"] + self._pump.unsent[live].sum()),
            "stale": self._pump.stale,
            "stalls": self._counts["stalls"],
            "shed": self._counts["shed"],
            "keys_refused": self._counts["keys_refused"],
            "engine_faults": self._engine_faults,
            "recording_dropped": self._tap.dropped,
        }

    def ticks(self) -> m.Timing:
        """How long ticks took."""
        return m.Timing(BOUNDS, tuple(self.load.buckets), self.load.seconds)

    def _leg(self, slot: int) -> dict[str, int]:
        """Everything that is counted of one leg."""
        counts = {name: int(value) for name, value in self._engine.counts(slot).items()}
        return counts | {
            "strangers": int(self._pump.strangers[slot]),
            "malformed": counts["malformed"] + int(self._transcoder.failed[slot]),
            "rejected": int(self._rejected[slot]),
            "refused": int(self._doors.refused[slot]),
            "kernel_drops": self._pump.kernel_drops(slot),
            "excess": int(self._budget.excess[slot]),
        }

    def _count_closed(self, call: Call, slot: int) -> None:
        """Tell what became of a leg, and keep its counts in the worker's."""
        counts = self._leg(slot)
        for name, value in counts.items():
            self._closed[name] += value
        self._counts["unsent"] += int(self._pump.unsent[slot])
        self._pump.forget_counts(slot)
        self._rejected[slot] = self._doors.refused[slot] = self._transcoder.failed[slot] = 0
        self._budget.reset(slot)
        log.get().info("leg", call=call.id, side="trunk" if slot == call.trunk else "agent", **counts)


def _raise_descriptors(wanted: int) -> None:
    """Allow this process the sockets that it may need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + 64
    if soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
        if allowed < needed:
            log.get().warning("not-enough-descriptors", setting="media.max_calls", count=allowed)


def _kept(fd: int | None, size: int) -> memoryview | None:
    """The memory of `size` octets behind a descriptor, as the process before this one left it."""
    if fd is None:
        return None
    if os.fstat(fd).st_size != size:
        os.ftruncate(fd, size)
    return memoryview(mmap.mmap(fd, size))


def _coding(leg: m.LegMedia, other: m.LegMedia) -> Coding | None:
    """How a leg is coded; None where it speaks G.711."""
    said = leg.coding
    if said is None:
        return None
    law = g711.PCMA if "PCMU/8000" not in other.send and "PCMA/8000" in other.send else g711.PCMU
    return Coding(said.encoding, said.audio, said.events, law, tuple(sorted(said.parameters.items())))


def _share(ports: tuple[int, int], role: str, workers: int) -> tuple[int, int]:
    """The part of the port range that belongs to worker `media-N`."""
    index = int(role.rpartition("-")[2]) if "-" in role else 0
    each = (ports[1] - ports[0] + 1) // max(workers, 1) & ~1
    first = ports[0] + index * each
    return first, first + each - 1
