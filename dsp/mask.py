"""The look-back line: 8 ms of delay, placed by RTP timestamp, in which a key is found before its first sample leaves.

An outgoing block carries the last 8 ms of the block before and all but the last 8 ms of this one, so no packet waits
and every sample is judged with at least 8 ms of what follows it. What passes is the octets as they came; what is
masked is a flat tone over whole blocks, the same whatever was keyed; where the caller may be talking over keys, the
keypad's band is rebuilt as well (`dsp.substitution`). After any gap neither the unknown before it nor the first 8 ms
after it are forwarded, and a running mask goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711, kernel
from dsp.gate import Gate
from dsp.substitution import FADE, HISTORY, HOP, LONGEST, Substitution

Octets = NDArray[np.uint8]
Samples = NDArray[np.float32]
Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]
Index = NDArray[np.intp]

DELAY_MS: Final = 8
"""The look-back, fixed for the life of a leg in every mode."""
FLAT_HZ: Final = 540.0
"""Outside call progress (350-480, 620), fax (1100, 2100) and in-band signalling bands; 540 / 8000 = 27 / 400."""
FLAT_DBM0: Final = -18.0
"""Loud enough to be heard as "the caller is keying", quieter than speech (ITU-T P.56 active level about -20 dBm0)."""
GRID_MS: Final = 240
"""The flat tone of a confirmed key lasts a multiple of this from its onset, so that its length does not tell the key's:
longer than a press and the mask's own tail; a multiple of every usual packet (10, 20, 30, 40, 60 ms)."""
_HANG_MS: Final = (5, 2.5)
"""How long a mask outlives the last window that asked for it: so much, and so much more for each yes of that block.
One stray yes in speech is soon over; a tone that a codec or noise interrupts is held together (measured)."""
_HEAT_MS: Final = 80
"""How long after the last yes the decoder keeps listening: longer than the pause that ends a key."""
_STRONG: Final = 4
"""Yeses without a pause of HEAT before the decoder listens: one stray yes in speech is not worth its time, and a key of
40 ms fills half a packet of any size at least, which is five."""
_HISTORY_MS: Final = 40
"""A packet and the decoder's frames before it: when it begins to listen it hears the packet before as well."""
_GAP_HANG_MS: Final = 20
"""How long a mask that a gap interrupted goes on after it."""
_RESYNC: Final = 4000
"""Samples a timestamp may run backwards (500 ms) before it means a new clock rather than a late packet."""
_NEVER: Final = -(1 << 40)


@dataclass(frozen=True, slots=True)
class Block:
    """What one block of n streams became. All rows of a block have the same length.

    octets: uint8[n, length] to send (undefined where late).
    late: bool[n], older than what has left: send nothing.
    masked: int[n], samples replaced by the flat tone or by silence.
    hot: bool[n], a key may be in or near this block: let the decoder look at `audio`.
    line: uint8[n, history + length], what came in, with the history before it; codec: int[n], its codec.
    known: int[n], samples before this block without a gap.
    """

    octets: Octets
    late: Flags
    masked: Counts
    hot: Flags
    line: Octets
    codec: Index
    known: Counts

    def audio(self, rows: Index) -> Samples:
        """float32[rows, history + length]: `line` linear, zero where unknown. Few rows are ever asked for."""
        return _linear(self.line[rows], self.codec[rows], self.known[rows], self.octets.shape[1])


def _flat_table(rate: int) -> Octets:
    period = rate // 20  # 540 Hz and all multiples of 20 Hz fit whole
    tone = g711.amplitude(FLAT_DBM0) * np.sin(2 * np.pi * FLAT_HZ / rate * np.arange(period))
    return np.stack([g711.encode(tone.astype(np.float32), codec) for codec in (g711.PCMU, g711.PCMA)])


def _linear(line: Octets, codec: Index, known: Counts, length: int) -> Samples:
    """float32 of uint8[n, before + length], zero what is more than `known` int[n] before the block."""
    audio = np.empty(line.shape, np.float32)
    g711.linear(line, codec, audio)
    before = line.shape[1] - length
    for row in np.flatnonzero(known < before):
        audio[row, : before - known[row]] = 0
    return audio


