"""What is left of a key in a recording: a few milliseconds are enough to read it, so a few must be found.

Independent of the live gate and decoder. Windows of 2.5 ms are fitted by least squares with the sixteen pairs at their
nominal frequencies; where fits follow on each other they are an event. What the event looks like (how well a pair
fits, over how long, how abruptly it begins and ends, whether one sinusoid would do) is scored by a small network:
speech makes as good fits, but it swells and fades, and it goes on as something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711, goertzel, keypad
from dsp.network import Events

Samples = NDArray[np.float32]
Index = NDArray[np.intp]
Features = NDArray[np.float64]

RATE: Final = 8000
WINDOW: Final = 20
"""2.5 ms: fits into a residue of 3 ms wherever the hops fall."""
HOP: Final = 4
FLOOR_DBM0: Final = -44.0
JOINT: Final = 0.95
"""Least share of a window's energy in the subspace of all pairs: 95 % of the windows of speech have less."""
FIT: Final = 0.94
"""Least share that one pair explains."""
WEAKER: Final = 0.03
"""Least share of the pair's power in its weaker tone: 15 dB."""
APART: Final = 3
"""Hops: windows of one event lie no further apart."""
LONG: Final = (24, 32, 48, 64, 96, 128)
"""Samples over which an event is fitted once more, the longest that it fills."""
SIDE: Final = 48
"""6 ms before and after, where the edges are judged."""
MARGIN: Final = 160
"""Samples of context that an event needs on either side."""
_BATCH: Final = 8192
_FOURS: Final = np.repeat(np.eye(16, dtype=np.float32), 4, axis=0)
NAMES: Final = (
    "length", "best", "mean", "twist", "level", "before_least", "before_mean", "before_single", "before_single_mean",
    "after_least", "after_mean", "after_single", "after_single_mean", "alone", "long", "fitted", "dense",
)  # fmt: skip
"""What a feature is. Shares are logarithms of what is left unexplained, levels dBm0, contrasts dB."""


def events(samples: Samples) -> Events:
    """Every event in float32[n] at 8000 Hz, with what the network judges it by."""
    zeros = np.zeros(MARGIN, np.float32)
    audio = np.concatenate([zeros, np.asarray(samples, np.float32), zeros])
    at, facts = _fits(audio)
    if not at.size:
        return Events.none(len(NAMES))
    first = np.flatnonzero(np.r_[True, np.diff(at) > APART])
    last = np.r_[first[1:], at.size] - 1
    start, end = at[first] * HOP, at[last] * HOP + WINDOW
    features = _features(audio, at, facts, first, last)
    return Events(start - MARGIN, end - MARGIN, features[:, NAMES.index("level")], features)


def _fits(audio: Samples) -> tuple[Index, Features]:
    """(window number, float64[n, 4]: share of the best pair, of its weaker tone, of the best sinusoid, energy)."""
    bank = _bank()
    windows = np.lib.stride_tricks.sliding_window_view(audio, WINDOW)[::HOP]
    floor = g711.amplitude(FLOOR_DBM0) ** 2 / 2 * WINDOW
    numbers, facts = [np.zeros(0, np.intp)], [np.zeros((0, 4))]
    for begin in range(0, len(windows), _BATCH):
        x = np.ascontiguousarray(windows[begin : begin + _BATCH])
        energy = np.einsum("ij,ij->i", x, x)
        near = np.flatnonzero(energy > floor)
        x, energy = x[near], energy[near]
        part = x @ bank.joint
        keep = np.einsum("ij,ij->i", part, part) > JOINT * energy
        x, energy, near = x[keep], energy[keep], near[keep]
        share = np.square(x @ bank.pairs) @ _FOURS
        best = share.argmax(axis=1)
        share = share[np.arange(len(x)), best] / energy
        keep = share > FIT
        x, energy, near, share, best = x[keep], energy[keep], near[keep], share[keep], best[keep]
        part = np.square(np.einsum("nks,ns->nk", bank.solve[best], x))
        low, high = part[:, 0] + part[:, 1], part[:, 2] + part[:, 3]
        weaker = np.minimum(low, high) / (low + high)
        alone = _single(x, bank.sines) if len(x) else share
        keep = weaker > WEAKER
        numbers.append(near[keep] + begin)
        facts.append(np.stack([share, weaker, alone, energy], axis=1)[keep].astype(np.float64))
    return np.concatenate(numbers), np.concatenate(facts)


def _features(audio: Samples, at: Index, facts: Features, first: Index, last: Index) -> Features:
    start, end = at[first] * HOP, at[last] * HOP + WINDOW
    count = (last - first + 1).astype(np.float64)
    left = np.log10(1.0001 - facts[:, 0])
    best = np.minimum.reduceat(left, first)
    level = _db(2 * np.maximum.reduceat(facts[:, 3], first) / WINDOW)
    alone = np.maximum.reduceat(np.where(left <= np.repeat(best, last - first + 1), facts[:, 2], -1), first)
    fitted, long = _fitted(audio, start, end)
    columns = [
        (end - start).astype(np.float64), best, np.add.reduceat(left, first) / count,
        10 * np.log10(np.add.reduceat(facts[:, 1], first) / count), level,
        *_side(audio, start - SIDE, level), *_side(audio, end - 2, level),
        np.log10(1.0001 - alone), np.log10(1.0001 - long), fitted, count / (at[last] - at[first] + 1),
    ]  # fmt: skip
    return np.stack(columns, axis=1)


