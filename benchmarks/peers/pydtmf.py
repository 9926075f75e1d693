"""PyDTMF (GPL), a package in pure Python, with its defaults."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def decode(samples: NDArray[np.int16]) -> str:
    """The keys that it hears in int16[n] at 8 kHz. Raises ImportError where it is missing."""
    import PyDTMF

    found, _ = PyDTMF.from_pcm(samples.tolist(), sample_rate=8000, channels=1)
    return "".join(letter for letter in found if letter in "0123456789ABCD*#")
