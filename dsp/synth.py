"""Keypresses and speech-like sound for tests, benchmarks and the demo: any level, twist, offset, length, talk-over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsp import g711, keypad

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Press:
    """How one key is pressed. Levels in dBm0 a tone, twist in dB (high over low), offsets as a share of frequency."""

    key: int
    ms: float = 80.0
    level_dbm0: float = -10.0
    twist_db: float = 0.0
    low_offset: float = 0.0
    high_offset: float = 0.0


def tone_pair(press: Press, rate: int = 8000, phases: tuple[float, float] = (0.0, 0.0)) -> Samples:
    """Return float32[ms * rate / 1000]: the key's two tones, the stronger one at `level_dbm0`."""
    low, high = keypad.pair(press.key)
    t = np.arange(round(press.ms * rate / 1000)) / rate
    low_level = press.level_dbm0 - max(press.twist_db, 0.0)
    high_level = press.level_dbm0 + min(press.twist_db, 0.0)
    tones = g711.amplitude(low_level) * np.sin(2 * np.pi * low * (1 + press.low_offset) * t + phases[0])
    tones += g711.amplitude(high_level) * np.sin(2 * np.pi * high * (1 + press.high_offset) * t + phases[1])
    return tones.astype(np.float32)


def keying(
    presses: Sequence[Press],
    rng: np.random.Generator,
    pause_ms: tuple[float, float] = (60.0, 140.0),
    lead_ms: float = 200.0,
    noise_dbm0: float = -60.0,
    rate: int = 8000,
) -> tuple[Samples, NDArray[np.int64]]:
    """Key `presses` one after another over white noise, with random phases and pauses.

    Returns the audio float32[length] and int64[n, 2], start and end of each tone in samples.
    """
    pauses = rng.uniform(*pause_ms, len(presses)) * rate / 1000
    pieces: list[Samples] = [np.zeros(round(lead_ms * rate / 1000), np.float32)]
    position, marks = pieces[0].size, []
    for press, pause in zip(presses, pauses, strict=True):
        tone = tone_pair(press, rate, (rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)))
        gap = np.zeros(round(pause), np.float32)
        marks.append((position, position + tone.size))
        pieces += [tone, gap]
        position += tone.size + gap.size
    pieces.append(np.zeros(round(lead_ms * rate / 1000), np.float32))
    audio = np.concatenate(pieces)
    noise = rng.standard_normal(audio.size) * g711.amplitude(noise_dbm0) / np.sqrt(2)
    return (audio + noise).astype(np.float32), np.array(marks, np.int64).reshape(-1, 2)


def speechlike(seconds: float, rng: np.random.Generator, level_dbm0: float = -20.0, rate: int = 8000) -> Samples:
    """Return float32[seconds * rate] of voiced syllables (a wandering pitch through three formants) and pauses."""
    n = round(seconds * rate)
    t = np.arange(n) / rate
    pitch = 120 + 25 * np.sin(2 * np.pi * 0.31 * t + rng.uniform(0, 6)) + 12 * np.sin(2 * np.pi * 0.83 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    beats = np.arange(0, seconds + 0.5, 0.25)
    syllable = np.interp(t, beats, rng.uniform(-0.6, 1.0, beats.size))
    envelope = np.clip(syllable, 0, 1) ** 0.7
    knots = np.arange(0, seconds + 0.5, 0.2)
    formants = [np.interp(t, knots, rng.uniform(low, high, knots.size)) for low, high in _FORMANTS]
    voice = np.zeros(n)
    for harmonic in range(1, 28):
        frequency = harmonic * pitch
        gain = sum(np.exp(-(((frequency - f) / 110) ** 2)) * 0.7**i for i, f in enumerate(formants)) + 0.02
        voice += np.where(frequency < 3400, gain, 0) * np.sin(harmonic * phase)
    voice = voice * envelope + 0.01 * rng.standard_normal(n) * envelope
    rms = float(np.sqrt(np.mean(voice**2))) or 1.0
    return np.asarray(voice * g711.amplitude(level_dbm0) / np.sqrt(2) / rms, np.float32)


_FORMANTS = ((300.0, 800.0), (900.0, 2200.0), (2300.0, 3000.0))
"""Ranges of the first three formants of adult speech, Hz (Peterson and Barney 1952)."""