def _side(audio: Samples, begin: Index, level: Features) -> tuple[Features, Features, Features, Features]:
    """Of the 6 ms beside each event: the contrast to its quietest 2 ms and to the mean, how well one sinusoid fits."""
    x = audio[begin[:, None] + np.arange(SIDE + 2)]
    brief = np.square(np.lib.stride_tricks.sliding_window_view(x, 16, axis=1)[:, ::4]).mean(axis=2)
    quiet = _db(2 * brief)
    windows = np.lib.stride_tricks.sliding_window_view(x, 24, axis=1)[:, ::4]
    single = _single(np.ascontiguousarray(windows).reshape(-1, 24), _bank().sides).reshape(len(x), -1)
    left = np.log10(1.0001 - single)
    return level - quiet.min(axis=1), level - quiet.mean(axis=1), left.min(axis=1), left.mean(axis=1)


def _fitted(audio: Samples, start: Index, end: Index) -> tuple[Features, Features]:
    """(samples, share): over the longest window that each event fills, at the best of its ends and middle."""
    length = end - start + HOP
    fitted = np.array(LONG)[np.searchsorted(LONG, length, side="right").clip(1) - 1]
    share = np.zeros(len(start))
    for samples in np.unique(fitted):
        rows = np.flatnonzero(fitted == samples)
        first = np.stack([start[rows], np.maximum(start[rows], end[rows] - samples), (start[rows] + end[rows]) // 2])
        first[2] -= samples // 2
        x = audio[first.ravel()[:, None] + np.arange(samples)]
        explained = np.add.reduceat(np.square(x @ _detuned(int(samples))), np.arange(0, 4 * 144, 4), axis=1).max(axis=1)
        share[rows] = (explained / (np.einsum("ij,ij->i", x, x) + 1e-12)).reshape(3, -1).max(axis=0)
    return fitted.astype(np.float64), np.minimum(share, 1.0)


def _single(x: Samples, sines: Samples) -> Features:
    """Share of the energy of float32[n, window] that the best sinusoid explains."""
    energy = np.einsum("ij,ij->i", x, x) + np.float32(1e-12)
    power = np.square(x @ sines)
    power = (power[:, ::2] + power[:, 1::2]).max(axis=1)
    return np.asarray(np.minimum(power / energy, 1.0), np.float64)


def _db(square: NDArray[np.floating]) -> Features:
    """dBm0 of squared amplitudes."""
    return np.asarray(10 * np.log10(square + 1e-10) - 20 * np.log10(g711.AMPLITUDE_0DBM0), np.float64)


@dataclass(frozen=True, slots=True)
class _Bank:
    """Orthonormal bases side by side: of the span of all pairs, of each pair, of sinusoids; pairs' pseudo-inverses."""

    joint: Samples
    pairs: Samples
    solve: Samples
    sines: Samples
    sides: Samples


@cache
def _bank() -> _Bank:
    spread = [pair * (1 + np.array(off)) for pair in keypad.pairs() for off in _OFFSETS]
    every = np.concatenate([goertzel.tone_basis(pair, WINDOW, RATE) for pair in spread], axis=1)
    vectors, values, _ = np.linalg.svd(every, full_matrices=False)
    rank = int(np.searchsorted(np.cumsum(values**2) / np.sum(values**2), 0.999)) + 1
    # tone_basis has both cosines first
    solve = [np.linalg.pinv(goertzel.tone_basis(pair, WINDOW, RATE)[:, [0, 2, 1, 3]]) for pair in keypad.pairs()]
    return _Bank(
        vectors[:, :rank].astype(np.float32), _bases(list(keypad.pairs()), WINDOW), np.stack(solve).astype(np.float32),
        _sinusoids(WINDOW), _sinusoids(24),
    )  # fmt: skip


_OFFSETS: Final = [(low, high) for low in (-0.015, 0.0, 0.015) for high in (-0.015, 0.0, 0.015)]
"""Q.24 accepts tones up to 1.8 % off."""


@cache
def _detuned(window: int) -> Samples:
    return _bases([pair * (1 + np.array(off)) for pair in keypad.pairs() for off in _OFFSETS], window)


def _sinusoids(window: int) -> Samples:
    return _bases([np.array([hz]) for hz in np.arange(200.0, 3400.0, 60.0)], window)


def _bases(tones: list[NDArray[np.float64]], window: int) -> Samples:
    parts = [goertzel.orthonormal(goertzel.tone_basis(tone, window, RATE)) for tone in tones]
    return np.concatenate(parts, axis=1).astype(np.float32)
