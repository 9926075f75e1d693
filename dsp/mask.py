"""The look-back line: 8 ms of delay, placed by RTP timestamp, in which a key is found before its first sample leaves.

An outgoing block carries the last 8 ms of the block before and all but the last 8 ms of this one, so no packet waits
and every sample is judged with at least 8 ms of what follows it. What passes is the octets as they came; what is
masked is a flat tone over whole blocks, the same whatever was keyed. After any gap neither the unknown before it nor
the first 8 ms after it are forwarded, and a running mask goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711
from dsp.gate import Gate

Octets = NDArray[np.uint8]
Samples = NDArray[np.float32]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

DELAY_MS: Final = 8
"""The look-back, fixed for the life of a leg in every mode."""
FLAT_HZ: Final = 540.0
"""Outside call progress (350-480, 620), fax (1100, 2100) and in-band signalling bands; 540 / 8000 = 27 / 400."""
FLAT_DBM0: Final = -18.0
"""Loud enough to be heard as "the caller is keying", quieter than speech (ITU-T P.56 active level about -20 dBm0)."""
HANG_CELLS: Final = 20
"""How long a mask outlives the last window that asked for it, ms: covers the fade of a tone below every window."""
HEAT_CELLS: Final = 80
"""How long after the last trigger the decoder keeps listening, ms: longer than the pause that ends a key."""
_RESYNC: Final = 4000
"""Samples a timestamp may run backwards (500 ms) before it means a new clock rather than a late packet."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one block of n streams became. All rows of a block have the same length.

    octets: uint8[n, length] to send (undefined where late).
    late: bool[n], older than what has left: send nothing.
    masked: int[n], samples replaced by the flat tone or by silence.
    hot: bool[n], a key may be in or near this block: let the decoder look at `audio`.
    audio: float32[n, history + length], what came in, with the history before it.
    known: int[n], samples before this block without a gap.
    """

    octets: Octets
    late: Flags
    masked: NDArray[np.int64]
    hot: Flags
    audio: Samples
    known: NDArray[np.int64]


def _flat_table(rate: int) -> Octets:
    period = rate // 20  # 540 Hz and all multiples of 20 Hz fit whole
    tone = g711.amplitude(FLAT_DBM0) * np.sin(2 * np.pi * FLAT_HZ / rate * np.arange(period))
    return np.stack([g711.encode(tone.astype(np.float32), codec) for codec in (g711.PCMU, g711.PCMA)])


class MaskLine:
    """Look-back lines of `capacity` streams, one slot each; a block serves any set of distinct slots."""

    def __init__(self, capacity: int, rate: int = 8000) -> None:
        self.gate = Gate(rate)
        self.rate = rate
        self.cell = self.gate.cell
        self.delay = rate * DELAY_MS // 1000
        self.history = max(self.gate.history, 160 * rate // 8000)
        self._back = self.delay // self.cell
        self._flat = _flat_table(rate)
        self._history = np.zeros((capacity, self.history), np.float32)
        self._carry = np.zeros((capacity, self.delay), np.uint8)
        self._codec = np.zeros(capacity, np.intp)
        self._cover = np.zeros((capacity, self._back), np.bool_)
        """Cells of the carry that a window has asked to mask."""
        self._hang = np.zeros(capacity, np.int64)
        """Cells after the last block that an earlier window has asked to mask."""
        self._run = np.zeros(capacity, np.bool_)
        """Whether a mask was running at the end of the last block."""
        self._unknown = np.zeros(capacity, np.int64)
        """Cells still to go out that lie before or just after a gap."""
        self._heat = np.zeros(capacity, np.int64)
        self._known = np.zeros(capacity, np.int64)
        self._expected = np.zeros(capacity, np.uint32)
        self._joined = np.zeros(capacity, np.bool_)
        """Whether the next block may follow on the last one at all."""
        self._started = np.zeros(capacity, np.bool_)

    def reset(self, slot: int) -> None:
        """Forget the stream in `slot`: audio wiped, the next block starts cold."""
        for state in (self._history, self._carry, self._cover, self._hang, self._run, self._unknown, self._heat):
            state[slot] = 0
        self._known[slot], self._expected[slot] = 0, 0
        self._joined[slot] = self._started[slot] = False

    def cut(self, slot: int) -> None:
        """Say that another source speaks from now on: its clock is new, a running mask goes on."""
        self._joined[slot] = self._started[slot] = False

    def distrust(self, slot: int) -> None:
        """Say that what was last pushed was not judged: the next block follows on nothing known."""
        self._joined[slot] = False

    def cursor(self, slot: int) -> int | None:
        """The timestamp up to which `slot` has been filled, None before its first block."""
        return int(self._expected[slot]) if self._started[slot] else None

    def interrupt(self, slot: int, timestamp: int) -> None:
        """Say that the time up to `timestamp` has been filled otherwise (by a telephone-event): a mask runs there."""
        self._expected[slot] = timestamp & 0xFFFFFFFF
        self._joined[slot] = False
        self._started[slot] = True
        self._hang[slot] = HANG_CELLS
        self._run[slot] = True

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
    ) -> Block:
        """Pass a block through the lines of `slots` (distinct).

        octets: uint8[n, length] as received; codec: int[n]; timestamp: uint32[n], RTP timestamp of the first sample.
        gated: bool[n], whether the gate may mask; forced: bool[n], mask all of what leaves now.
        clock: uint32[n], where the block stands on the clock it leaves by, which sets the phase of the flat tone: a
        sender whose timestamps depend on the key must not set it. Default: `timestamp`.
        A length that does not fill whole cells is masked whole and treated as a gap.
        """
        length = octets.shape[1]
        late, gap, lost_mask = self._place(slots, timestamp, length)
        self._enter_gap(slots[gap], lost_mask[gap])
        audio = np.concatenate([self._history[slots], g711.DECODE[codec[:, None], octets]], axis=1)
        known = self._known[slots]
        ok = ~late
        cells, ragged = divmod(length, self.cell)
        if ragged or not cells:
            out = np.broadcast_to(g711.SILENCE[codec][:, None], octets.shape).copy()
            self._joined[slots[ok]] = False
            return Block(out, late, np.where(ok, length, 0), (self._heat[slots] > 0) & ok, audio, known)

        cover, asked = self._cover_of(slots, audio, gated & ok, cells)
        cover |= forced[:, None]
        out = self._shift(slots, octets, codec, ok)
        masked = self._paint(slots, out, codec, timestamp if clock is None else clock, cover[:, :cells], ok)
        keep = slots[ok]
        self._cover[keep] = cover[ok, cells : cells + self._back]
        tail = cover[ok, cells + self._back :]
        self._hang[keep] = np.where(tail.any(axis=1), tail.shape[1] - tail[:, ::-1].argmax(axis=1), 0)
        self._history[keep] = audio[ok, -self.history :]
        self._known[keep] = np.minimum(self._known[keep] + length, 1 << 30)
        self._heat[keep] = np.where(asked[ok], HEAT_CELLS + cells, np.maximum(self._heat[keep] - cells, 0))
        return Block(out, late, masked, (self._heat[slots] > 0) & ok, audio, known)

    def _place(self, slots: Index, timestamp: NDArray[np.uint32], length: int) -> tuple[Flags, Flags, Flags]:
        """Compare with the expected time: (late, gap, a mask was running when the gap came), bool[n] each."""
        delta = (timestamp - self._expected[slots]).view(np.int32)
        late = self.late(slots, timestamp)
        gap = ~late & ((delta != 0) | ~self._joined[slots])
        running = self._run[slots] | (self._hang[slots] > 0) | self._cover[slots].any(axis=1)
        on = slots[~late]
        self._expected[on] = timestamp[~late] + np.uint32(length)
        self._joined[on] = True
        self._started[on] = True
        return late, gap, running & gap

    def _enter_gap(self, slots: Index, running: Flags) -> None:
        self._history[slots] = 0
        self._known[slots] = 0
        self._cover[slots] = running[:, None]
        self._hang[slots] = np.where(running, self._back + HANG_CELLS, 0)
        self._unknown[slots] = 2 * self._back
        self._heat[slots] = np.where(running, HEAT_CELLS, 0)

    def _cover_of(self, slots: Index, audio: Samples, gated: Flags, cells: int) -> tuple[Flags, Flags]:
        """Return the cells to mask, bool[n, back + cells + hang] from the first of the carry on, and who asked."""
        back, n = self._back, len(slots)
        width = back + cells + HANG_CELLS + back
        cover = np.arange(width)[None, :] - back < self._hang[slots][:, None]
        cover[:, :back] = self._cover[slots]
        asked = np.zeros(n, np.bool_)
        rows = np.flatnonzero(gated)
        if rows.size:
            judged = audio[rows][:, audio.shape[1] - cells * self.cell - self.gate.history :]
            edges = np.zeros((rows.size, width + 1), np.int32)
            for yes, reach in zip(self.gate.triggers(judged), self.gate.reaches, strict=True):
                which, end = np.nonzero(yes)
                np.add.at(edges, (which, np.maximum(back + end + 1 - reach, 0)), 1)
                np.add.at(edges, (which, back + end + 1 + HANG_CELLS), -1)
                asked[rows[which]] = True
            cover[rows] |= edges[:, :width].cumsum(axis=1) > 0
        return cover, asked

    def _shift(self, slots: Index, octets: Octets, codec: Index, ok: Flags) -> Octets:
        """Return carry + octets less the last `delay` samples, and keep those as the next carry."""
        carry = self._carry[slots]
        other = np.flatnonzero((self._codec[slots] != codec) & (self._known[slots] > 0))
        if other.size:
            carry[other] = g711.TRANSCODE[self._codec[slots[other]][:, None], carry[other]]
        line = np.concatenate([carry, octets], axis=1)
        self._carry[slots[ok]] = line[ok, -self.delay :]
        self._codec[slots[ok]] = codec[ok]
        return line[:, : octets.shape[1]].copy()

    def _paint(
        self, slots: Index, out: Octets, codec: Index, clock: NDArray[np.uint32], cover: Flags, ok: Flags
    ) -> NDArray[np.int64]:
        """Overwrite what may not leave in `out`; return how many samples of each row.

        A block with a cell to mask becomes flat tone from end to end: where in it a window first said yes depends on
        the key (measured: 11.5 % of keys named from it, +-0.2), and the edges of packets do not.
        """
        masked = np.zeros(len(slots), np.int64)
        cells = cover.shape[1]
        flat = cover.any(axis=1) & ok
        rows = np.flatnonzero(flat)
        when = (clock[rows, None].astype(np.int64) + np.arange(out.shape[1])) % self._flat.shape[1]
        out[rows] = self._flat[codec[rows, None], when]
        masked[rows] = out.shape[1]
        unknown = self._unknown[slots]
        for row in np.flatnonzero(~flat & ok & (unknown > 0)):
            hidden = min(int(unknown[row]), cells) * self.cell
            out[row, :hidden] = g711.SILENCE[codec[row]]
            masked[row] = hidden
        self._run[slots[ok]] = flat[ok]
        self._unknown[slots[ok]] = np.maximum(unknown[ok] - cells, 0)
        return masked
