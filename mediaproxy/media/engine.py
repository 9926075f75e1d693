"""The media engine: rows in, rows out; no sockets and no clock of its own.

State is arrays over slots, one slot a leg. Agent rows pass as they are. Trunk rows go through the look-back line and
leave with a header of this box's own. Several packets of one stream in a tick are worked in rounds, since an update
by fancy index keeps only the last of several for one slot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711, keypad
from dsp.mask import MaskLine
from mediaproxy.ipc.key import EVENT as BY_EVENT
from mediaproxy.ipc.key import INBAND
from mediaproxy.media import modes
from mediaproxy.media.codec import AUDIO, EVENT, KINDS, NOISE, ROLE, SCALE, comfort_noise
from mediaproxy.media.ears import Ears
from mediaproxy.media.egress import DROP, Egress
from mediaproxy.media.events import PAUSE, Events, signed
from mediaproxy.media.modes import Mode
from mediaproxy.media.prompt import Prompts
from mediaproxy.media.reception import Reception
from mediaproxy.media.reports import Reports
from mediaproxy.media.rows import Rows
from mediaproxy.media.tally import Tally
from mediaproxy.media.wire import rtp, telephone_event

Index = NDArray[np.intp]

CONFIRMED_SECONDS: Final = 10.0
"""How long after a confirmed key a guarded leg substitutes: longer than a caller thinks between groups of digits."""
MUTE_SECONDS: Final = 10.0
"""How long a guarded leg is silent after an alarm of the guard: a card is keyed in less, mostly."""
_BURST: Final = 10
"""Packets of flat tone that one telephone-event packet may bring: a lost second is not made up for."""
_LEAD: Final = 4000
"""Samples by which flat tone for events may be ahead of time."""
_SEQUENCE_STEP: Final = 100
"""A larger jump in the sequence numbers is another stream, not loss."""

INDEX_TO_EVENT: Final = tuple(keypad.EVENTS.index(key) for key in keypad.KEYS)


@dataclass(slots=True)
class KeyFound:
    """A key of the caller's leg in `slot`: telephone-event code and where it was found."""

    slot: int
    event: int = field(repr=False)
    source: int = INBAND


