"""How much one caller of the API may ask for: a bucket each, of `rate` requests a second and `burst` at once."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from mediaproxy.agent.problem import Problem

KEPT = 10_000
"""Callers remembered; beyond, the one that has been quiet longest is forgotten, and has a full bucket again."""


class Buckets:
    """clock: seconds, never backwards."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> None:
        """Count a request. Raises Problem 429."""
        if not self.room(who):
            raise Problem(429, "too-many-requests", "wait a moment", retry_after=1)

    def room(self, who: str) -> bool:
        """Count a request, if there is room for it."""
        now = self._clock()
        level, then = self._levels.pop(who, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._rate)
        self._levels[who] = (level - 1 if level >= 1 else level), now
        if len(self._levels) > KEPT:
            self._levels.popitem(last=False)
        return level >= 1
