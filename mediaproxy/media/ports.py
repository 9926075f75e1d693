"""Which RTP ports are free: even ones, each with the next for RTCP."""

from __future__ import annotations

import contextlib
from collections import deque


class PortPool:
    """Even ports of a range, in turn; a freed one rests so that late packets meet nobody."""

    def __init__(self, first: int, last: int, rest_seconds: float) -> None:
        self._free = deque(range(first, last, 2))
        self._resting: deque[tuple[float, int]] = deque()
        self._rest = rest_seconds

    def take(self, now: float) -> int | None:
        """A port, or None where all are in use or resting."""
        while self._resting and self._resting[0][0] <= now:
            self._free.append(self._resting.popleft()[1])
        return self._free.popleft() if self._free else None

    def take_this(self, port: int) -> None:
        """Mark `port` as used: a call of before a restart has it."""
        with contextlib.suppress(ValueError):
            self._free.remove(port)

    def give_back(self, port: int, now: float) -> None:
        """Free a port after its rest."""
        self._resting.append((now + self._rest, port))

    def __len__(self) -> int:
        return len(self._free)
