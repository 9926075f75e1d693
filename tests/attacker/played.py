"""An attacker of what a browser has played: audio that has been coded, jitter-buffered and stretched, so that nobody
knows to the sample where a key was. He finds each key by the flat tone (or, unmasked, by its own), takes tones,
mixtures and spectrum in short steps over it, how long and how loud it is, and most closely what is at its very start;
he learns from keys whose digits he is told, in three ways that vote.

He shares no code with the masker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from dsp import g711
from mediaproxy.demo import attacker
from tests.attacker.trained import MIXTURES, TONES

Audio = NDArray[np.float64]
RATE: Final = 8000
_STEP, _WINDOW = 40, 160
"""Samples: a look every 5 ms at 20 ms."""
_BEFORE, _AFTER = 320, 640
"""Samples before and after a key that may speak of it."""
_LOOKS: Final = 24
_LEAD, _PIECE = 200, 16
"""Samples before a start that are looked at, and of a fit at it: 2 ms."""
CHANCE: Final = 0.1


def narrow(audio: NDArray[np.float32], rate: int) -> Audio:
    """float64[n] at 8 kHz."""
    return np.asarray(resample_poly(audio.astype(np.float64), RATE, rate), np.float64)


def through_opus(octets: NDArray[np.uint8]) -> Audio:
    """What a browser would hear of this µ-law if nothing were masked: coded as Flattone does, decoded by FFmpeg."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = RATE, "mono", "s16", 24_000
    encoder.options = {"vbr": "off", "application": "voip"}
    decoder = av.CodecContext.create("libopus", "r")
    pcm = g711.DECODE_INT16[g711.PCMU][octets]
    found = []
    for at in range(0, len(pcm) - 159, 160):
        frame = av.AudioFrame.from_ndarray(pcm[None, at : at + 160], format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in encoder.encode(frame):
            found += [part.to_ndarray().reshape(-1, 2)[:, 0] for part in decoder.decode(packet)]
    return narrow(np.concatenate(found).astype(np.float32) / np.float32(32768), 48_000)


def presses(audio: Audio, hz: float, count: int = 0, least: float = 0.03) -> list[tuple[int, int]]:
    """(start, end) of every stretch of `hz`, or of any loud sound where it is 0; `count`: the last so many."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, _WINDOW)[::_STEP]
    power = np.square(frames).mean(axis=1)
    loud = power > 1e-5
    if hz:
        turn = np.exp(-2j * np.pi * hz * np.arange(_WINDOW) / RATE)
        share = 2 * np.square(np.abs(frames @ turn)) / (_WINDOW**2 * (power + 1e-12))
        loud &= share > 0.5
    found: list[list[int]] = []
    for a, b in attacker.runs(loud):
        if found and a - found[-1][1] <= 4:  # a gap of 20 ms is none
            found[-1][1] = b
        else:
            found.append([a, b])
    kept = [(_STEP * a, _STEP * b + _WINDOW) for a, b in found if _STEP * (b - a) >= least * RATE]
    return kept[-count:] if count else kept


def features(audio: Audio, where: list[tuple[int, int]]) -> NDArray[np.float64]:
    """float64[k, features] of each press."""
    hz = np.concatenate([TONES, MIXTURES])
    turn = np.exp(-2j * np.pi * np.outer(np.arange(_WINDOW), hz) / RATE)
    shape = np.hanning(_WINDOW)
    padded = np.concatenate([np.zeros(_BEFORE), audio, np.zeros(_AFTER + RATE)])
    rows = []
    for start, end in where:
        cut = padded[start : end + _BEFORE + _AFTER]
        at = np.linspace(0, len(cut) - _WINDOW, _LOOKS).astype(int)
        looks = np.stack([cut[a : a + _WINDOW] * shape for a in at])
        tones = np.log10(np.abs(looks @ turn) + 1e-4)
        spectrum = np.abs(np.fft.rfft(cut, 4096)) ** 2
        bands = np.log10(np.add.reduceat(spectrum[:1024], np.arange(0, 1024, 16)) + 1e-6)
        middle = cut[_BEFORE:-_AFTER] if len(cut) > _BEFORE + _AFTER + 200 else cut
        fits = attacker.scores(middle, 0, len(middle), np.zeros(len(middle), np.bool_))
        best = np.argmax(fits) == np.arange(10)
        whole = [end - start, np.log10(np.square(middle).mean() + 1e-9), start % 480]
        parts = (tones.ravel(), tones.max(axis=0), tones.mean(axis=0), bands, np.log10(fits + 1e-9), best, whole)
        rows.append(np.concatenate(parts))
    return np.array(rows)


def starts(audio: Audio, where: list[tuple[int, int]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(float64[k, a], float64[k, b]) of the first milliseconds of each press: how each digit's pair fits there, and how
    it looks."""
    padded = np.concatenate([np.zeros(_LEAD), audio, np.zeros(RATE)])
    bases = attacker.bases(_PIECE)
    fitted, looked = [], []
    for start, _ in where:
        near = np.abs(padded[start + _LEAD - _WINDOW : start + _LEAD + 2 * _WINDOW])
        at = start + _LEAD - _WINDOW + int(np.argmax(near > 0.15 * near.max()))
        pieces = np.stack([padded[at + shift : at + shift + _PIECE] for shift in range(-6, 7)])
        fit = np.square(np.einsum("dsf,ns->ndf", bases, pieces)).sum(axis=2)
        fit /= np.square(pieces).sum(axis=1, keepdims=True) + 1e-12
        fitted.append(np.concatenate([np.log10(1.0001 - np.clip(fit, 0, 1)).ravel(), fit.argmax(axis=1)]))
        cut = padded[at - 24 : at + 56]
        parts = [cut, cut / (np.abs(cut).max() + 1e-9)]
        for first, last in ((-8, 24), (0, 20), (0, 32), (-16, 48)):
            part = padded[at + first : at + last] * np.hanning(last - first)
            level = np.log10(np.abs(np.fft.rfft(part, 256))[:64] + 1e-4)
            parts += [level, level - level.mean()]
        looked.append(np.concatenate(parts))
    return np.array(fitted), np.array(looked)


def grouped(
    where: list[tuple[int, int]], counts: list[int], pitch: int, starts: list[int] | None = None
) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Every key of groups in which one comes `pitch` samples after the other, with half a second or more of nothing
    between groups; (where it is, which one it is). A key that no start of flat tone shows, since it went on from the one
    before, is where it must be. Groups that do not fit `counts` are left out. starts: where each group began as it was
    said, from whatever moment on; without them a missing group raises ValueError.
    """
    groups: list[list[tuple[int, int]]] = []
    for one in where:
        if groups and one[0] - groups[-1][-1][1] < RATE // 2:
            groups[-1].append(one)
        else:
            groups.append([one])
    groups = [group for group in groups if group[-1][1] - group[0][0] > min(counts) * pitch // 2]
    if starts is None and len(groups) != len(counts):
        raise ValueError(f"{len(groups)} groups of keys were heard, {len(counts)} were keyed")
    kept: list[tuple[int, int]] = []
    which: list[int] = []
    first = 0
    for group, count in zip(_matched(groups, starts), counts, strict=True):
        span = group[-1][1] - group[0][0] if group else 0
        if (count - 1) * pitch < span < (count + 2) * pitch:
            at = group[0][0] - pitch
            for i in range(count):
                at += pitch
                nearest = min((start - at for start, _ in group), key=abs)
                at += nearest if abs(nearest) < pitch // 4 else 0
                kept.append((at, at + pitch // 2))
                which.append(first + i)
        first += count
    return kept, np.array(which, np.int64)


def _matched(groups: list[list[tuple[int, int]]], starts: list[int] | None) -> list[list[tuple[int, int]]]:
    """The group of each start, empty where there is none: by the shift between both clocks that fits most."""
    if starts is None:
        return groups
    at = np.array([group[0][0] for group in groups])
    best: list[list[tuple[int, int]]] = []
    most = -1
    for shift in [a - s for a in at[:3] for s in starts[:3]]:
        near = [int(np.argmin(np.abs(at - start - shift))) for start in starts]
        fits = [abs(int(at[i]) - start - shift) < RATE // 2 for i, start in zip(near, starts, strict=True)]
        if sum(fits) > most:
            most, best = sum(fits), [groups[i] if good else [] for i, good in zip(near, fits, strict=True)]
    return best


@dataclass(frozen=True, slots=True)
class Named:
    """share: of keys named by who has learnt from the others; matched: by the best-fitting pair alone; keys: of how many."""

    share: float
    matched: float
    keys: int

    @property
    def worst(self) -> float:
        return max(self.share, self.matched)

    def bound(self, sigmas: float = 3.3) -> float:
        """What chance alone stays below, but for one time in a thousand."""
        return CHANCE + sigmas * float(np.sqrt(CHANCE * (1 - CHANCE) / self.keys))


def attack(audio: Audio, where: list[tuple[int, int]], digits: NDArray[np.int64], seed: int = 1) -> Named:
    """Name every key, each by what was learnt from the others (five parts). where: as many as digits int[k]; each digit
    as often as any other, or chance is more than a tenth."""
    whole = features(audio, where)
    fitted, looked = starts(audio, where)
    start = np.hstack([fitted, looked])
    trees = ExtraTreesClassifier(300, max_features=0.2, min_samples_leaf=2, random_state=seed, n_jobs=1)
    line = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    vectors = make_pipeline(StandardScaler(), SVC(C=10))
    odds = cross_val_predict(trees, np.hstack([whole, start]), digits, cv=5, method="predict_proba")
    odds += cross_val_predict(line, start, digits, cv=5, method="predict_proba")
    marks = np.exp(cross_val_predict(vectors, fitted, digits, cv=5, method="decision_function"))
    odds += marks / marks.sum(axis=1, keepdims=True)
    fits = [attacker.scores(audio, max(a, 0), min(b, len(audio)), np.zeros(len(audio), np.bool_)) for a, b in where]
    kinds = np.unique(digits)
    named = kinds[np.argmax(odds, axis=1)]
    return Named(float(np.mean(named == digits)), float(np.mean(np.argmax(fits, axis=1) == digits)), len(digits))
