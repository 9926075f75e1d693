"""What is counted of each leg, and of all legs there have been."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

NAMES: Final = (
    "packets",
    "lost",
    "late",
    "reordered",
    "duplicates",
    "strangers",
    "rejected",
    "refused",
    "kernel_drops",
    "excess",
    "unknown_payload",
    "malformed",
    "masked_ms",
    "substituted_ms",
    "keys",
    "guard_alarms",
)


class Tally:
    """Counts of `capacity` slots by name: those the engine makes itself are arrays here, int64[capacity]."""

    def __init__(self, capacity: int) -> None:
        self.late = np.zeros(capacity, np.int64)
        self.unknown_payload = np.zeros(capacity, np.int64)
        self.malformed = np.zeros(capacity, np.int64)
        self.masked = np.zeros(capacity, np.int64)
        """Samples, as are the next."""
        self.substituted = np.zeros(capacity, np.int64)
        self.keys = np.zeros(capacity, np.int64)
        self.alarms = np.zeros(capacity, np.int64)

    def reset(self, slot: int) -> None:
        """Begin anew for another leg."""
        for counts in vars(self).values():
            counts[slot] = 0

    def of(self, slots: int | slice) -> dict[str, NDArray[np.int64]]:
        """The counts of `slots`."""
        return {
            "late": self.late[slots],
            "unknown_payload": self.unknown_payload[slots],
            "malformed": self.malformed[slots],
            "masked_ms": self.masked[slots] // 8,
            "substituted_ms": self.substituted[slots] // 8,
            "keys": self.keys[slots],
            "guard_alarms": self.alarms[slots],
        }
