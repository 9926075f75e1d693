"""An attacker who reads rhythm: how long it takes from key to key tells which keys they are.

Callers are modelled by Fitts's law on a telephone's keypad (time grows with the logarithm of the distance; a tempo of
each caller's own; a spread of 40 ms), or as nobody keys: a rhythm that spells the digits out. The classifier is trained
on other callers of the same kind, seen in the same way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

Times = NDArray[np.float64]
"""float64[callers, digits], seconds."""
_AT = np.array([(1, 3), *((i % 3, i // 3) for i in range(9))], float)
"""Column and row of each digit's key."""
_DISTANCE = np.linalg.norm(_AT[:, None] - _AT[None], axis=2)
_AROUND = 3


def people(callers: int, digits: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Times]:
    """(digits, when each was keyed)."""
    keyed = rng.integers(0, 10, (callers, digits))
    way = 0.18 + 0.11 * np.log2(_DISTANCE[keyed[:, :-1], keyed[:, 1:]] / 0.8 + 1)
    apart = way * rng.lognormal(0, 0.2, (callers, 1)) + rng.normal(0, 0.04, way.shape)
    return keyed, _from(np.maximum(apart, 0.08), rng)


def spelled(callers: int, digits: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Times]:
    """(digits, when each was keyed) by callers whose pause before each key is its digit in steps of 50 ms."""
    keyed = rng.integers(0, 10, (callers, digits))
    return keyed, _from(0.12 + 0.05 * keyed[:, 1:] + rng.normal(0, 0.004, (callers, digits - 1)), rng)


def _from(apart: Times, rng: np.random.Generator) -> Times:
    return np.cumsum(np.concatenate([rng.uniform(0, 3, (len(apart), 1)), apart], axis=1), axis=1)


def repeats(keyed: NDArray[np.int64], seen: Times) -> float:
    """How well the pairs of the same key can be told from others: area under the curve, 0.5 where not at all."""
    same = (keyed[:, 1:] == keyed[:, :-1]).ravel()
    return float(
        roc_auc_score(same, -(np.diff(seen, axis=1) / np.diff(seen, axis=1).mean(axis=1, keepdims=True)).ravel())
    )


def named(keyed: NDArray[np.int64], seen: Times) -> float:
    """Share of digits that are named from the times at which they were seen; chance is 0.1. Half of the callers train."""
    half, (callers, digits) = len(keyed) // 2, keyed.shape
    apart = np.diff(seen, axis=1)
    padded = np.pad(apart, ((0, 0), (_AROUND, _AROUND)))
    features = np.stack([padded[:, i : i + 2 * _AROUND] for i in range(digits)], axis=1)
    features = np.concatenate(
        [features, np.broadcast_to(apart.mean(axis=1)[:, None, None], (callers, digits, 1))], axis=2
    )
    model = HistGradientBoostingClassifier(max_iter=120, random_state=0)
    model.fit(features[:half].reshape(-1, features.shape[2]), keyed[:half].ravel())
    return float(model.score(features[half:].reshape(-1, features.shape[2]), keyed[half:].ravel()))
