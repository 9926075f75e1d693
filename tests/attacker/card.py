"""An attacker of whole cards: he has the BIN, the last four and Luhn's rule, and hears six keys behind the mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.attacker.trained import Named

HIDDEN = 6
"""Digits 7 to 12 of a 16-digit card; every other one of them counts double in Luhn's sum."""
_DOUBLE = np.array([sum(divmod(2 * d, 10)) for d in range(10)])
CANDIDATES = 10 ** (HIDDEN - 1)


def ranks(named: Named, cards: int = 200, seed: int = 11) -> NDArray[np.float64]:
    """float64[cards]: where each true card stands among the 100,000 that BIN, last four and Luhn leave, from 0 (first
    guess) to 1 (last); 0.5 in the mean for one who knows nothing."""
    rng = np.random.default_rng(seed)
    belief = np.log(named.odds + 1e-4)
    luhn = np.zeros(1, np.int64)
    for position in range(HIDDEN):
        weight = _DOUBLE if position % 2 == 0 else np.arange(10)
        luhn = (luhn[:, None] + weight).ravel() % 10
    found = []
    for _ in range(cards):
        keys = rng.integers(0, len(named.digits), HIDDEN)
        score, true, index = np.zeros(1), 0.0, 0
        for key in keys:
            score = (score[:, None] + belief[key]).ravel()
            digit = int(named.digits[key])
            true += belief[key, digit]
            index = index * 10 + digit
        valid = luhn == luhn[index]
        better = np.count_nonzero(score[valid] > true + 1e-9)
        equal = np.count_nonzero(np.abs(score[valid] - true) <= 1e-9)
        found.append((better + (equal - 1) / 2) / (CANDIDATES - 1))
    return np.array(found)
