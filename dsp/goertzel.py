"""Filter banks as matrices: many windows against many tones in one product, frames[n, block] @ bank[block, k]."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


def frames(audio: Samples, block: int, hop: int) -> Samples:
    """Return a view float32[n, count, block] on `audio` float32[n, length]: windows of `block` samples every `hop`."""
    windows = np.lib.stride_tricks.sliding_window_view(audio, block, axis=1)
    return windows[:, ::hop]


def tone_basis(frequencies: NDArray[np.float64], block: int, rate: int) -> NDArray[np.float64]:
    """Return float64[block, 2 * k]: cosine and sine of each of k frequencies (Hz) over `block` samples."""
    phase = 2 * np.pi / rate * np.outer(np.arange(block) - (block - 1) / 2, frequencies)
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=1)


def orthonormal(basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an orthonormal basis (columns) of the span of `basis` float64[block, k]."""
    q, _ = np.linalg.qr(basis)
    return cast(NDArray[np.float64], q)


def spectrum_bank(frequencies: NDArray[np.float64], window: NDArray[np.float64], rate: int) -> Samples:
    """Return float32[block, 2 * k]: real then imaginary parts of windowed correlations with k tones.

    Scaled so that a sine of amplitude A at a bank frequency gives a magnitude of A.
    """
    block = window.size
    phase = 2 * np.pi / rate * np.outer(np.arange(block), frequencies)
    scale = 2 / window.sum()
    bank = np.concatenate([np.cos(phase), -np.sin(phase)], axis=1) * window[:, None] * scale
    return np.asarray(bank, np.float32)
