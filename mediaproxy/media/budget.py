"""How much a leg may bring: twice the audio of real time, so that no caller takes the worker's time from the others."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mediaproxy.media.rows import Rows
from mediaproxy.media.wire.rtp import HEADER

RATE: Final = 2.0
"""Seconds of credit a second: telephone-events come beside audio, and a network that was held up catches up."""
MOST: Final = 1.0
"""Seconds of credit at most: an outage of half a second may be followed by all of it at once."""
_LEAST: Final = 0.005
"""What the smallest packet costs, in seconds: 400 a second, where audio of 10 ms and events bring 120."""
_CONTROL: Final = 0.1
"""What an RTCP packet costs: twenty a second, where one in five seconds is usual."""


class Budget:
    """Credit of `capacity` slots, in seconds of audio."""

    def __init__(self, capacity: int) -> None:
        self._credit = np.full(capacity, MOST)
        self._at = np.zeros(capacity)
        self.excess = np.zeros(capacity, np.int64)
        """Datagrams that were too many."""

    def reset(self, slot: int) -> None:
        """Begin anew for another leg."""
        self._credit[slot] = MOST
        self.excess[slot] = 0

    def admit(self, rows: Rows, now: float) -> None:
        """Take out of `rows` what their legs have no credit for, and count it."""
        n = rows.count
        if not n:
            return
        slot, credit = rows.slot[:n], self._credit
        credit[slot] = np.minimum(credit[slot] + RATE * (now - self._at[slot]), MOST)
        self._at[slot] = now
        cost = np.maximum((rows.length[:n] - HEADER) / 8000, _LEAST)
        cost[rows.control[:n]] = _CONTROL
        np.subtract.at(credit, slot, cost)
        if (credit[slot] < 0).any():
            rows.keep(np.flatnonzero(self._paid(slot, cost)))

    def _paid(self, slot: NDArray[np.intp], cost: NDArray[np.float64]) -> NDArray[np.bool_]:
        """bool[n]: the rows that their slots can pay for, those that came first; the others are paid back."""
        paid = np.ones(len(slot), np.bool_)
        for row in range(len(slot) - 1, -1, -1):
            if self._credit[slot[row]] < 0:
                self._credit[slot[row]] += cost[row]
                self.excess[slot[row]] += 1
                paid[row] = False
        return paid
