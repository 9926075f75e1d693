"""A small network that scores events: its weights are made by `python -m benchmarks.residue_training`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]
Index = NDArray[np.intp]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Events:
    """Places that may be something. start, end: int[n], samples; level: float64[n], dBm0; features: float64[n, k], what
    they are judged by."""

    start: Index
    end: Index
    level: Features
    features: Features

    @classmethod
    def none(cls, features: int) -> Events:
        """No events of so many features."""
        nowhere = np.zeros(0, np.intp)
        return cls(nowhere, nowhere, np.zeros(0), np.zeros((0, features)))


@dataclass(frozen=True, slots=True)
class Find:
    """A place that sounds like a key or a part of one, in samples. Never which key. score: over 0 is a finding."""

    start: int
    end: int
    level_dbm0: float
    score: float


class Network:
    """Layers of weights with rectifiers between them, after the features are centred and scaled.

    The score is the logarithm of the odds less the threshold that was chosen with the weights: positive is a finding.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        """middle, scale: float64[k]; layers: their number; weights0: float32[k, m], bias0: float32[m], and so on;
        threshold."""
        self._middle, self._scale = arrays["middle"], arrays["scale"]
        self._layers = [(arrays[f"weights{i}"], arrays[f"bias{i}"]) for i in range(int(arrays["layers"]))]
        self._threshold = float(arrays["threshold"])

    def score(self, features: Features) -> Scores:
        """float64[n] of float64[n, k]."""
        x = np.clip((features - self._middle) / self._scale, -6, 6)
        for number, (weights, bias) in enumerate(self._layers):
            x = x @ weights + bias
            if number + 1 < len(self._layers):
                x = np.maximum(x, 0)
        return np.asarray(x[:, 0] - self._threshold, np.float64)

    def finds(self, events: Events, threshold: float) -> list[Find]:
        """The events whose score is over `threshold`, by time."""
        score = self.score(events.features)
        return [
            Find(int(events.start[i]), int(events.end[i]), float(events.level[i]), float(score[i]))
            for i in np.flatnonzero(score > threshold)
        ]
