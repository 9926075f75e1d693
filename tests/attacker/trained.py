"""A trained attacker: forests on everything an agent's ear gets around a key whose time he knows.

Features: how well each digit's tone pair fits what is not flat tone, the energy at each keypad frequency in five
stretches, and when the flat tone begins and ends. It shares no code with the masker.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier

from dsp import g711
from mediaproxy.demo import attacker

Octets = NDArray[np.uint8]
_HZ = np.array(attacker.LOW + attacker.HIGH)
_AFTER = 64 + 320
"""Samples after a key that belong to it behind the mask: the look-back and the mask's hang."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Shares of test keys named. `keys`: how many were tested."""

    masked: float
    unmasked: float
    residue: float
    keys: int

    @property
    def controls_hold(self) -> bool:
        return self.unmasked >= 0.99 and self.residue >= 0.95


def features(octets: Octets, marks: NDArray[np.int64], struck: NDArray[np.bool_], after: int) -> NDArray[np.float64]:
    """float64[k, n] for keys at `marks` int[k, 2]; struck: bool, samples known to be flat tone or silence."""
    audio = g711.decode(octets, g711.PCMU).astype(np.float64)
    rows = []
    for start, end in marks:
        stop = min(end + after, len(octets))
        fit = attacker.scores(audio, start, stop, struck)
        free = np.where(struck[start:stop], 0.0, audio[start:stop])
        bands = []
        for piece in np.array_split(free, 5):
            turn = np.exp(-2j * np.pi * np.outer(_HZ, np.arange(len(piece))) / 8000)
            bands.append(np.log10(np.abs(turn @ (piece * np.hanning(len(piece)))) + 1e-6))
        around = struck[max(start - 200, 0) : stop]
        edges = np.flatnonzero(np.diff(around.astype(np.int8)))
        first, last = (edges[0], edges[-1]) if edges.size else (-1, -1)
        share = fit / (fit.sum() + 1e-12)
        best = (np.arange(len(fit)) == fit.argmax()).astype(float)
        rows.append(
            np.r_[best, share, np.log10(fit + 1e-9), *bands, first, last, around.sum(), edges.size, start % 160]
        )
    return np.array(rows)


def recover(
    sent: Octets, heard: Octets, keys: NDArray[np.int64], marks: NDArray[np.int64], flat: tuple[float, float]
) -> Recovery:
    """Train on half of the keys, test on the other half; likewise the controls.

    sent: uint8[n]; heard: uint8[>= n], 8 ms later; keys: int[k]; marks: int[k, 2] in `sent`; flat: Hz and dBm0.
    """
    rng = np.random.default_rng(5)
    struck = attacker.flat_tone(heard, *flat)
    nothing = np.zeros(len(heard), np.bool_)
    delayed = np.concatenate([np.full(64, 0xFF, np.uint8), sent, np.full(len(heard), 0xFF, np.uint8)])[: len(heard)]
    leaky, leaky_struck = heard.copy(), struck.copy()
    for start, end in marks:
        at = int(rng.integers(start, end - 16)) + 64
        piece = slice(at, at + 16)  # 2 ms of the key as it was
        leaky[piece] = delayed[piece]
        leaky_struck[piece] = False
    order = rng.permutation(len(keys))
    half = len(keys) // 2
    train, test = order[:half], order[half:]

    def named(octets: Octets, hidden: NDArray[np.bool_]) -> float:
        x = features(octets, marks, hidden, _AFTER)
        forest = ExtraTreesClassifier(200, max_features=0.5, random_state=1, n_jobs=1).fit(x[train], keys[train])
        return float(np.mean(forest.predict(x[test]) == keys[test]))

    return Recovery(named(heard, struck), named(delayed, nothing), named(leaky, leaky_struck), len(test))
