"""A sample of an archive that nobody can scan whole: drawn by a seed, from every stratum by its share, and what a
sample without a find says of the rest."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from scipy.special import betaincinv

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
    return 1.0 if found >= size else float(betaincinv(found + 1, size - found, confidence))


def interval(found: int, size: int, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided limits of a rate (Clopper and Pearson 1934)."""
    if not size:
        return 0.0, 1.0
    rest = (1 - confidence) / 2
    low = 0.0 if not found else float(betaincinv(found, size - found + 1, rest))
    return low, 1.0 if found == size else float(betaincinv(found + 1, size - found, 1 - rest))


def draw(places: Sequence[Place], size: int, seed: int, by: Strata, confidence: float) -> tuple[list[Place], Plan]:
    """The sample, in the order of `places`, and how it was drawn: each stratum by its share, one file at least."""
    groups: dict[str, list[int]] = {}
    for number, place in enumerate(places):
        groups.setdefault(posixpath.dirname(place.path) if by == "folder" else "", []).append(number)
    size = min(max(size, len(groups)), len(places))
    exact = {name: size * len(group) / len(places) for name, group in groups.items()}
    count = {name: max(1, math.floor(share)) for name, share in exact.items()}
    order = sorted(groups, key=lambda name: (count[name] - exact[name], name))
    at = 0
    while sum(count.values()) < size:  # by the largest remainder
        name = order[at % len(order)]
        count[name] += count[name] < len(groups[name])
        at += 1
    chosen: list[int] = []
    for number, name in enumerate(sorted(groups)):
        rng = np.random.default_rng((seed, number))
        chosen += rng.choice(groups[name], count[name], replace=False).tolist()
    strata = {name or "all": (len(groups[name]), count[name]) for name in sorted(groups)}
    drawn = [places[number] for number in sorted(chosen)]
    return drawn, Plan(len(places), len(drawn), seed, confidence, by, strata)
