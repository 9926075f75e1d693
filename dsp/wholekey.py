"""Whole keys in a recording, as it was kept: through MP3, Opus or GSM, faint, off by a few hertz.

Independent of the live gate and decoder, and less strict than the latter: it need not tell a key of 23 ms from one of
40, nor which key it was. Frames of 16 ms in which two tones of one key are most of the energy follow on each other as
an event; how long it lasts, how much the tones explain and how steadily they hold their frequency is scored by a small
network.
"""

from __future__ import annotations

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
WINDOW: Final = 128
HOP: Final = 32
FLOOR_DBM0: Final = -52.0
"""Of either tone: Q.24's twist of 8 dB below -35 dBm0, and what a codec takes."""
SHARE: Final = 0.40
TWIST_DB: Final = 16.0
OFF: Final = 0.06
"""Deviation of a frame's tones that ends an event: codecs bend single frames."""
APART: Final = 2
"""Hops: frames of one event lie no further apart."""
LEAST: Final = 3
"""Frames of an event: 40 ms of tone fill seven."""
MARGIN: Final = 320
"""Samples of context that an event needs on either side."""
_BATCH: Final = 4096
NAMES: Final = (
    "frames", "share", "best", "spread", "low", "low_wander", "high", "high_wander", "twist", "twist_wander",
    "level", "level_wander", "before", "after", "dense", "worst",
)  # fmt: skip
"""What a feature is. Shares are logarithms of what is left unexplained; deviations in percent; levels dBm0."""


def events(samples: Samples) -> Events:
    """Every event in float32[n] at 8000 Hz, with what the network judges it by."""
    zeros = np.zeros(MARGIN, np.float32)
    audio = np.concatenate([zeros, np.asarray(samples, np.float32), zeros])
    at, key, facts = _frames(audio)
    if not at.size:
        return Events.none(len(NAMES))
    begins = np.r_[True, (np.diff(at) > APART) | (np.diff(key) != 0)]
    first = np.flatnonzero(begins)
    last = np.r_[first[1:], at.size] - 1
    lasting = last - first + 1 >= LEAST
    keep = np.repeat(lasting, last - first + 1)
    at, facts = at[keep], facts[keep]
    count = (last - first + 1)[lasting]
    first = np.cumsum(count) - count
    last = first + count - 1
    start, end = at[first] * HOP + WINDOW // 4, at[last] * HOP + WINDOW * 3 // 4
    if not start.size:
        return Events.none(len(NAMES))
    features = _features(audio, at, facts, first, last)
    return Events(start - MARGIN, end - MARGIN, features[:, NAMES.index("level")], features)


def _frames(audio: Samples) -> tuple[Index, Index, Features]:
    """(frame number, key, float64[n, 5]: share, deviations low and high in percent, twist dB, level dBm0)."""
    bank, turns, relative, response, hann = _tables()
    windows = np.lib.stride_tricks.sliding_window_view(audio, WINDOW)[::HOP]
    floor = g711.amplitude(FLOOR_DBM0) ** 2
    numbers, keys, facts = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)], [np.zeros((0, 5))]
    for begin in range(0, len(windows) - 1, _BATCH):
        x = np.ascontiguousarray(windows[begin : begin + _BATCH + 1])
        spectrum = x @ bank
        energy = np.square(x[1:]) @ hann + np.float32(1e-12)
        z = spectrum[:, :8] + 1j * spectrum[:, 8:]
        power = np.square(np.abs(z[1:]))
        low, high = power[:, :4].argmax(axis=1), power[:, 4:].argmax(axis=1) + 4
        row = np.arange(len(power))
        p_low, p_high = power[row, low], power[row, high]
        # Before the response is known, a tone 2 % off counts for less: look again below.
        keep = np.flatnonzero(((p_low + p_high) > SHARE / 2 * energy) & (np.minimum(p_low, p_high) > floor / 2))
        low, high, energy = low[keep], high[keep], energy[keep]
        off = []
        strong = []
        for tone in (low, high):
            turn = np.angle(z[keep + 1, tone] * np.conj(z[keep, tone]) * turns[tone])
            off.append(turn * relative[tone])
            passed = np.interp(np.abs(turn) * (WINDOW / (2 * np.pi * HOP)), response[0], response[1])
            strong.append(power[keep, tone] / passed)
        share = (strong[0] + strong[1]) / energy
        twist = 10 * np.log10(strong[1] / strong[0])
        good = (share > SHARE) & (np.abs(twist) <= TWIST_DB) & (np.maximum(np.abs(off[0]), np.abs(off[1])) <= OFF)
        good &= np.minimum(strong[0], strong[1]) > floor
        level = 10 * np.log10(strong[0] + strong[1]) - 20 * np.log10(g711.AMPLITUDE_0DBM0)
        numbers.append(keep[good] + 1 + begin)
        keys.append((low * 4 + high - 4)[good])
        facts.append(np.stack([share, 100 * off[0], 100 * off[1], twist, level], axis=1)[good].astype(np.float64))
    return np.concatenate(numbers), np.concatenate(keys), np.concatenate(facts)


def _features(audio: Samples, at: Index, facts: Features, first: Index, last: Index) -> Features:
    count = (last - first + 1).astype(np.float64)

    def mean(values: Features) -> Features:
        return np.asarray(np.add.reduceat(values, first) / count)

    def wander(values: Features) -> Features:
        return np.sqrt(np.maximum(mean(np.square(values)) - np.square(mean(values)), 0))

    left = np.log10(1.02 - np.minimum(facts[:, 0], 1))
    level = mean(facts[:, 4])
    start, end = at[first] * HOP, at[last] * HOP + WINDOW
    sides = [
        level - _level(audio, np.maximum(0, start - 160)), level - _level(audio, np.minimum(end, len(audio) - 160)),
    ]  # fmt: skip
    columns = [
        count, mean(left), np.minimum.reduceat(left, first), wander(left), np.abs(mean(facts[:, 1])),
        wander(facts[:, 1]), np.abs(mean(facts[:, 2])), wander(facts[:, 2]), mean(facts[:, 3]), wander(facts[:, 3]),
        level, wander(facts[:, 4]), *sides, count / (at[last] - at[first] + 1), np.maximum.reduceat(left, first),
    ]  # fmt: skip
    return np.stack(columns, axis=1)


def _level(audio: Samples, begin: Index) -> Features:
    """dBm0 of the 20 ms from each of `begin`."""
    x = audio[begin[:, None] + np.arange(160)]
    return np.asarray(10 * np.log10(2 * np.square(x).mean(axis=1) + 1e-10) - 20 * np.log10(g711.AMPLITUDE_0DBM0))


@cache
def _tables() -> tuple[Samples, NDArray[np.complex64], Features, tuple[Features, Features], Samples]:
    """The bank, a hop's turn of each tone, radians to deviation, a Hann window's response off a tone, its square."""
    tones = np.array(keypad.LOW + keypad.HIGH)
    window = np.hanning(WINDOW + 1)[:-1]
    bins = np.linspace(0, 1.2, 121)
    response = np.square(np.sinc(bins) / (1 - np.square(np.where(bins == 1, 0.999, bins))))
    return (
        goertzel.spectrum_bank(tones, window, RATE),
        np.exp(-2j * np.pi * tones * HOP / RATE).astype(np.complex64),
        RATE / (2 * np.pi * HOP) / tones,
        (bins, np.maximum(response, 0.1)),
        (window**2 / (np.sum(window**2) / 2)).astype(np.float32),
    )