class Engine:
    """Legs of up to `capacity` slots. Two slots make a call; the trunk one is masked towards the agent one.

    memory: where the numbers of egress live, see `Egress`.
    """

    def __init__(self, capacity: int, memory: memoryview | None = None) -> None:
        self.capacity = capacity
        self.line = MaskLine(capacity)
        self.ears = Ears(capacity, self.line.history)
        self.egress = Egress(capacity, memory)
        self.reception = Reception(capacity)
        self.tally = Tally(capacity)
        self.reports = Reports(capacity, self.egress, self.reception)
        self._events = Events(capacity)
        self.prompts = Prompts()
        self.keys: list[KeyFound] = []
        self.confirmed_seconds = CONFIRMED_SECONDS
        self.alarms: list[int] = []
        """Trunk slots behind which the guard heard a key this tick: armed ones are sealed, guarded ones silent."""
        self.out = Rows()
        self.heard: list[tuple[int, int, int, int, bool]] = []
        """Of recorded calls, each audio row that went out this tick: (row, slot it left by, timestamp, codec, whether
        it went in passthrough and may hold a key)."""
        self._tails: dict[int, tuple[int, float]] = {}
        """Of slots whose last press came as events: where its flat tone ends, and when the next of it is due."""
        self._lead = np.zeros(capacity)
        self._lead_at = np.zeros(capacity)
        """Samples of flat tone that have been sent ahead of time, and when that was."""
        self.overflow = 0
        """Ticks that made more rows than there is room for."""
        self._kind = np.full((capacity, 128), DROP, np.uint8)
        self._peer = np.full(capacity, -1, np.intp)
        self._trunk = np.zeros(capacity, np.bool_)
        self._recorded = np.zeros(capacity, np.bool_)
        self.mode = np.full(capacity, Mode.SEALED, np.int8)
        self._muted_until = np.zeros(capacity)
        self._hushed = np.zeros(capacity, np.bool_)
        """Trunk slots of which the agent hears nothing but flat tones: the caller may be reading digits aloud."""
        self._passes = np.full(capacity, -1, np.int64)
        """Keys that may still pass in passthrough before it ends; negative: any number."""
        self._passed = np.zeros(capacity, np.uint32)
        """Timestamp of the last press that passed."""
        self.latched: list[int] = []
        """Trunk slots whose passthrough has ended by their keys this tick."""
        self._confirmed_at = np.full(capacity, -np.inf)
        """When the last key of a leg was confirmed, by the decoder or an event."""
        self.last_arrival = np.zeros(capacity)
        self._sequence = np.zeros(capacity, np.uint16)
        """Of the last packet that was sent on."""
        self._mark = np.zeros(capacity, np.intp)
        self._codec = np.zeros(capacity, np.intp)
        self._ptime = np.full(capacity, 160, np.int64)

    # Calls

    def open(
        self,
        trunk: int,
        agent: int,
        mode: Mode,
        random: Callable[[], int],
        recorded: bool,
        now: float,
        ports: tuple[int, int] = (0, 0),
        again: bool = False,
        guard_keys: int = 0,
    ) -> None:
        """Tie two free slots into a call. random: gives 32 unguessable bits (RFC 3550 section 5.1); ports: local ones
        of trunk and agent; again: the call was there before this process, and goes on in its numbers."""
        for slot, peer, port in ((trunk, agent, ports[0]), (agent, trunk, ports[1])):
            self.line.reset(slot)
            self.ears.reset(slot)
            self._events.reset(slot)
            self.reception.reset(slot)
            self.tally.reset(slot)
            self.egress.open(slot, port, random, now, again)
            self.reports.open(slot, now)
            self._muted_until[slot] = self._lead[slot] = 0
            self._confirmed_at[slot] = -np.inf
            self._kind[slot] = DROP
            self._peer[slot] = peer
            self._recorded[slot] = recorded
            self.last_arrival[slot] = now
        self._trunk[trunk], self._trunk[agent] = True, False
        self._hushed[trunk] = False
        self.mode[trunk] = mode
        self._passes[trunk] = guard_keys or -1

    def update(self, slot: int, receive: dict[int, str], send: dict[str, int], ptime_ms: int) -> None:
        """Set which payload types may come in on `slot` and which go out by it; all others are dropped."""
        self._kind[slot] = DROP
        known = {pt: KINDS[encoding] for pt, encoding in receive.items() if encoding in KINDS and 0 <= pt < 128}
        for payload_type, kind in known.items():
            self._kind[slot, payload_type] = kind
        self.egress.update(slot, {KINDS[e]: pt for e, pt in send.items() if e in KINDS and 0 <= pt < 128})
        self._ptime[slot] = 8 * min(max(ptime_ms, 10), 60)
        self._codec[slot] = next((kind for kind in known.values() if ROLE[kind] == AUDIO), KINDS["PCMU/8000"])

    def change_mode(self, trunk: int, event: str) -> Mode:
        """Apply `event` of the mode table to a trunk slot; returns the mode it is in now."""
        before, now = Mode(int(self.mode[trunk])), modes.after(Mode(int(self.mode[trunk])), event)
        if before == Mode.PASSTHROUGH and now != before:
            self.line.distrust(trunk)  # its last 8 ms were not judged
        self.mode[trunk] = now
        if now != Mode.ARMED:
            self._hushed[trunk] = False
        return now

    def hush(self, trunk: int, on: bool) -> None:
        """Keep the caller's speech from the agent, or no longer: only ever while armed."""
        self._hushed[trunk] = on and self.mode[trunk] == Mode.ARMED

    def hear_out(self, now: float) -> None:
        """Finish what the decoder has been given; keys found are in `keys`."""
        for slot, index in self.ears.flush():
            self._key(slot, INDEX_TO_EVENT[index], INBAND, now)

    def start_cold(self, slot: int) -> None:
        """Forget the audio of `slot`: what comes next follows on nothing known."""
        self.line.reset(slot)
        self.ears.reset(slot)

    def goodbye(self, slot: int) -> Rows:
        """The rows that tell the peer of `slot` that its stream ends (RTCP BYE)."""
        self.out.count = 0
        self.reports.goodbye(slot, self.out)
        return self.out

    def close(self, slot: int) -> None:
        """Free a slot; its audio is wiped."""
        self.start_cold(slot)
        self._tails.pop(slot, None)
        self.prompts.stop(slot)
        self.egress.close(slot)
        self.reports.close(slot)
        self._peer[slot] = -1
        self._kind[slot] = DROP
        self.mode[slot] = Mode.SEALED

    def counts(self, slots: int | slice) -> dict[str, NDArray[np.int64]]:
        """What is counted of `slots` but for the sockets' part, by the names of `tally.NAMES`."""
        reception = self.reception
        return self.tally.of(slots) | {
            "packets": reception.packets[slots],
            "lost": reception.lost(slots),
            "reordered": reception.reordered[slots],
            "duplicates": reception.duplicates[slots],
        }

    # Packets

    def process(self, rows: Rows, now: float, wall: float = 0.0) -> Rows:
        """Work through one tick's datagrams; the rows returned are valid until the next call.

        Keys found are in `keys`, recorded rows in `heard`. `wall`: seconds since 1970, for sender reports.
        """
        out = self.out
        out.count = 0
        self.keys.clear()
        self.alarms.clear()
        self.latched.clear()
        self.heard.clear()
        for caller, index in self.ears.due(now):
            self._key(caller, INDEX_TO_EVENT[index], INBAND, now)
        for caller, (end, due) in list(self._tails.items()):
            if due <= now:
                self._tail(caller, end, due, now)
        n = rows.count
        if n:
            slot, control = rows.slot[:n], rows.control[:n]
            head = rtp.parse(rows.slab[:n], rows.length[:n])
            kind = self._kind[slot, head.payload_type]
            ours = (self._peer[slot] >= 0) & ~control
            use = head.ok & ours & (kind != DROP)
            if not use.all():
                np.add.at(self.tally.malformed, slot[ours & ~head.ok], 1)
                np.add.at(self.tally.unknown_payload, slot[ours & head.ok & ~use], 1)
                for row in np.flatnonzero(control & (self._peer[slot] >= 0)):
                    self._control(int(slot[row]), rows.slab[row, : rows.length[row]].tobytes(), now)
            for chosen in self._rounds(slot, np.flatnonzero(use)):
                self._round(rows, chosen, head, kind, now)
        for to in self.prompts.unspoken(now):
            spoken = self.prompts.alone(self.out, self.egress, to, int(self._ptime[to]), now)
            if spoken is not None and self._recorded[to]:
                self.heard.append((*spoken, False))
        self.reports.due(out, now, wall)
        if out.count == len(out.slot):
            self.overflow += 1
        return out

    def _rounds(self, slot: Index, chosen: Index) -> list[Index]:
        """Split rows `chosen` so that no round has two rows of one slot, in order of arrival."""
        if not chosen.size:
            return []
        rows, position = slot[chosen], np.arange(len(chosen))
        self._mark[rows] = position
        if (self._mark[rows] == position).all():
            return [chosen]
        order = np.argsort(rows, kind="stable")
        ranked = rows[order]
        first = np.r_[True, ranked[1:] != ranked[:-1]]
        turn = position - np.maximum.accumulate(np.where(first, position, 0))
        return [np.sort(chosen[order[turn == r]]) for r in range(int(turn.max()) + 1)]

    def _control(self, slot: int, data: bytes, now: float) -> None:
        """RTCP of the peer of `slot`: heard and answered here, never forwarded (it can carry anything)."""
        ended = self.reports.heard(slot, data, now)
        if ended is None:
            self.tally.malformed[slot] += 1
        elif self._trunk[slot] and self.reception.heard[slot] and int(self.reception.ssrc[slot]) in ended:
            self.reception.heard[slot] = False  # whoever comes next is another source

    def _round(self, rows: Rows, chosen: Index, head: rtp.Headers, kind: NDArray[np.uint8], now: float) -> None:
        """At most one row a slot: agent to trunk, and trunk to agent."""
        slots = rows.slot[chosen]
        self.last_arrival[slots] = now
        role = ROLE[kind[chosen]]
        trunk = self._trunk[slots]
        fresh = self._note(slots, role, head, chosen, now)
        self._relay(rows, chosen[~trunk], head, kind, now)
        for slot in slots[fresh & trunk]:
            self._another_source(int(slot))
        for row in chosen[trunk & (role == EVENT)]:
            self._event(rows, int(row), head, kind, now)
        noise = chosen[trunk & (role == NOISE)]
        if noise.size:
            self._noise(rows, noise, head, now)
        audio = chosen[trunk & (role == AUDIO)]
        sizes = head.end[audio] - head.start[audio]
        for size in np.unique(sizes):
            if size:
                self._audio(rows, audio[sizes == size], int(size), head, kind, now)

    def _note(
        self, slots: Index, role: NDArray[np.uint8], head: rtp.Headers, chosen: Index, now: float
    ) -> NDArray[np.bool_]:
        """Count packets of distinct `slots`; bool[n]: of a source not heard before. Events may have a source of their
        own beside the audio's: they are no change of it."""
        ssrc = head.ssrc[chosen]
        aside = (role == EVENT) & self.reception.heard[slots] & (ssrc != self.reception.ssrc[slots])
        if not aside.any():
            sequence, timestamp = head.sequence[chosen], head.timestamp[chosen]
            return self.reception.note(slots, ssrc, sequence, timestamp, role == AUDIO, now)
        self.reception.packets[slots[aside]] += 1
        fresh = np.zeros(len(slots), np.bool_)
        if not aside.all():
            fresh[~aside] = self._note(slots[~aside], role[~aside], head, chosen[~aside], now)
        return fresh

    def _relay(self, rows: Rows, chosen: Index, head: rtp.Headers, kind: NDArray[np.uint8], now: float) -> None:
        """Agent to trunk: the row as it came but for the payload type's number."""
        if not chosen.size:
            return
        to = self._peer[rows.slot[chosen]]
        payload_type = self.egress.payload_type(to, kind[chosen].astype(np.intp))
        good = payload_type != DROP
        chosen, to, payload_type = chosen[good], to[good], payload_type[good]
        at = self.out.claim(len(chosen))
        chosen, to = chosen[: at.stop - at.start], to[: at.stop - at.start]
        if not chosen.size:
            return
        length = rows.length[chosen]
        width = int(length.max())
        self.out.slab[at, :width] = rows.slab[chosen, :width]
        self.out.slab[at, 1] = payload_type[: len(chosen)] | head.marker[chosen].astype(np.uint8) << 7
        self.out.slot[at], self.out.length[at], self.out.control[at] = to, length, False
        self.egress.passed(to, head.ssrc[chosen], head.timestamp[chosen], length - rtp.HEADER, now)
        if self.prompts:
            audio = ROLE[kind[chosen]] == AUDIO
            spans = np.stack([head.start[chosen], head.end[chosen]], axis=1)
            self.prompts.ride(self.out.slab[at], to, np.where(audio, kind[chosen], DROP), spans, now)
        recorded = self._recorded[to]
        if recorded.any():
            for i in np.flatnonzero(recorded & (ROLE[kind[chosen]] == AUDIO)):
                stamp, codec = int(head.timestamp[chosen[i]]), int(kind[chosen[i]])
                self.heard.append((at.start + int(i), int(to[i]), stamp, codec, False))

    def _another_source(self, slot: int) -> None:
        """A packet of a source that has not been heard before: its clock is new, a running mask goes on."""
        self.line.cut(slot)
        self.egress.untie(int(self._peer[slot]))

    def _audio(
        self, rows: Rows, chosen: Index, size: int, head: rtp.Headers, kind: NDArray[np.uint8], now: float
    ) -> None:
        slots = rows.slot[chosen]
        to = self._peer[slots]
        codec = kind[chosen].astype(np.intp)
        octets = _payload(rows, chosen, head, size)
        timestamp = head.timestamp[chosen]
        mode = self.mode[slots]
        masking = mode != Mode.PASSTHROUGH
        forced = self._events.holds(slots, timestamp) & masking
        late = self.line.late(slots, timestamp)
        timely = np.flatnonzero(~late) if late.any() else slice(None)
        for slot in slots[timely] if self._tails else ():
            self._tails.pop(int(slot), None)
        self.egress.align(to[timely], timestamp[timely], now)
        clock = self.egress.clock(to, timestamp)
        substitute = (mode == Mode.ARMED) | (mode == Mode.GUARDED) & (
            self._confirmed_at[slots] + self.confirmed_seconds > now
        )
        hushed = self._hushed[slots]
        block = self.line.push(slots, octets, codec, timestamp, masking, forced, clock, substitute, hushed)
        sealed = mode == Mode.SEALED
        silent = sealed | (self._muted_until[slots] > now)
        alarmed = self.ears.alarms(slots, block, codec, silent | ~masking)
        for slot in slots[alarmed]:
            self._alarm(int(slot), now)
        silent |= alarmed
        if silent.any():
            block.octets[silent] = g711.SILENCE[codec[silent]][:, None]
        if self.prompts:
            self.prompts.overlay(slots, block.octets, codec, silent)
        self.tally.masked[slots] += np.where(silent, size, block.masked)
        self.tally.substituted[slots] += np.where(substitute & ~silent & ~block.late, size - block.masked, 0)
        self.tally.late[slots] += block.late
        self._codec[slots] = codec
        on = np.flatnonzero(~block.late)
        self._emit(slots[on], codec[on], block.octets[on], head, chosen[on])
        hot = block.hot & ~sealed & masking
        for slot, index in self.ears.listen(slots, hot, block, timestamp, now):
            self._key(slot, INDEX_TO_EVENT[index], INBAND, now)

    def _alarm(self, slot: int, now: float) -> None:
        """A key was heard behind the mask: an armed leg is sealed, a guarded one muted for a while."""
        self.tally.alarms[slot] += 1
        self.alarms.append(slot)
        self._muted_until[slot] = now + MUTE_SECONDS
        self.change_mode(slot, "fault")

    def _key(self, slot: int, event: int, source: int, now: float) -> None:
        """A key was confirmed: by the decoder or by a telephone-event. Who keys has heard enough of the prompt."""
        self.prompts.stop(slot)
        self.line.confirm(np.array([slot]))
        self._confirmed_at[slot] = now
        self.tally.keys[slot] += 1
        if self.mode[slot] == Mode.ARMED:
            self.keys.append(KeyFound(slot, event, source))

    def _emit(self, slots: Index, codec: Index, octets: NDArray[np.uint8], head: rtp.Headers, chosen: Index) -> None:
        """Send a row of audio for each of `slots` with this box's SSRC, numbers and clock."""
        to = self._peer[slots]
        self._advance(slots, to, head.sequence[chosen])
        timestamp = self.egress.clock(to, head.timestamp[chosen])
        self._write(to, codec, octets, timestamp, head.marker[chosen])

    def _advance(self, slots: Index, to: Index, sequence: NDArray[np.uint16]) -> None:
        """Number what is sent for distinct `slots` as it came: what was lost leaves its gap."""
        step = (sequence - self._sequence[slots]).view(np.int16).astype(np.int64)
        self._sequence[slots] = sequence
        self.egress.step(to, np.where((step > 0) & (step <= _SEQUENCE_STEP), step, 1))

    def _write(
        self,
        to: Index,
        codec: Index,
        octets: NDArray[np.uint8],
        timestamp: NDArray[np.uint32],
        marker: NDArray[np.bool_],
    ) -> None:
        at, good = self.egress.write(self.out, to, codec, octets, timestamp, marker, octets.shape[1])
        recorded = self._recorded[to[good]]
        if recorded.any():
            passed = self.mode[self._peer[to[good]]] == int(Mode.PASSTHROUGH)  # as it was when the row was made
            for i in np.flatnonzero(recorded):
                row = good[i]
                place = at.start + int(i), int(to[row]), int(timestamp[row]), int(codec[row])
                self.heard.append((*place, bool(passed[i])))

    def _noise(self, rows: Rows, chosen: Index, head: rtp.Headers, now: float) -> None:
        """Comfort noise: its level, and nothing else of it. What follows begins after a gap."""
        slots = rows.slot[chosen]
        to = self._peer[slots]
        late = self.line.late(slots, head.timestamp[chosen]) | (head.end[chosen] <= head.start[chosen])
        chosen, slots, to = chosen[~late], slots[~late], to[~late]
        if not chosen.size:
            return
        level = np.asarray(rows.slab[chosen, head.start[chosen]] & 127, np.uint8)
        silent = (self.mode[slots] == Mode.SEALED) | (self._muted_until[slots] > now)
        level[silent] = comfort_noise.QUIETEST
        self.egress.align(to, head.timestamp[chosen], now)
        self._advance(slots, to, head.sequence[chosen])
        kind = np.full(len(chosen), KINDS["CN/8000"], np.intp)
        timestamp = self.egress.clock(to, head.timestamp[chosen])
        self.egress.write(self.out, to, kind, level[:, None], timestamp, np.zeros(len(chosen), np.bool_), 0)

    # Telephone-events

    def _event(self, rows: Rows, row: int, head: rtp.Headers, kind: NDArray[np.uint8], now: float) -> None:
        """Consume a telephone-event: flat tone for the time not yet sent, the key to whoever captures."""
        slot = int(rows.slot[row])
        event = telephone_event.parse(rows.slab[row, head.start[row] : head.end[row]])
        if event is None:
            self.tally.malformed[slot] += 1
            return
        if self.mode[slot] == Mode.PASSTHROUGH and self._may_pass(slot, int(head.timestamp[row])):
            self._pass_event(rows, row, head, kind, now)
            return
        timestamp, scale = int(head.timestamp[row]), int(SCALE[kind[row]])
        here = timestamp if scale == 1 else self.egress.position(int(self._peer[slot]), now)
        press = self._events.take(slot, event, timestamp, bool(head.marker[row]), now, scale, here)
        if press is None:
            self.tally.late[slot] += 1
            return
        if press.restarted:
            self.line.cut(slot)
        if press.new and event.code < 16:
            self._key(slot, event.code, BY_EVENT, now)
        self._sequence[slot] = head.sequence[row]
        self._flat_until(slot, press.start, press.end, now)
        grid = -(-(press.end - press.start) // self.line.grid) * self.line.grid
        wait = int(self._ptime[slot]) / 8000 if event.end else PAUSE
        self._tails[slot] = press.start + grid, now + wait

    def _flat_until(self, slot: int, start: int, end: int, now: float) -> None:
        """Fill the caller's time up to `end` with whole packets of flat tone, from where egress stands."""
        cursor = self.line.cursor(slot)
        if cursor is None or signed(end - cursor) <= -8000 or signed(start - cursor) > 0:
            cursor = start
        slots = np.array([slot])
        to, codec, size, filled = self._peer[slots], self._codec[slots], int(self._ptime[slot]), 0
        for _ in range(_BURST):
            if signed(end - cursor) < size or not self._in_time(slot, size, now):
                break
            timestamp = np.array([cursor & 0xFFFFFFFF], np.uint32)
            self.egress.align(to, timestamp, now)
            clock = self.egress.clock(to, timestamp)
            flat = self.line.flat(int(codec[0]), int(clock[0]), size)[None, :]
            if self.mode[slot] == Mode.SEALED:
                flat = np.full_like(flat, g711.SILENCE[codec[0]])
            self.egress.step(to, 1)
            self._write(to, codec, flat, clock, np.zeros(1, np.bool_))
            self.tally.masked[slot] += size
            cursor += size
            filled += size
        self.line.interrupt(slot, cursor, filled)
        self.line.confirm(slots)

    def _in_time(self, slot: int, size: int, now: float) -> bool:
        """Whether as much more flat tone would not run ahead of time: an event may say it has lasted for hours."""
        elapsed = (now - self._lead_at[slot]) * 8000
        lead = max(float(self._lead[slot]) - elapsed, 0.0) + size
        self._lead_at[slot] = now
        self._lead[slot] = lead if lead <= _LEAD else lead - size
        return bool(lead <= _LEAD)

    def _tail(self, slot: int, end: int, due: float, now: float) -> None:
        """Go on with the flat tone of a press that came as events alone, in real time, up to a whole multiple of the
        grid: its length does not show. Where audio comes, the line does that."""
        cursor, size = self.line.cursor(slot), int(self._ptime[slot])
        while cursor is not None and due <= now and 0 < signed(end - cursor) < self.line.grid:
            self._flat_until(slot, cursor, cursor + size, now)
            cursor, due = cursor + size, due + size / 8000
        if cursor is None or not 0 < signed(end - cursor) < self.line.grid:
            self._tails.pop(slot, None)
        else:
            self._tails[slot] = end, due

    def _pass_event(self, rows: Rows, row: int, head: rtp.Headers, kind: NDArray[np.uint8], now: float) -> None:
        """Passthrough: the event as it came, in the numbers of this leg."""
        slots = rows.slot[row : row + 1]
        to = self._peer[slots]
        kinds = kind[row : row + 1].astype(np.intp)
        if self.egress.payload_type(to, kinds)[0] == DROP:
            self.tally.unknown_payload[slots] += 1
            return
        timestamp = head.timestamp[row : row + 1]
        if not self.egress.tied(int(to[0])):
            self.egress.align(to, timestamp, now)
        self._sequence[slots] = head.sequence[row]
        self.egress.step(to, 1)
        payload = rows.slab[row : row + 1, head.start[row] : head.end[row]]
        self.egress.write(self.out, to, kinds, payload, self.egress.clock(to, timestamp), head.marker[row : row + 1], 0)

    def _may_pass(self, slot: int, timestamp: int) -> bool:
        """Whether a key may pass in passthrough; with the first one too many passthrough is over."""
        if self._passes[slot] < 0 or timestamp == int(self._passed[slot]):
            return True
        self._passed[slot] = timestamp
        if self._passes[slot]:
            self._passes[slot] -= 1
            return True
        self._passes[slot] = -1
        self.change_mode(slot, "guard")
        self.latched.append(slot)
        return False


def _payload(rows: Rows, chosen: Index, head: rtp.Headers, size: int) -> NDArray[np.uint8]:
    """uint8[n, size]: the payloads of `chosen`, all of that size."""
    if int(head.start[chosen].max()) == rtp.HEADER:
        return np.asarray(rows.slab[chosen, rtp.HEADER : rtp.HEADER + size], np.uint8)
    return np.asarray(rows.slab[chosen[:, None], head.start[chosen][:, None] + np.arange(size)], np.uint8)
