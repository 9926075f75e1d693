"""What is left of a key in a recording: a few milliseconds are enough to read it, so a few must be found.

Independent of the live gate and decoder: it fits the sixteen pairs at their nominal frequencies, by least squares, to
short windows, and asks that a fit begins and ends beside silence or a single steady tone, as what a mask has left
does, and as speech does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711, keypad

Samples = NDArray[np.float32]

WINDOW: Final = 24
"""3 ms: three cycles of the difference between any two row tones would need 14 ms, but the pair as a whole fits."""
HOP: Final = 4
FIT: Final = 0.985
"""Least share of a window's energy that one pair explains."""
PLAIN: Final = 0.93
"""A window that a single sinusoid explains better than this is no pair."""
FLOOR_DBM0: Final = -38.0
WEAKER: Final = 0.06
QUIET_DB: Final = 14.0
"""A neighbour so much weaker than the window is silence beside it."""
SHORTEST_MS: Final = 3.0
LONGEST_MS: Final = 35.0
"""Longer ones are whole keys: `dsp.decoder` finds those."""
_GUARD: Final = 32
"""4 ms to either side, where the neighbours are looked for."""


@dataclass(frozen=True, slots=True)
class Residue:
    """A place that sounds like part of a key. Never which key."""

    start: int
    end: int
    level_dbm0: float


def _pair_bank(window: int, rate: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    t = (np.arange(window) - (window - 1) / 2) / rate
    bases, solves = [], []
    for low, high in keypad.pairs():
        basis = np.stack([f(2 * np.pi * hz * t) for hz in (low, high) for f in (np.cos, np.sin)], axis=1)
        bases.append(np.linalg.qr(basis)[0])
        solves.append(np.linalg.pinv(basis))
    return np.concatenate(bases, axis=1).astype(np.float32), np.stack(solves).astype(np.float32)


def _sine_bank(window: int, rate: int) -> NDArray[np.float32]:
    t = (np.arange(window) - (window - 1) / 2) / rate
    bases = [
        np.linalg.qr(np.stack([np.cos(2 * np.pi * hz * t), np.sin(2 * np.pi * hz * t)], axis=1))[0]
        for hz in np.arange(200, 3400, 40)
    ]
    return np.concatenate(bases, axis=1).astype(np.float32)


def find(samples: Samples, rate: int) -> list[Residue]:
    """Return the residues in `samples` (float32[n], full scale 1.0), `rate` 8000 Hz."""
    if rate != 8000:
        raise ValueError("residues are looked for at 8000 Hz")
    audio = np.nan_to_num(np.asarray(samples, np.float32))
    if len(audio) < WINDOW:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(audio, WINDOW)[::HOP]
    energy = np.einsum("ij,ij->i", windows, windows)
    loud = np.flatnonzero(energy >= g711.amplitude(FLOOR_DBM0) ** 2 / 2 * WINDOW)
    if not loud.size:
        return []
    pairs, solves = _pair_bank(WINDOW, rate)
    sines = _sine_bank(WINDOW, rate)
    looks = np.zeros(len(windows), np.bool_)
    single = np.zeros(len(windows), np.bool_)
    for part in np.array_split(loud, max(1, len(loud) // 4096)):
        x, e = windows[part], energy[part]
        share = np.square(x @ pairs).reshape(len(x), 16, 4).sum(axis=2) / e[:, None]
        best = share.argmax(axis=1)
        alone = np.square(x @ sines).reshape(len(x), -1, 2).sum(axis=2).max(axis=1) / e
        c = np.square(np.einsum("nks,ns->nk", solves[best], x))
        low, high = c[:, 0] + c[:, 1], c[:, 2] + c[:, 3]
        balanced = np.minimum(low, high) >= WEAKER * (low + high)
        looks[part] = (share[np.arange(len(x)), best] >= FIT) & (alone < PLAIN) & balanced
        single[part] = alone >= 0.97
    return [r for r in _runs(looks, energy) if _abrupt(r, energy, single)]


def _runs(looks: NDArray[np.bool_], energy: NDArray[np.float32]) -> list[Residue]:
    edges = np.flatnonzero(np.diff(np.r_[False, looks, False].astype(np.int8)))
    found = []
    for a, b in zip(edges[::2], edges[1::2], strict=True):
        start, end = int(a) * HOP, int(b - 1) * HOP + WINDOW
        if SHORTEST_MS <= (end - start) / 8 <= LONGEST_MS:
            power = float(energy[a:b].mean()) / WINDOW
            found.append(Residue(start, end, 20 * np.log10(np.sqrt(2 * power) / g711.AMPLITUDE_0DBM0)))
    return found


def _abrupt(residue: Residue, energy: NDArray[np.float32], single: NDArray[np.bool_]) -> bool:
    """Whether both sides are silence or one steady tone, within 4 ms."""
    inside = energy[residue.start // HOP : max(residue.start // HOP + 1, (residue.end - WINDOW) // HOP + 1)].mean()
    weak = inside / 10 ** (QUIET_DB / 10)
    before = slice(max(0, (residue.start - WINDOW - _GUARD) // HOP), max(0, (residue.start - WINDOW) // HOP + 1))
    after = slice(residue.end // HOP, (residue.end + _GUARD) // HOP + 1)
    return all(
        len(energy[side]) == 0 or bool(((energy[side] < weak) | single[side]).mean() > 0.5) for side in (before, after)
    )
