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
from mediaproxy.ipc.key import EVENT, INBAND
from mediaproxy.media import modes
from mediaproxy.media.ears import Ears
from mediaproxy.media.modes import Mode
from mediaproxy.media.rows import Rows
from mediaproxy.media.wire import rtcp, rtp, telephone_event

DROP: Final = 255
KIND_EVENT: Final = 2
KINDS: Final = {"PCMU/8000": g711.PCMU, "PCMA/8000": g711.PCMA, "telephone-event/8000": KIND_EVENT}
"""What the engine understands: the codec numbers of `dsp.g711`, and telephone-events."""
RTCP_SECONDS: Final = 5.0
"""RFC 3550 section 6.2."""
CONFIRMED_SECONDS: Final = 10.0
"""How long after a confirmed key a guarded leg substitutes: longer than a caller thinks between groups of digits."""
MUTE_SECONDS: Final = 10.0
"""How long a guarded leg is silent after an alarm of the guard: a card is keyed in less, mostly."""
_EVENT_HANG: Final = 640
"""Audio stays masked for 80 ms after the last sign of a telephone-event: a gateway's tone may outlast it."""
_EVENT_OPEN: Final = 1600
"""An event without its end is taken to go on for 200 ms (RFC 4733 section 2.6.1 asks for updates every 50)."""
_LONGEST_EVENT: Final = 0xFFFF
"""A longer press comes in segments (RFC 4733 section 2.5.1.3)."""
_BURST: Final = 10
"""Packets of flat tone that one telephone-event packet may bring: a lost second is not made up for."""
_REORDERED: Final = 4000
"""A telephone-event up to 500 ms older than the last is a late packet of it; an older one means a new clock."""
_EVENT_PAUSE: Final = 0.1
"""Seconds without a packet of it after which a telephone-event is over: updates come every 50 ms at most."""
_SEGMENT: Final = 60000
"""An event that follows on one as long as this without a gap is the same press (RFC 4733 section 2.5.1.3)."""
_ASTRAY: Final = 4000
"""A timestamp 500 ms off the wall clock is no loss or silence but another clock."""
_SEQUENCE_STEP: Final = 100
"""A larger jump in the sequence numbers is another stream, not loss."""

INDEX_TO_EVENT: Final = tuple(keypad.EVENTS.index(key) for key in keypad.KEYS)


@dataclass(slots=True)
class KeyFound:
    """A key of the caller's leg in `slot`: telephone-event code and where it was found."""

    slot: int
    event: int = field(repr=False)
    source: int = INBAND


@dataclass(slots=True)
class Counters:
    """What the worker counts over all legs."""

    packets: int = 0
    unknown_payload: int = 0
    malformed: int = 0
    late: int = 0
    lost: int = 0
    masked_samples: int = 0
    keys: int = 0
    alarms: int = 0
    overflow: int = 0


