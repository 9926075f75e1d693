"""The sixteen keys of a telephone keypad: their tones, and the tolerances of the standards as data.

Frequencies: ITU-T Q.23. Tolerances: ITU-T Q.24 Annex A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LOW: Final = (697.0, 770.0, 852.0, 941.0)
"""Row tones in Hz (Q.23)."""
HIGH: Final = (1209.0, 1336.0, 1477.0, 1633.0)
"""Column tones in Hz (Q.23)."""
KEYS: Final = "123A456B789C*0#D"
"""Key characters by key index: index = 4 * row + column."""
EVENTS: Final = "0123456789*#ABCD"
"""Key characters by telephone-event code 0 to 15 (RFC 4733 section 3.2, table 3)."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """One administration's column of Q.24 Annex A, table A-1."""

    name: str
    frequency_accept: float
    frequency_reject: float
    level_accept_dbm: tuple[float, float]
    level_reject_dbm: float
    twist_db: tuple[float, float]
    """Level of the high tone over that of the low one: lowest and highest to accept."""
    tone_accept_ms: float
    tone_reject_ms: float
    pause_accept_ms: float
    interruption_ignore_ms: float
    cycle_ms: float


ATT: Final = Tolerance("AT&T", 0.015, 0.035, (-25.0, 0.0), -55.0, (-8.0, 4.0), 40, 23, 40, 10, 93)
NTT: Final = Tolerance("NTT", 0.018, 0.030, (-24.0, -3.0), -29.0, (-5.0, 5.0), 40, 24, 30, 10, 120)


def pair(index: int) -> tuple[float, float]:
    """Return the (low, high) frequencies in Hz of key `index` (0 to 15)."""
    return LOW[index // 4], HIGH[index % 4]


def pairs() -> NDArray[np.float64]:
    """Return all sixteen pairs, float64[16, 2], Hz, in key-index order."""
    return np.array([pair(index) for index in range(16)])
