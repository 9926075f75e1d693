"""A small network that scores events: its weights are made by `python -m benchmarks.residue_training`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]
Scores = NDArray[np.float64]


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