class Engine:
    """Legs of up to `capacity` slots. Two slots make a call; the trunk one is masked towards the agent one."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.line = MaskLine(capacity)
        self.ears = Ears(capacity, self.line.history)
        self.counters = Counters()
        self.keys: list[KeyFound] = []
        self.confirmed_seconds = CONFIRMED_SECONDS
        self.alarms: list[int] = []
        """Trunk slots behind which the guard heard a key this tick: armed ones are sealed, guarded ones silent."""
        self.out = Rows()
        self.heard: list[tuple[int, int, int, int]] = []
        """Of recorded calls, each audio row that went out this tick: (row, slot it left by, timestamp, codec)."""
        self._kind = np.full((capacity, 128), DROP, np.uint8)
        self._pt_out = np.full((capacity, 3), DROP, np.uint8)
        self._peer = np.full(capacity, -1, np.intp)
        self._trunk = np.zeros(capacity, np.bool_)
        self._recorded = np.zeros(capacity, np.bool_)
        self.mode = np.full(capacity, Mode.SEALED, np.int8)
        self._muted_until = np.zeros(capacity)
        self._confirmed_at = np.full(capacity, -np.inf)
        """When the last key of a leg was confirmed, by the decoder or an event."""
        self.masked = np.zeros(capacity, np.int64)
        self.keyed = np.zeros(capacity, np.int64)
        self.last_arrival = np.zeros(capacity)
        self._in_ssrc = np.zeros(capacity, np.uint32)
        self._in_sequence = np.zeros(capacity, np.uint16)
        self._heard_any = np.zeros(capacity, np.bool_)
        """Whether a packet has come, so that `_in_ssrc` means something."""
        self._in_known = np.zeros(capacity, np.bool_)
        """Whether the source's clock and numbers are tied to those of egress."""
        self._out_ssrc = np.zeros(capacity, np.uint32)
        self._out_sequence = np.zeros(capacity, np.uint16)
        self._out_offset = np.zeros(capacity, np.uint32)
        self._out_end = np.zeros(capacity, np.uint32)
        self._out_at = np.zeros(capacity)
        self._sent = np.zeros((capacity, 2), np.int64)
        self._report_due = np.full(capacity, np.inf)
        self._codec = np.zeros(capacity, np.intp)
        self._ptime = np.full(capacity, 160, np.int64)
        self._event_hold = np.zeros(capacity, np.uint32)
        self._event_active = np.zeros(capacity, np.bool_)
        self._event_start = np.zeros(capacity, np.uint32)
        self._event_seen = np.zeros(capacity, np.bool_)
        self._event_duration = np.zeros(capacity, np.int64)
        self._event_arrival = np.full(capacity, -np.inf)

    # Calls

    def open(self, trunk: int, agent: int, mode: Mode, random: Callable[[], int], recorded: bool, now: float) -> None:
        """Tie two free slots into a call. random: gives 32 unguessable bits (RFC 3550 section 5.1)."""
        for slot, peer in ((trunk, agent), (agent, trunk)):
            self.line.reset(slot)
            self.ears.reset(slot)
            self._muted_until[slot] = 0
            self._confirmed_at[slot] = -np.inf
            self._kind[slot] = DROP
            self._pt_out[slot] = DROP
            self._peer[slot] = peer
            self._recorded[slot] = recorded
            self.last_arrival[slot] = now
            for state in (
                self._heard_any,
                self._in_known,
                self._event_active,
                self._event_seen,
                self._sent,
            ):
                state[slot] = 0
            self.masked[slot] = self.keyed[slot] = 0
            self._report_due[slot] = now + RTCP_SECONDS
        self._trunk[trunk], self._trunk[agent] = True, False
        self.mode[trunk] = mode
        self._out_at[agent] = now
        self._out_ssrc[agent] = random()
        self._out_sequence[agent] = random() & 0x7FFF
        self._out_end[agent] = random()

    def update(self, slot: int, receive: dict[int, str], send: dict[str, int], ptime_ms: int) -> None:
        """Set which payload types may come in on `slot` and which go out by it; all others are dropped."""
        self._kind[slot] = DROP
        for payload_type, encoding in receive.items():
            if encoding in KINDS and 0 <= payload_type < 128:
                self._kind[slot, payload_type] = KINDS[encoding]
        self._pt_out[slot] = DROP
        for encoding, payload_type in send.items():
            if encoding in KINDS and 0 <= payload_type < 128:
                self._pt_out[slot, KINDS[encoding]] = payload_type
        self._ptime[slot] = 8 * min(max(ptime_ms, 10), 60)
        first = next((KINDS[e] for e in receive.values() if KINDS.get(e, KIND_EVENT) != KIND_EVENT), g711.PCMU)
        self._codec[slot] = first

    def change_mode(self, trunk: int, event: str) -> Mode:
        """Apply `event` of the mode table to a trunk slot; returns the mode it is in now."""
        before, now = Mode(int(self.mode[trunk])), modes.after(Mode(int(self.mode[trunk])), event)
        if before == Mode.PASSTHROUGH and now != before:
            self.line.distrust(trunk)  # its last 8 ms were not judged
        self.mode[trunk] = now
        return now

    def close(self, slot: int) -> None:
        """Free a slot; its audio is wiped."""
        self.line.reset(slot)
        self.ears.reset(slot)
        self._peer[slot] = -1
        self._kind[slot] = DROP
        self.mode[slot] = Mode.SEALED
        self._report_due[slot] = np.inf

    # Packets

    def process(self, rows: Rows, now: float, wall: float = 0.0) -> Rows:
        """Work through one tick's datagrams; the rows returned are valid until the next call.

        Keys found are in `keys`, recorded rows in `heard`. `wall`: seconds since 1970, for sender reports.
        """
        out = self.out
        out.count = 0
        self.keys.clear()
        self.alarms.clear()
        self.heard.clear()
        n = rows.count
        if n:
            slot = rows.slot[:n]
            head = rtp.parse(rows.slab[:n], rows.length[:n])
            kind = self._kind[slot, head.payload_type]
            open_ = self._peer[slot] >= 0
            self.counters.packets += n
            self.counters.malformed += int((open_ & ~head.ok).sum())
            use = head.ok & open_ & (kind != DROP)
            self.counters.unknown_payload += int((head.ok & open_ & (kind == DROP)).sum())
            self.last_arrival[slot[use]] = now
            trunk = self._trunk[slot]
            self._relay(rows, np.flatnonzero(use & ~trunk), head, kind)
            masked = np.flatnonzero(use & trunk)
            for chosen in _rounds(slot, masked):
                self._round(rows, chosen, head, kind, now)
        self._reports(now, wall)
        if out.count == len(out.slot):
            self.counters.overflow += 1
        return out

    def _relay(self, rows: Rows, chosen: NDArray[np.intp], head: rtp.Headers, kind: NDArray[np.uint8]) -> None:
        """Agent to trunk: the row as it came but for the payload type's number."""
        if not chosen.size:
            return
        to = self._peer[rows.slot[chosen]]
        payload_type = self._pt_out[to, kind[chosen]]
        good = payload_type != DROP
        chosen, to, payload_type = chosen[good], to[good], payload_type[good]
        at = self.out.claim(len(chosen))
        chosen = chosen[: at.stop - at.start]
        if not chosen.size:
            return
        length = rows.length[chosen]
        width = int(length.max())
        self.out.slab[at, :width] = rows.slab[chosen, :width]
        self.out.slab[at, 1] = payload_type[: len(chosen)] | head.marker[chosen].astype(np.uint8) << 7
        self.out.slot[at], self.out.length[at], self.out.control[at] = to[: len(chosen)], length, False
        slots = self.out.slot[at]
        np.add.at(self._sent, slots, np.stack([np.ones_like(length), length - rtp.HEADER], axis=1))
        self._out_ssrc[slots] = head.ssrc[chosen]
        self._out_end[slots] = head.timestamp[chosen]
        for i in np.flatnonzero(self._recorded[slots] & (kind[chosen] != KIND_EVENT)):
            self.heard.append((at.start + int(i), int(slots[i]), int(head.timestamp[chosen[i]]), int(kind[chosen[i]])))

    def _round(
        self, rows: Rows, chosen: NDArray[np.intp], head: rtp.Headers, kind: NDArray[np.uint8], now: float
    ) -> None:
        """Trunk to agent: at most one row a slot."""
        slots = rows.slot[chosen]
        for slot in slots[~self._heard_any[slots] | (head.ssrc[chosen] != self._in_ssrc[slots])]:
            self.line.cut(int(slot))
            self._event_seen[slot] = self._event_active[slot] = False
            self._in_known[slot] = False
            self._heard_any[slot] = True
        self._in_ssrc[slots] = head.ssrc[chosen]
        events = kind[chosen] == KIND_EVENT
        for row in chosen[events]:
            self._event(rows, int(row), head, now)
        audio = chosen[~events]
        sizes = head.end[audio] - head.start[audio]
        for size in np.unique(sizes):
            if size:
                self._audio(rows, audio[sizes == size], int(size), head, kind, now)

    def _audio(
        self,
        rows: Rows,
        chosen: NDArray[np.intp],
        size: int,
        head: rtp.Headers,
        kind: NDArray[np.uint8],
        now: float,
    ) -> None:
        slots = rows.slot[chosen]
        codec = kind[chosen].astype(np.intp)
        octets = rows.slab[chosen[:, None], head.start[chosen][:, None] + np.arange(size)]
        timestamp = head.timestamp[chosen]
        mode = self.mode[slots]
        hold = (self._event_hold[slots] - timestamp).view(np.int32)
        self._event_active[slots] &= (hold > 0) & (hold <= _LONGEST_EVENT + _EVENT_OPEN)
        forced = self._event_active[slots] & (mode != Mode.PASSTHROUGH)
        timely = np.flatnonzero(~self.line.late(slots, timestamp))
        self._align(slots[timely], timestamp[timely], now)
        clock = timestamp + self._out_offset[self._peer[slots]]
        substitute = (mode == Mode.ARMED) | (mode == Mode.GUARDED) & (
            self._confirmed_at[slots] + self.confirmed_seconds > now
        )
        block = self.line.push(slots, octets, codec, timestamp, mode != Mode.PASSTHROUGH, forced, clock, substitute)
        sealed = mode == Mode.SEALED
        silent = sealed | (self._muted_until[slots] > now)
        alarmed = self.ears.alarms(slots, block, codec, silent | (mode == Mode.PASSTHROUGH))
        for slot in slots[alarmed]:
            self._alarm(int(slot), now)
        silent |= alarmed
        block.octets[silent] = g711.SILENCE[codec[silent]][:, None]
        self.masked[slots] += np.where(silent, size, block.masked)
        self.counters.masked_samples += int(block.masked.sum())
        self.counters.late += int(block.late.sum())
        self._codec[slots] = codec
        on = np.flatnonzero(~block.late)
        self._emit(slots[on], codec[on], block.octets[on], head, chosen[on])
        hot = block.hot & ~sealed & (mode != Mode.PASSTHROUGH)
        for slot, index in self.ears.keys(slots, hot, block, timestamp):
            self._key(slot, INDEX_TO_EVENT[index], INBAND, now)

    def _alarm(self, slot: int, now: float) -> None:
        """A key was heard behind the mask: an armed leg is sealed, a guarded one muted for a while."""
        self.counters.alarms += 1
        self.alarms.append(slot)
        self._muted_until[slot] = now + MUTE_SECONDS
        self.change_mode(slot, "fault")

    def _key(self, slot: int, event: int, source: int, now: float) -> None:
        """A key was confirmed: by the decoder or by a telephone-event."""
        self.line.confirm(np.array([slot]))
        self._confirmed_at[slot] = now
        self.keyed[slot] += 1
        self.counters.keys += 1
        if self.mode[slot] == Mode.ARMED:
            self.keys.append(KeyFound(slot, event, source))

    def _emit(
        self,
        slots: NDArray[np.intp],
        codec: NDArray[np.intp],
        octets: NDArray[np.uint8],
        head: rtp.Headers,
        chosen: NDArray[np.intp],
    ) -> None:
        """Send a row for each of `slots` with this box's SSRC, numbers and clock."""
        to = self._peer[slots]
        step = (head.sequence[chosen] - self._in_sequence[slots]).view(np.int16).astype(np.int64)
        step = np.where((step > 0) & (step <= _SEQUENCE_STEP), step, 1)
        self.counters.lost += int((step - 1).sum())
        self._in_sequence[slots] = head.sequence[chosen]
        timestamp = head.timestamp[chosen] + self._out_offset[to]
        self._out_sequence[to] += step.astype(np.uint16)
        self._write(to, codec, octets, timestamp, head.marker[chosen])

    def _align(self, slots: NDArray[np.intp], timestamp: NDArray[np.uint32], now: float) -> None:
        """Tie the sources' clocks to those of egress: anew where a source is new, or its clock runs back or away.

        Egress follows the wall clock, not a sender's numbers: some give every key timestamps of its own.
        """
        to = self._peer[slots]
        elapsed = np.maximum(now - self._out_at[to], 0.0)
        expected = self._out_end[to] + np.round(elapsed * 1000).astype(np.uint32) * np.uint32(8)
        ahead = (timestamp + self._out_offset[to] - expected).view(np.int32)
        behind = (timestamp + self._out_offset[to] - self._out_end[to]).view(np.int32) < 0
        anew = ~self._in_known[slots] | behind | (np.abs(ahead) > _ASTRAY)
        self._out_offset[to[anew]] = expected[anew] - timestamp[anew]
        self._out_at[to] = now
        self._in_known[slots] = True

    def _write(
        self,
        to: NDArray[np.intp],
        codec: NDArray[np.intp],
        octets: NDArray[np.uint8],
        timestamp: NDArray[np.uint32],
        marker: NDArray[np.bool_],
    ) -> None:
        size = octets.shape[1]
        self._out_end[to] = timestamp + np.uint32(size)
        payload_type = self._pt_out[to, codec]
        good = np.flatnonzero(payload_type != DROP)
        at = self.out.claim(len(good))
        good = good[: at.stop - at.start]
        if not good.size:
            return
        to, octets = to[good], octets[good]
        first = np.asarray(payload_type[good] | marker[good].astype(np.uint8) << 7, np.uint8)
        rtp.write(self.out.slab[at], first, self._out_sequence[to], timestamp[good], self._out_ssrc[to])
        self.out.slab[at, rtp.HEADER : rtp.HEADER + size] = octets
        self.out.slot[at], self.out.length[at], self.out.control[at] = to, rtp.HEADER + size, False
        self._sent[to] += (1, size)
        for i in np.flatnonzero(self._recorded[to]):
            self.heard.append((at.start + int(i), int(to[i]), int(timestamp[good[i]]), int(codec[good[i]])))

    # Telephone-events

    def _event(self, rows: Rows, row: int, head: rtp.Headers, now: float) -> None:
        """Consume a telephone-event: flat tone for the time not yet sent, the key to whoever captures."""
        slot = int(rows.slot[row])
        event = telephone_event.parse(rows.slab[row, head.start[row] : head.end[row]])
        if event is None:
            self.counters.malformed += 1
            return
        if self.mode[slot] == Mode.PASSTHROUGH:
            self._pass_event(rows, row, head, now)
            return
        start = int(head.timestamp[row])
        age = _signed(start - int(self._event_start[slot]))
        # A marker after a pause begins a press, even with numbers used before: some senders replay a capture.
        restarted = bool(head.marker[row]) and now - self._event_arrival[slot] > _EVENT_PAUSE
        self._event_arrival[slot] = now
        if restarted:
            self.line.cut(slot)
        if self._event_seen[slot] and -_REORDERED < age < 0 and not restarted:
            self.counters.late += 1
            return
        segment = age == self._event_duration[slot] and age >= _SEGMENT
        new = not self._event_seen[slot] or age != 0 or restarted
        self._event_duration[slot] = event.duration
        if new and segment:
            self._event_start[slot] = start
        elif new:
            self._event_seen[slot] = True
            self._event_start[slot] = start
            if event.code < 16:
                self._key(slot, event.code, EVENT, now)
        end = start + event.duration
        hold = end + (_EVENT_HANG if event.end else _EVENT_OPEN)
        if new or not self._event_active[slot] or _signed(hold - int(self._event_hold[slot])) > 0:
            self._event_hold[slot] = hold & 0xFFFFFFFF
        self._event_active[slot] = True
        self._in_sequence[slot] = head.sequence[row]
        self._flat_until(slot, start, end, now)

    def _flat_until(self, slot: int, start: int, end: int, now: float) -> None:
        """Fill the caller's time up to `end` with whole packets of flat tone, from where egress stands."""
        cursor = self.line.cursor(slot)
        if cursor is None or _signed(end - cursor) <= -8000 or _signed(start - cursor) > 0:
            cursor = start
        slots = np.array([slot])
        to, codec, size, filled = self._peer[slots], self._codec[slots], int(self._ptime[slot]), 0
        for _ in range(_BURST):
            if _signed(end - cursor) < size:
                break
            timestamp = np.array([cursor & 0xFFFFFFFF], np.uint32)
            self._align(slots, timestamp, now)
            flat = self.line.flat(int(codec[0]), int((timestamp + self._out_offset[to])[0]), size)[None, :]
            if self.mode[slot] == Mode.SEALED:
                flat = np.full_like(flat, g711.SILENCE[codec[0]])
            self._out_sequence[to] += np.uint16(1)
            self._write(to, codec, flat, timestamp + self._out_offset[to], np.zeros(1, np.bool_))
            self.masked[slot] += size
            cursor += size
            filled += size
        self.line.interrupt(slot, cursor, filled)
        self.line.confirm(slots)

    def _pass_event(self, rows: Rows, row: int, head: rtp.Headers, now: float) -> None:
        """Passthrough: the event as it came, in the numbers of this leg."""
        slots = rows.slot[row : row + 1]
        to = self._peer[slots]
        payload_type = int(self._pt_out[to[0], KIND_EVENT])
        if payload_type == DROP:
            self.counters.unknown_payload += 1
            return
        if not self._in_known[slots[0]]:
            self._align(slots, head.timestamp[row : row + 1], now)
        self._in_sequence[slots] = head.sequence[row]
        self._out_sequence[to] += np.uint16(1)
        at = self.out.claim(1)
        if at.start == at.stop:
            return
        size = int(head.end[row] - head.start[row])
        first = np.array([payload_type | int(head.marker[row]) << 7], np.uint8)
        timestamp = head.timestamp[row : row + 1] + self._out_offset[to]
        rtp.write(self.out.slab[at], first, self._out_sequence[to], timestamp, self._out_ssrc[to])
        self.out.slab[at.start, rtp.HEADER : rtp.HEADER + size] = rows.slab[row, head.start[row] : head.end[row]]
        self.out.slot[at], self.out.length[at], self.out.control[at] = to, rtp.HEADER + size, False

    # Timed egress

    def _reports(self, now: float, wall: float) -> None:
        """Sender reports that are due."""
        for slot in np.flatnonzero(self._report_due <= now):
            self._report_due[slot] = now + RTCP_SECONDS
            packets, octets = self._sent[slot]
            if packets:
                report = rtcp.sender_report(
                    int(self._out_ssrc[slot]), "flattone", wall, int(self._out_end[slot]), int(packets), int(octets)
                )
                self.out.put(int(slot), report, control=True)


def _signed(difference: int) -> int:
    """A difference of two 32-bit timestamps, as the nearer of the two ways round."""
    return (difference + 0x80000000 & 0xFFFFFFFF) - 0x80000000


def _rounds(slot: NDArray[np.intp], chosen: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Split rows `chosen` so that no round has two rows of one slot, in order of arrival."""
    if not chosen.size:
        return []
    order = np.argsort(slot[chosen], kind="stable")
    ranked = slot[chosen][order]
    first = np.r_[True, ranked[1:] != ranked[:-1]]
    position = np.arange(len(ranked))
    turn = position - np.maximum.accumulate(np.where(first, position, 0))
    return [np.sort(chosen[order[turn == r]]) for r in range(int(turn.max()) + 1)]
