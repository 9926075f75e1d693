"""How busy a worker is: the length of its ticks, and whether it may take another call."""

from __future__ import annotations

from typing import Final

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)
"""Upper ends of the histogram's buckets in seconds, as Prometheus has them; what took longer is in the last."""
FULL: Final = 0.85
"""Share of its time beyond which a worker takes no new calls: the rest is for those it has, who may all key at once."""
_MEMORY: Final = 0.01
"""Weight of one tick in the running share: half of it is forgotten in 0.35 s."""


class Load:
    """Ticks of `period` seconds."""

    def __init__(self, period: float) -> None:
        self._period = period
        self.share = 0.0
        """Of the time, spent working; above 1 where it does not keep up."""
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def tick(self, took: float, late: float = 0.0) -> None:
        """Note a tick that took so many seconds and began so late: the machine may be busy with something else."""
        self.share += _MEMORY * ((took + max(late, 0.0)) / self._period - self.share)
        self.seconds += took
        self.buckets[sum(took > bound for bound in BOUNDS)] += 1

    def rest(self) -> None:
        """There are no calls: nothing is late and nobody suffers."""
        self.share = 0.0

    @property
    def full(self) -> bool:
        """Whether new calls would be at the cost of old ones."""
        return self.share > FULL