class MaskLine:
    """Look-back lines of `capacity` streams, one slot each; a block serves any set of distinct slots."""

    def __init__(self, capacity: int, rate: int = 8000, seed: int | None = None) -> None:
        ms = rate // 1000
        self.gate = Gate(rate)
        self.rate = rate
        self.delay = DELAY_MS * ms
        self.history = max(self.gate.history, _HISTORY_MS * ms)
        self._skip = self.history - self.gate.history
        """Of the history, what only the decoder needs."""
        self.grid, self._heat_span, self._gap_hang = GRID_MS * ms, _HEAT_MS * ms, _GAP_HANG_MS * ms
        self._hang, self._hang_more = (int(part * ms) for part in _HANG_MS)
        self._flat = _flat_table(rate)
        self._line = np.zeros((capacity, self.history), np.uint8)
        """The last octets that came in; of these the last `delay` have not left."""
        self._codec = np.zeros(capacity, np.intp)
        self._until = np.full(capacity, _NEVER, np.int64)
        """Up to where a mask has been asked for, in samples from the start of the next block."""
        self._run = np.zeros(capacity, np.int64)
        """Samples of flat tone without a break up to the end of the last block."""
        self._confirmed = np.zeros(capacity, np.bool_)
        """Whether that flat tone stands for a key, and so keeps to the grid."""
        self._substitution = Substitution(capacity, seed)
        self._substituting = np.zeros(capacity, np.bool_)
        self._warm = np.zeros(capacity, np.bool_)
        """Whether the rebuilder has heard what came before the next block."""
        self._unknown = np.zeros(capacity, np.int64)
        """Samples still to go out that lie before or just after a gap."""
        self._heat = np.zeros(capacity, np.int64)
        self._seen = np.zeros(capacity, np.int64)
        """Yeses since the last pause of HEAT."""
        self._known = np.zeros(capacity, np.int64)
        self._expected = np.zeros(capacity, np.uint32)
        self._joined = np.zeros(capacity, np.bool_)
        """Whether the next block may follow on the last one at all."""
        self._started = np.zeros(capacity, np.bool_)

    def reset(self, slot: int) -> None:
        """Forget the stream in `slot`: audio wiped, the next block starts cold."""
        for state in (self._line, self._run, self._unknown, self._heat, self._seen, self._known):
            state[slot] = 0
        self._expected[slot] = 0
        self._until[slot] = _NEVER
        for flags in (self._substituting, self._warm, self._confirmed, self._joined, self._started):
            flags[slot] = False

    def cut(self, slot: int) -> None:
        """Say that another source speaks from now on: its clock is new, a running mask goes on."""
        self._joined[slot] = self._started[slot] = False

    def distrust(self, slot: int) -> None:
        """Say that what was last pushed was not judged: the next block follows on nothing known."""
        self._joined[slot] = False

    def cursor(self, slot: int) -> int | None:
        """The timestamp up to which `slot` has been filled, None before its first block."""
        return int(self._expected[slot]) if self._started[slot] else None

    def confirm(self, slots: Index) -> None:
        """Say that the flat tone that runs in `slots` stands for a key: its end keeps to the grid."""
        self._confirmed[slots] = self._run[slots] > 0

    def interrupt(self, slot: int, timestamp: int, flat: int) -> None:
        """Say that the time up to `timestamp` has been filled with `flat` samples of flat tone (a telephone-event)."""
        self._expected[slot] = timestamp & 0xFFFFFFFF
        self._joined[slot] = False
        self._started[slot] = True
        self._run[slot] += max(flat, 1)
        self._until[slot] = self._gap_hang

    def flat(self, codec: int, timestamp: int, length: int) -> Octets:
        """Return uint8[length] of flat tone for the time from `timestamp`."""
        place = (timestamp + np.arange(length)) % self._flat.shape[1]
        return np.asarray(self._flat[codec][place], np.uint8)

    def late(self, slots: Index, timestamp: NDArray[np.uint32]) -> Flags:
        """bool[n]: whether a block at `timestamp` would come too late to be sent."""
        delta = (timestamp - self._expected[slots]).view(np.int32)
        return self._started[slots] & (delta < 0) & (delta > -_RESYNC)

    def push(
        self,
        slots: Index,
        octets: Octets,
        codec: Index,
        timestamp: NDArray[np.uint32],
        gated: Flags,
        forced: Flags,
        clock: NDArray[np.uint32] | None = None,
        substitute: Flags | None = None,
        silence: Flags | None = None,
    ) -> Block:
        """Pass a block of any length through the lines of `slots` (distinct).

        octets: uint8[n, length] as received; codec: int[n]; timestamp: uint32[n], RTP timestamp of the first sample.
        gated: bool[n], whether the gate may mask; forced: bool[n], mask all of what leaves now.
        clock: uint32[n], where the block stands on the clock it leaves by, which sets the phase of the flat tone: a
        sender whose timestamps depend on the key must not set it. Default: `timestamp`.
        substitute: bool[n], whether the keypad's band may not leave as it came. Default: nowhere.
        silence: bool[n], whether nothing but flat tone may leave. Default: nowhere.
        """
        late = self._place(slots, timestamp, octets.shape[1])
        ok = ~late
        known = self._known[slots]
        line = self._shift(slots, octets, codec, ok)
        audio = _linear(line[:, self._skip :], codec, known, octets.shape[1])
        flat, hot = self._judge(slots, audio, gated, forced, octets.shape[1], ok)
        out = line[:, self.history - self.delay : -self.delay].copy()
        if substitute is not None:
            flat |= self._substitute(slots, line, audio, known, out, codec, substitute, ok, flat)
        if silence is not None and silence.any():
            out[silence] = g711.SILENCE[codec[silence]][:, None]
        masked = self._paint(slots, out, codec, timestamp if clock is None else clock, flat, ok)
        keep = slots[ok]
        self._known[keep] = np.minimum(self._known[keep] + octets.shape[1], 1 << 30)
        return Block(out, late, masked, hot, line, codec, known)

    def _shift(self, slots: Index, octets: Octets, codec: Index, ok: Flags) -> Octets:
        """uint8[n, history + length]: what came before the block and the block, kept as the next one's history."""
        if kernel.COMPILED:
            return kernel.shift(slots, ok, octets, codec, g711.TRANSCODE, self._line, self._codec)
        line = np.empty((len(slots), self.history + octets.shape[1]), np.uint8)
        line[:, : self.history] = self._line[slots]
        line[:, self.history :] = octets
        other = np.flatnonzero(self._codec[slots] != codec)
        if other.size:
            line[other, : self.history] = g711.TRANSCODE[1 - codec[other, None], line[other, : self.history]]
        keep, on = slots[ok], np.flatnonzero(ok)
        self._line[keep] = line[on, octets.shape[1] :]
        self._codec[keep] = codec[on]
        return line

    def _place(self, slots: Index, timestamp: NDArray[np.uint32], length: int) -> Flags:
        """Compare with the expected time: bool[n], late. Those that follow on a gap start anew."""
        if kernel.COMPILED:
            late, gap = kernel.place(slots, timestamp, length, _RESYNC, self._expected, self._joined, self._started)
            if gap.any():
                self._enter_gap(slots[gap])
            return late
        late = self.late(slots, timestamp)
        gap = ~late & ((timestamp != self._expected[slots]) | ~self._joined[slots])
        if gap.any():
            self._enter_gap(slots[gap])
        on = slots[~late]
        self._expected[on] = timestamp[~late] + np.uint32(length)
        self._joined[on] = True
        self._started[on] = True
        return late

    def _enter_gap(self, slots: Index) -> None:
        running = (self._run[slots] > 0) | (self._until[slots] > -self.delay)
        self._known[slots] = 0
        self._until[slots] = np.where(running, self._gap_hang, _NEVER)
        self._unknown[slots] = 2 * self.delay
        self._heat[slots] = np.where(running, self._heat_span, 0)

    def _judge(
        self, slots: Index, audio: Samples, gated: Flags, forced: Flags, length: int, ok: Flags
    ) -> tuple[Flags, Flags]:
        """bool[n]: whether what leaves now, the block less the look-back and what the line held, is flat tone; bool[n]:
        whether it is hot.

        The windows that end in this block all touch what leaves now, and what has left before was judged before.
        """
        rows = np.flatnonzero(gated & ok)
        if rows.size == len(slots):
            verdict = self.gate.judge(audio)
            yes, last = verdict.yes, verdict.last
        else:
            yes, last = np.zeros(len(slots), np.int64), np.zeros(len(slots), np.int64)
            if rows.size:
                verdict = self.gate.judge(audio[rows])
                yes[rows], last[rows] = verdict.yes, verdict.last
        return self._settle(slots, yes, last, forced, length, ok)

    def _settle(
        self, slots: Index, yes: Counts, last: Counts, forced: Flags, length: int, ok: Flags
    ) -> tuple[Flags, Flags]:
        if kernel.COMPILED:
            limits = {"length": length, "hang": self._hang, "more": self._hang_more, "delay": self.delay}
            limits |= {"grid": self.grid, "span": self._heat_span, "strong": _STRONG}
            state = self._until, self._run, self._heat, self._seen, self._confirmed
            return kernel.settle(slots, ok, forced, yes, last, limits, *state)
        until, run, heat = self._until[slots], self._run[slots], self._heat[slots]
        asked = yes > 0
        seen = np.where(heat > 0, self._seen[slots], 0) + yes
        until = np.where(asked, np.maximum(until, last + self._hang + self._hang_more * yes), until)
        # The grid keeps the tone of a key going when nothing else does.
        short = self._confirmed[slots] & (run > 0) & ((run < self.grid) | (run % self.grid >= length))
        flat = (asked | forced | (until > -self.delay) | short) & ok
        keep = slots[ok]
        self._until[keep] = until[ok] - length
        self._run[keep] = np.where(flat, run + length, 0)[ok]
        self._seen[keep] = seen[ok]
        self._confirmed[keep] &= flat[ok]
        self._heat[keep] = heat = np.where(asked, self._heat_span + length, np.maximum(heat - length, 0))[ok]
        hot = ok.copy()
        hot[ok] = (seen[ok] >= _STRONG) & (heat > 0)
        return flat, hot

    def _substitute(
        self,
        slots: Index,
        line: Octets,
        audio: Samples,
        known: Counts,
        out: Octets,
        codec: Index,
        wanted: Flags,
        ok: Flags,
        flat: Flags,
    ) -> Flags:
        """Rebuild the keypad's band in `out`, fading in and out. bool[n]: where that cannot be done, so mask.

        Nothing is rebuilt under a flat tone; after it the rebuilder hears the last 40 ms again before it goes on.
        """
        length = out.shape[1]
        was = self._substituting[slots]
        self._substituting[slots[ok]] = wanted[ok]
        here = (wanted | was) & ok
        warm = self._warm[slots]
        self._warm[slots[ok]] = (wanted & ~flat)[ok]
        rows = np.flatnonzero(here & ~flat)
        if not rows.size:
            return np.zeros(len(slots), np.bool_)
        if length % HOP or not FADE <= length <= LONGEST:
            self._warm[slots[rows]] = False
            return here
        new = rows[~warm[rows]]
        if new.size:
            self._substitution.reset(slots[new])
            before = _linear(line[new, :-length], codec[new], known[new], 0)
            past = np.pad(before, ((0, 0), (HISTORY, 0)))
            self._substitution.process(slots[new], past[:, (past.shape[1] - HISTORY) % HOP :])
        rebuilt = self._substitution.process(slots[rows], audio[rows, -HISTORY - length :])
        rise = (np.arange(FADE, dtype=np.float32) + 0.5) / FADE
        for turn, ramp in ((~was[rows], rise), (~wanted[rows], 1 - rise)):
            plain = np.empty((int(turn.sum()), FADE), np.float32)
            g711.linear(out[rows[turn], :FADE], codec[rows[turn]], plain)
            rebuilt[turn, :FADE] = ramp * rebuilt[turn, :FADE] + (1 - ramp) * plain
        stays = wanted[rows]
        coded = g711.encode_rows(rebuilt, codec[rows])
        out[rows[stays]] = coded[stays]
        out[rows[~stays], :FADE] = coded[~stays, :FADE]
        return np.zeros(len(slots), np.bool_)

    def _paint(
        self, slots: Index, out: Octets, codec: Index, clock: NDArray[np.uint32], flat: Flags, ok: Flags
    ) -> Counts:
        """Overwrite what may not leave in `out`; return how many samples of each row.

        A block with anything to mask becomes flat tone from end to end: where in it a window first said yes depends on
        the key (measured: 11.5 % of keys named from it, +-0.2), and the edges of packets do not.
        """
        length = out.shape[1]
        if kernel.COMPILED:
            return kernel.paint(slots, ok, flat, clock, codec, self._flat, g711.SILENCE, self._unknown, out)
        masked = np.where(flat, length, 0)
        rows = np.flatnonzero(flat)
        if rows.size:
            when = (clock[rows, None].astype(np.int64) + np.arange(length)) % self._flat.shape[1]
            out[rows] = self._flat[codec[rows, None], when]
        unknown = self._unknown[slots]
        for row in np.flatnonzero(~flat & ok & (unknown > 0)):
            hidden = min(int(unknown[row]), length)
            out[row, :hidden] = g711.SILENCE[codec[row]]
            masked[row] = hidden
        self._unknown[slots[ok]] = np.maximum(unknown[ok] - length, 0)
        return masked
