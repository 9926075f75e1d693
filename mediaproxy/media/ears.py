"""What the engine hears: the keys in what comes in, where the gate has seen something, and any key in what leaves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsp.decoder import Decoder
from dsp.guard import Guard
from dsp.mask import Block

Index = NDArray[np.intp]
Flags = NDArray[np.bool_]


class Ears:
    """Decoder and guard of `capacity` slots. history: samples before the block in `Block.audio()`."""

    def __init__(self, capacity: int, history: int) -> None:
        self._decoder = Decoder(capacity)
        self._guard = Guard(capacity)
        self._history = history
        self._listening = np.zeros(capacity, np.bool_)

    def reset(self, slot: int) -> None:
        """Forget what was heard in `slot`."""
        self._decoder.reset(slot)
        self._guard.reset(slot)
        self._listening[slot] = False

    def alarms(self, slots: Index, block: Block, codec: Index, exempt: Flags) -> Flags:
        """bool[n]: behind which of `slots` (distinct) the guard hears a key; not where `exempt`."""
        alarmed = np.zeros(len(slots), np.bool_)
        rows = np.flatnonzero(~block.late & ~exempt)
        if rows.size:
            alarmed[rows] = self._guard.alarms(slots[rows], block.octets[rows], codec[rows])
        self._guard.reset(slots[alarmed])
        return alarmed

    def keys(self, slots: Index, hot: Flags, block: Block, timestamp: NDArray[np.uint32]) -> list[tuple[int, int]]:
        """(slot, key index) of each key recognised now. slots: distinct; hot: bool[n], where to listen at all."""
        on = ~block.late  # what comes late says nothing of whether a key goes on
        cold = slots[on & ~hot & self._listening[slots]]
        if cold.size:
            self._decoder.reset(cold)
            self._listening[cold] = False
        rows = np.flatnonzero(on & hot)
        if not rows.size:
            return []
        new = rows[~self._listening[slots[rows]]]
        self._listening[slots[rows]] = True
        found: list[tuple[int, int]] = []
        if new.size:  # what came just before may have been the beginning of the key
            back, known = self._history - self._decoder.span, block.known[new]
            past = np.where(known >= back, known - back, 0)
            found += self._hear(
                slots[new], block.audio(new)[:, : self._history], past, timestamp[new] - np.uint32(back)
            )
        heard = block.audio(rows)[:, self._history - self._decoder.span :]
        return found + self._hear(slots[rows], heard, block.known[rows], timestamp[rows])

    def _hear(
        self, slots: Index, audio: NDArray[np.float32], known: NDArray[np.int64], timestamp: NDArray[np.uint32]
    ) -> list[tuple[int, int]]:
        report = self._decoder.push(slots, audio, known, timestamp.astype(np.int64))
        return [(int(slots[row]), index) for row, index, _ in report.pressed]
