"""Alarm clocks by name: set, put off, called off; one question: which is next."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
_SWEEP = 512
"""Entries beyond twice the alarms that are set after which those that were called off are thrown out."""


class Alarms(Generic[K]):
    """Each key has at most one alarm; the last setting holds."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._ticket = 0

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: K, when: float) -> None:
        """Ring for `key` at `when`."""
        self._due[key] = when
        self._ticket += 1
        heapq.heappush(self._heap, (when, self._ticket, key))
        if len(self._heap) > 2 * len(self._due) + _SWEEP:
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def cancel(self, key: K) -> None:
        """Do not ring for `key`."""
        self._due.pop(key, None)

    def next(self) -> float | None:
        """When the next one rings, or None."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def ring(self, now: float) -> list[K]:
        """Those that are due, in order; each is gone thereby."""
        keys: list[K] = []
        while (when := self.next()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            keys.append(key)
        return keys
