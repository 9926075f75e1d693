"""Attackers who know the method and the times of all keys, and learn from keys whose digits they are told.

One fits every digit's tone pair to whatever is not flat tone or silence (`mediaproxy.demo.attacker` strikes and fits
the same way); one grows a forest on those fits, on the spectrum, on tones and their mixtures in short stretches, and
on when the flat tone begins and ends. They share no code with the masker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier

from dsp import g711
from mediaproxy.demo import attacker

Octets = NDArray[np.uint8]
Audio = NDArray[np.float32]
Flags = NDArray[np.bool_]
Values = NDArray[np.float64]
Index = NDArray[np.int64]

TONES: Final = np.array(attacker.LOW + attacker.HIGH)
MIXTURES: Final = np.unique(
    np.round(
        [f for low in attacker.LOW for high in attacker.HIGH for f in (high - low, 2 * low - high, 2 * high - low)]
        + [2 * f for f in attacker.LOW]
    )
)
"""Hz. Where a coder or a rectifier puts what it makes of two tones: differences and third-order products."""
BEFORE: Final = 80
AFTER: Final = 560
"""Samples around a key (behind the mask) that may speak of it: the look-back, a packet, and the tail of the mask."""
_STRETCHES: Final = 5
_BANDS: Final = 40
_PIECE: Final = 160
_SHORTEST: Final = 8


@dataclass(frozen=True, slots=True)
class Scene:
    """n streams of keys: octets uint8[n, length] as heard; marks int[n, k, 2], where the keys lie in them; digits
    int[n, k]; struck: bool[n, length], samples that tell nothing."""

    octets: Octets
    marks: Index
    digits: Index
    struck: Flags


def flat_or_silent(octets: Octets, hz: float, dbm0: float, codec: int = g711.PCMU) -> Flags:
    """bool[n, length]: samples of flat tone, at whatever phase, or of silence: any eight octets in a row that are."""
    t = np.arange(400) / 8000
    table = g711.encode((g711.amplitude(dbm0) * np.sin(2 * np.pi * hz * t)).astype(np.float32), codec)
    words = np.ascontiguousarray(np.stack([np.roll(table, -shift)[:8] for shift in range(400)])).view(np.uint64).ravel()
    quiet = np.full(8, g711.SILENCE[codec], np.uint8).view(np.uint64)
    known = np.unique(np.concatenate([words, quiet]))
    hidden = np.zeros(octets.shape, np.bool_)
    for row, struck in zip(octets, hidden, strict=True):
        grams = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(row, 8)).view(np.uint64)[:, 0]
        at = np.minimum(np.searchsorted(known, grams), len(known) - 1)
        for start in np.flatnonzero(known[at] == grams):
            struck[start : start + 8] = True
    return hidden


def fits(audio: Audio, marks: Index, struck: Flags) -> Values:
    """float64[k, 10]: energy that each digit's pair explains in what is free between the marks of one stream."""
    score = np.zeros((len(marks), 10))
    found: dict[int, list[tuple[int, int]]] = {}
    for k, (start, end) in enumerate(marks):
        for a, b in attacker.runs(~struck[start:end]):
            for at in range(start + a, start + b, _PIECE):
                size = min(_PIECE, start + b - at)
                if size >= _SHORTEST:
                    found.setdefault(size, []).append((k, at))
    for size, places in found.items():
        which, at = np.array(places).T
        pieces = audio[at[:, None] + np.arange(size)].astype(np.float64)
        fit = np.square(np.einsum("dsf,ns->ndf", attacker.bases(size), pieces)).sum(axis=2)
        np.add.at(score, which, fit)
    return score


def features(scene: Scene, codec: int = g711.PCMU) -> Values:
    """float64[n * k, features] of all keys."""
    longest = int((scene.marks[..., 1] - scene.marks[..., 0]).max())
    return np.concatenate([_of_stream(scene, row, longest, codec) for row in range(len(scene.octets))])


