"""Asterisk's in-band rules, restated from the constants it documents: blocks of 102 samples, Goertzel at the eight
nominal frequencies, two hits begin a key, three misses end it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import keypad

BLOCK: Final = 102
THRESHOLD: Final = 8.0e7
NORMAL_TWIST, REVERSE_TWIST = 6.31, 2.51
"""High over low may be 4 dB up (reverse), 8 dB down (normal)."""
RELATIVE_PEAK: Final = 6.3
TO_TOTAL: Final = 42.0
HITS, MISSES = 2, 3


def decode(samples: NDArray[np.int16]) -> str:
    """The keys that its rules find in int16[n] at 8 kHz."""
    blocks = samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK).astype(np.float64)
    turn = np.exp(-2j * np.pi * np.outer(np.arange(BLOCK), keypad.LOW + keypad.HIGH) / 8000)
    power, energy = np.square(np.abs(blocks @ turn)), np.square(blocks).sum(axis=1)
    hits = [_hit(p[:4], p[4:], e) for p, e in zip(power, energy, strict=True)]
    keys, current, last, count, missed = [], -1, -1, 0, 0
    for hit in hits:
        if current >= 0:
            missed = 0 if hit == current else missed + 1
            if missed == MISSES:
                current = -1
        count = count + 1 if hit == last else 1
        last = hit
        if hit >= 0 and hit != current and count == HITS:
            current, missed = hit, 0
            keys.append(keypad.KEYS[hit])
    return "".join(keys)


def _hit(low: NDArray[np.float64], high: NDArray[np.float64], energy: float) -> int:
    row, column = int(low.argmax()), int(high.argmax())
    a, b = low[row], high[column]
    if min(a, b) < THRESHOLD or b > a * REVERSE_TWIST or a > b * NORMAL_TWIST or a + b <= TO_TOTAL * energy:
        return -1
    if np.delete(low, row).max() * RELATIVE_PEAK > a or np.delete(high, column).max() * RELATIVE_PEAK > b:
        return -1
    return row * 4 + column
