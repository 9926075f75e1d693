"""How long things took, for the metrics page."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from mediaproxy.ipc import messages as m

BOUNDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds."""


class Histogram:
    """Counts by size."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds

    def told(self) -> m.Timing:
        return m.Timing(BOUNDS, tuple(self._counts), self._seconds)