def _of_stream(scene: Scene, row: int, longest: int, codec: int) -> Values:
    marks, struck = scene.marks[row], scene.struck[row]
    audio = g711.decode(scene.octets[row], codec)
    span = BEFORE + longest + AFTER
    pad = np.zeros(span, np.float32)
    free = np.concatenate([np.where(struck, 0, audio).astype(np.float32), pad])
    where = np.concatenate([struck, pad.astype(np.bool_)])
    first = np.maximum(marks[:, 0] - BEFORE, 0)
    length = marks[:, 1] - marks[:, 0]
    place = first[:, None] + np.arange(span)
    inside = np.arange(span)[None, :] < (length + BEFORE + AFTER // 2)[:, None]
    cut, hidden = free[place] * inside, where[place]
    fit = fits(audio, np.stack([marks[:, 0], np.minimum(marks[:, 1] + AFTER // 2, len(audio))], axis=1), struck)
    share = fit / (fit.sum(axis=1, keepdims=True) + 1e-12)
    power = np.square(np.abs(np.fft.rfft(cut, axis=1)))
    edges = np.linspace(0, power.shape[1], _BANDS + 1).astype(int)
    bands = np.add.reduceat(power, edges[:-1], axis=1)
    hz = np.concatenate([TONES, MIXTURES])
    turn = np.exp(-2j * np.pi * np.outer(np.arange(span), hz) / 8000).astype(np.complex64)
    whole = np.abs(cut @ turn)
    stretches = []
    for i in range(_STRETCHES):  # of the key's own length
        low, high = (BEFORE + length * i // _STRETCHES)[:, None], (BEFORE + length * (i + 1) // _STRETCHES)[:, None]
        here = np.arange(span)[None, :]
        stretches.append(np.abs((cut * ((here >= low) & (here < high))) @ turn[:, : len(TONES)]))
    switch = np.diff(hidden.astype(np.int8), axis=1, prepend=0) != 0
    count = switch.sum(axis=1)
    begins = np.where(count > 0, switch.argmax(axis=1), -1)
    ends = np.where(count > 0, span - switch[:, ::-1].argmax(axis=1), -1)
    level = np.sqrt(np.square(cut).sum(axis=1) + 1e-12)
    return np.column_stack(
        [
            fit.argmax(axis=1)[:, None] == np.arange(10),
            share,
            np.log10(fit + 1e-9),
            np.log10(bands + 1e-6),
            np.log10(whole + 1e-6),
            np.log10(np.concatenate(stretches, axis=1) + 1e-6),
            begins, ends, ends - begins, count, hidden.sum(axis=1), first % 160, length, level,
        ]
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Named:
    """What an attacker says of the test keys. digits: int[k], the truth; odds: float64[k, 10], what he believes."""

    digits: Index
    odds: Values

    @property
    def share(self) -> float:
        """Share of keys named; where several digits stand first, he has that part of one."""
        return _named(self.odds, self.digits)

    @property
    def surest(self) -> float:
        """Share named of the one key in a hundred of which he is surest."""
        top = np.argsort(-self.odds.max(axis=1), kind="stable")[: max(len(self.digits) // 100, 10)]
        return _named(self.odds[top], self.digits[top])


def _named(odds: Values, digits: Index) -> float:
    first = odds == odds.max(axis=1, keepdims=True)
    return float(np.mean(first[np.arange(len(digits)), digits] / first.sum(axis=1)))


def forest(
    train: Scene, test: Scene, seed: int = 1, trees: int = 120, codec: int = g711.PCMU, use: Flags | None = None
) -> Named:
    """Learn from `train` (those keys that `use`, bool[n, k], says), name the keys of `test`."""
    chosen = np.ones(train.digits.size, np.bool_) if use is None else use.ravel()
    model = ExtraTreesClassifier(trees, max_features=0.3, min_samples_leaf=3, random_state=seed, n_jobs=1)
    model.fit(features(train, codec)[chosen], train.digits.ravel()[chosen])
    odds = np.zeros((test.digits.size, 10))
    odds[:, model.classes_] = model.predict_proba(features(test, codec))
    return Named(test.digits.ravel(), odds)


def matched(test: Scene, codec: int = g711.PCMU) -> Named:
    """Name by the best fit alone; where nothing is left, all digits stand first."""
    odds = []
    for row in range(len(test.octets)):
        marks = np.stack([test.marks[row, :, 0], test.marks[row, :, 1] + AFTER // 4], axis=1)
        odds.append(fits(g711.decode(test.octets[row], codec), marks, test.struck[row]))
    belief = np.concatenate(odds)
    # How sure he is: how far the best fit stands over the next, as a share of all energy found.
    return Named(test.digits.ravel(), belief / (belief.sum(axis=1, keepdims=True) + 1e-6))


def only(scene: Scene, sent: Octets, samples: int, seed: int = 3) -> Scene:
    """A control: the keys of `sent` (uint8[n, length], in time with the scene) hidden but for `samples` of each."""
    rng = np.random.default_rng(seed)
    octets, struck = scene.octets.copy(), scene.struck.copy()
    for row, marks in enumerate(scene.marks):
        for start, end in marks:
            at = int(rng.integers(start, end - samples))
            octets[row, at : at + samples] = sent[row, at : at + samples]
            struck[row, start:end] = True
            struck[row, at : at + samples] = False
    return Scene(octets, scene.marks, scene.digits, struck)
