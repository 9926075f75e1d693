"""What the engine hears: the keys in what comes in, where the gate has seen something, and any key in what leaves."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp.decoder import Decoder
from dsp.guard import Guard
from dsp.mask import Block

Index = NDArray[np.intp]
Flags = NDArray[np.bool_]


GATHER: Final = 0.014
"""Seconds over which blocks are gathered: less than a packet of 20 ms, so that a key found in one is known before the
next of its leg is masked."""


class Ears:
    """Decoder and guard of `capacity` slots. history: samples before the block in `Block.audio()`."""

    def __init__(self, capacity: int, history: int) -> None:
        self._decoder = Decoder(capacity)
        self._guard = Guard(capacity)
        self._history = history
        self._listening = np.zeros(capacity, np.bool_)
        self._waiting = np.zeros(capacity, np.bool_)
        """Whether a block of a slot has been gathered and not yet been heard."""
        self._gathered: list[tuple[Index, NDArray[np.float32], NDArray[np.int64], NDArray[np.uint32], Flags]] = []
        self._flush_at = np.inf

    def reset(self, slot: int) -> None:
        """Forget what was heard in `slot`."""
        self._decoder.reset(slot)
        self._guard.reset(slot)
        self._listening[slot] = False
        if self._waiting[slot]:
            self._waiting[slot] = False
            for slots, audio, *_ in self._gathered:
                audio[slots == slot] = 0
            self._gathered = [tuple(part[b[0] != slot] for part in b) for b in self._gathered]

    def alarms(self, slots: Index, block: Block, codec: Index, exempt: Flags) -> Flags:
        """bool[n]: behind which of `slots` (distinct) the guard hears a key; not where `exempt`."""
        alarmed = np.zeros(len(slots), np.bool_)
        rows = np.flatnonzero(~block.late & ~exempt)
        if rows.size:
            alarmed[rows] = self._guard.alarms(slots[rows], block.octets[rows], codec[rows])
        self._guard.reset(slots[alarmed])
        return alarmed

    def listen(
        self, slots: Index, hot: Flags, block: Block, timestamp: NDArray[np.uint32], now: float
    ) -> list[tuple[int, int]]:
        """Take a block for the decoder: what it finds comes from `due`, a packet's time later at most, or is returned.

        slots: distinct; hot: bool[n], where to listen at all. Blocks are gathered over a few ticks, since the decoder
        takes as long for one as for a hundred (measured: a fifth of a worker's time at 1,000 calls, a twentieth so).
        """
        on = ~block.late  # what comes late says nothing of whether a key goes on
        rows = np.flatnonzero(on & hot)
        cold = slots[on & ~hot & self._listening[slots]]
        if not rows.size and not cold.size:
            return []
        found: list[tuple[int, int]] = []
        if self._waiting[slots[rows]].any() or self._waiting[cold].any():
            found = self.flush()
        if cold.size:
            self._decoder.reset(cold)
            self._listening[cold] = False
        if rows.size:
            heard = block.audio(rows)
            fresh = ~self._listening[slots[rows]]
            self._listening[slots[rows]] = self._waiting[slots[rows]] = True
            self._gathered.append((slots[rows], heard, block.known[rows], timestamp[rows], fresh))
            self._flush_at = min(self._flush_at, now + GATHER)
        return found

    def due(self, now: float) -> list[tuple[int, int]]:
        """(slot, key index) of each key recognised in what was gathered long enough ago."""
        return self.flush() if now >= self._flush_at else []

    def flush(self) -> list[tuple[int, int]]:
        """(slot, key index) of each key recognised in what has been gathered."""
        gathered, self._gathered, self._flush_at = self._gathered, [], np.inf
        found: list[tuple[int, int]] = []
        for width in sorted({audio.shape[1] for _, audio, *_ in gathered}):
            slots, audio, known, timestamp, fresh = (
                np.concatenate(parts) for parts in zip(*(b for b in gathered if b[1].shape[1] == width), strict=True)
            )
            self._waiting[slots] = False
            span = self._history - self._decoder.span
            if fresh.any():  # what came just before may have been the beginning of the key
                past = np.where(known[fresh] >= span, known[fresh] - span, 0)
                began = timestamp[fresh] - np.uint32(span)
                found += self._hear(slots[fresh], audio[fresh][:, : self._history], past, began)
            if slots.size:
                found += self._hear(slots, audio[:, span:], known, timestamp)
        return found

    def _hear(
        self, slots: Index, audio: NDArray[np.float32], known: NDArray[np.int64], timestamp: NDArray[np.uint32]
    ) -> list[tuple[int, int]]:
        report = self._decoder.push(slots, audio, known, timestamp.astype(np.int64))
        return [(int(slots[row]), index) for row, index, _ in report.pressed]
