"""Could this be a key? The permissive judge: whatever it says yes to is masked.

For each window that ends on the grid of cells it asks what share of the energy the best of 80 tone pairs explains
(16 keys, five deviations each). Short windows see an onset before its first sample has to leave; long ones see tones
in noise. A false yes costs milliseconds of speech, a false no a key, so the limits lean one way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711, goertzel, keypad

Samples = NDArray[np.float32]
Flags = NDArray[np.bool_]

CELL: Final = 8
"""Samples in a cell, the grid of all masking decisions: 1 ms at 8 kHz."""
DEVIATIONS: Final = (-0.035, -0.0175, 0.0, 0.0175, 0.035)
"""Grid of frequency errors: Q.24 lets receivers reject from 3.5 % (AT&T), so nothing nearer may be missed."""
FLOOR_DBM0: Final = -45.0
"""Windows below this level are not judged (measured: the prototype's limit)."""
WEAKER_TONE: Final = 0.04
"""Least share of the pair's energy in the weaker tone: 13.8 dB of twist (Q.24 asks for 10 at most)."""


@dataclass(frozen=True, slots=True)
class _Window:
    samples: int
    share: float
    joint: Samples
    """float32[samples, r]: one subspace that holds every pair nearly whole; most speech fails here already."""
    pairs: Samples
    """float32[samples, 4 * 80]: an orthonormal basis a pair, first vectors first."""
    solve: Samples
    """float32[80, 4, samples]: least-squares coefficients (cos low, cos high, sin low, sin high)."""


def _window(samples: int, share: float, rate: int) -> _Window:
    bases = [
        goertzel.tone_basis(np.array(keypad.pair(key)) * (1 + deviation), samples, rate)
        for key in range(16)
        for deviation in DEVIATIONS
    ]
    orthonormal = [goertzel.orthonormal(basis) for basis in bases]
    u, s, _ = np.linalg.svd(np.concatenate(orthonormal, axis=1), full_matrices=False)
    rank = int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), _JOINT_ENERGY)) + 1
    return _Window(
        samples,
        share,
        u[:, :rank].astype(np.float32),
        np.stack(orthonormal, axis=2).reshape(samples, -1).astype(np.float32),
        np.stack([np.linalg.pinv(basis) for basis in bases]).astype(np.float32),
    )


_JOINT_ENERGY = 0.998
_JOINT_SLACK = 0.97
"""The joint test may only turn away what no pair explains, so it asks for a little less than the pair test."""
_WINDOWS_8K = ((40, 0.90), (80, 0.65), (128, 0.55))
"""Samples and least share explained; 5, 10 and 16 ms (measured: no sample leaks at 8 ms of look-back, SNR >= 15 dB)."""


class Gate:
    """Batched judge of windows that end on cell boundaries.

    history: samples that must precede the block in `triggers`.
    reaches: for each window, how many cells a yes reaches back from its end.
    """

    def __init__(self, rate: int = 8000) -> None:
        scale = rate / 8000
        self.rate = rate
        self.cell = round(CELL * scale)
        self._windows = tuple(_window(round(samples * scale), share, rate) for samples, share in _WINDOWS_8K)
        self._floor = g711.amplitude(FLOOR_DBM0) ** 2 / 2
        self.history = max(window.samples for window in self._windows)
        # A tone that begins inside a window is seen late by up to a cell and by what the share forgives.
        self.reaches = tuple(-(-window.samples // self.cell) + 2 for window in self._windows)

    def triggers(self, audio: Samples) -> tuple[Flags, ...]:
        """Judge `audio` float32[n, history + length], length a multiple of the cell.

        Returns for each window bool[n, length / cell]: does the window that ends with this cell look like a key?
        """
        n, total = audio.shape
        cells = (total - self.history) // self.cell
        return tuple(self._judge(window, audio, n, cells) for window in self._windows)

    def _judge(self, window: _Window, audio: Samples, n: int, cells: int) -> Flags:
        start = self.history + self.cell - window.samples
        view = goertzel.frames(audio[:, start:], window.samples, self.cell)
        energy = np.einsum("ncs,ncs->nc", view, view)
        yes = energy > self._floor * window.samples
        found = np.flatnonzero(yes)
        if not found.size:
            return np.asarray(yes, np.bool_)
        x = view[found // cells, found % cells]
        power = energy.reshape(-1)[found]
        near = np.square(x @ window.joint).sum(axis=1) >= _JOINT_SLACK * window.share * power
        keep = np.flatnonzero(near)
        if keep.size:
            keep = keep[self._explained(window, x[keep], power[keep])]
        yes = np.zeros(n * cells, np.bool_)
        yes[found[keep]] = True
        return yes.reshape(n, cells)

    def _explained(self, window: _Window, x: Samples, power: Samples) -> NDArray[np.intp]:
        shares = np.square(x @ window.pairs).reshape(len(x), 4, -1).sum(axis=1)
        best = shares.argmax(axis=1)
        passed = np.flatnonzero(shares[np.arange(len(x)), best] >= window.share * power)
        if not passed.size:
            return passed
        c = np.square(np.einsum("nks,ns->nk", window.solve[best[passed]], x[passed]))
        low, high = c[:, 0] + c[:, 2], c[:, 1] + c[:, 3]
        balanced = np.minimum(low, high) >= WEAKER_TONE * (low + high)
        return np.asarray(passed[balanced], np.intp)
