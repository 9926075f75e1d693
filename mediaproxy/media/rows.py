"""Datagrams as rows of a slab: what the pump reads and what it sends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mediaproxy.media.wire.rtp import LARGEST

ROWS: Final = 8192
"""Rows a tick: 500 calls of two streams at 50 packets a second bring 250 in 5 ms; the rest is room after a stall."""


@dataclass(slots=True)
class Rows:
    """`count` datagrams. slab: uint8[ROWS, LARGEST]; slot: the leg they came on or leave by; arrival: seconds.

    control marks RTCP rows (sent from the port above).
    """

    slab: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((ROWS, LARGEST), np.uint8))
    slot: NDArray[np.intp] = field(default_factory=lambda: np.zeros(ROWS, np.intp))
    length: NDArray[np.int64] = field(default_factory=lambda: np.zeros(ROWS, np.int64))
    control: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(ROWS, np.bool_))
    count: int = 0

    def claim(self, n: int) -> slice:
        """The next n rows; fewer where the slab is full."""
        first = self.count
        self.count = min(first + n, ROWS)
        return slice(first, self.count)

    def put(self, slot: int, data: bytes, control: bool = False) -> None:
        """Add one row of octets."""
        at = self.claim(1)
        if at.start < at.stop:
            self.slab[at.start, : len(data)] = np.frombuffer(data, np.uint8)
            self.slot[at.start], self.length[at.start], self.control[at.start] = slot, len(data), control

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Keep only these, in order; the others are blanked."""
        before, self.count = self.count, len(rows)
        for column in (self.slab, self.slot, self.length, self.control):
            column[: len(rows)] = column[rows]
        self.slab[len(rows) : before] = 0

    def wipe(self) -> None:
        """Blank what was used: a row may have held a telephone-event."""
        if self.count:
            self.slab[: self.count, : int(self.length[: self.count].max())] = 0
        self.count = 0
