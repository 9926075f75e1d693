"""The detectors with their networks, as the scanner uses them and `benchmarks.residue_training` trains them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import residue, wholekey
from dsp.network import Events, Find
from mediaproxy.scan import weights

Block = NDArray[np.float32]

RATE: Final = 8000
BAND_HZ: Final = (640.0, 1780.0)
"""The keypad's tones, 1.8 % off too. Hum, an offset, dial and ringback tones, our own flat tone, and what is above lie
outside: beside a key as loud as itself they would hide it."""
OUTSIDE_DB: Final = 40.0


def whole_keys(audio: Block, threshold: float = 0.0) -> list[Find]:
    """The whole keys in float32[n] at 8000 Hz whose score is over `threshold`; one may be found twice.

    In the audio as it is, where codecs leave more to tell a key by, and in its band, where hum hides nothing.
    """
    return [find for name in WHOLE for find in _finds(name, audio, threshold)]


def residues(audio: Block, threshold: float = 0.0) -> list[Find]:
    """The residues in float32[n] at 8000 Hz whose score is over `threshold`."""
    return _finds("residue", audio, threshold)


def _finds(name: str, audio: Block, threshold: float) -> list[Find]:
    return weights.network(name).finds(EVENTS[name](audio), threshold)


def band(audio: Block) -> Block:
    """Only the keypad's band of float32[n]."""
    from scipy.signal import sosfilt  # takes most of a second, which only those who look need

    return np.asarray(sosfilt(_filter(), audio), np.float32)


@cache
def _filter() -> NDArray[np.float64]:
    from scipy.signal import ellip

    return np.asarray(ellip(5, 1.0, OUTSIDE_DB, BAND_HZ, "bandpass", fs=RATE, output="sos"))


EVENTS: Final[dict[str, Callable[[Block], Events]]] = {
    "residue": residue.events,
    "wholekey": wholekey.events,
    "wholekey-band": lambda audio: wholekey.events(band(audio)),
}
"""What each network judges."""
WHOLE: Final = ("wholekey", "wholekey-band")
