"""A sample of an archive that nobody can scan whole: drawn by a seed, from every stratum by its share, and what a
sample without a find says of the rest."""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from mediaproxy.scan.files import Place

Strata = Literal["folder", "none"]


class Plan(msgspec.Struct, frozen=True):
    """How a sample was drawn. strata: of each, (how many files there were, how many were drawn)."""

    population: int
    size: int
    seed: int
    confidence: float
    by: Strata
    strata: dict[str, tuple[int, int]]


def size_for(bound: float, confidence: float) -> int:
    """How many files without a find show, at `confidence`, that less than `bound` of all have one."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - bound))


def upper(found: int, size: int, confidence: float) -> float:
    """The upper limit of a rate of which a sample of `size` shows `found` (Clopper and Pearson 1934, one-sided).

    For draws without replacement, as here, it is on the safe side.
    """
    return 1.0 if found >= size else _beta(found + 1, size - found, confidence)


def interval(found: int, size: int, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided limits of a rate (Clopper and Pearson 1934)."""
    if not size:
        return 0.0, 1.0
    rest = (1 - confidence) / 2
    low = 0.0 if not found else _beta(found, size - found + 1, rest)
    return low, 1.0 if found == size else _beta(found + 1, size - found, 1 - rest)


def _beta(a: int, b: int, share: float) -> float:
    from scipy.special import betaincinv  # only where there is something to tell

    return float(betaincinv(a, b, share))


def draw(places: Sequence[Place], size: int, seed: int, by: Strata, confidence: float) -> tuple[list[Place], Plan]:
    """The sample, in the order of `places`, and how it was drawn.

    Systematic, from a random start through the strata one after another, each in a random order: every file is drawn
    with the same chance, as the limit asks for, and every stratum by its share, to within one file.
    """
    size, rng = min(size, len(places)), np.random.default_rng(seed)
    names = [posixpath.dirname(place.path) if by == "folder" else "" for place in places]
    mixed, start = rng.permutation(len(places)), rng.random()
    order = sorted(range(len(places)), key=lambda number: (names[number], mixed[number]))
    chosen = sorted(order[int((start + i) * len(places) / size)] for i in range(size))
    there, drawn = Counter(names), Counter(names[number] for number in chosen)
    strata = {name or "all": (there[name], drawn[name]) for name in sorted(there)}
    return [places[number] for number in chosen], Plan(len(places), size, seed, confidence, by, strata)
