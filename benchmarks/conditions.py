"""Conditions for the decoder: what Q.24 Annex A asks to accept and to reject, as lists and batch generators.

A batch is float32[streams, samples] at 8000 Hz with `keys` presses a stream at a fixed cycle, mu-law coded, so that
thousands of keys take one pass of a batched decoder. Levels are dBm0 of each tone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711, keypad
from dsp.decoder import Decoder

Samples = NDArray[np.float32]
Values = NDArray[np.float64]

RATE: Final = 8000
LEAD: Final = 800
"""Samples of noise before the first press."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One corner. `twist_db`: high over low. `third`: a third tone ("key": another key's, "any": elsewhere)."""

    name: str
    low: float = 0.0
    high: float = 0.0
    weakest_dbm0: float = -12.0
    """Level of the weaker tone."""
    twist_db: float = 0.0
    tone_ms: float = 40.0
    pause_ms: float = 40.0
    snr_db: float = 28.0
    """Both tones' power over noise in 0-4 kHz."""
    interruption_ms: float = 0.0
    """Silence in the tone, at a random place at least 10 ms from its edges; the tone is so much longer."""
    single: bool = False
    third: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """audio: float32[streams, samples]; keys: int[streams, presses]; press i begins at LEAD + i * cycle + start."""

    audio: Samples
    keys: NDArray[np.int64]
    start: Values
    cycle: int


@dataclass(frozen=True, slots=True)
class Score:
    """Of `n` presses: not found once with the right key; and keys reported beyond those found."""

    n: int
    missed: int
    extra: int


def accepted() -> list[Condition]:
    """Return the corners to accept: AT&T and NTT columns of Q.24 Annex A."""
    found = []
    corners = [
        ("AT&T", keypad.ATT.frequency_accept, (-25.0, 0.0), (-8.0, 4.0), 40.0),
        ("NTT", keypad.NTT.frequency_accept, (-24.0, -3.0), (-5.0, 5.0), 30.0),
    ]
    for name, off, (quiet, loud), twists, pause in corners:
        for twist in twists:
            for weakest, sign_low, sign_high in product((quiet, loud - abs(twist)), (-1, 1), (-1, 1)):
                label = f"{name} {sign_low * off:+.1%} {sign_high * off:+.1%} weak {weakest:.0f} twist {twist:+.0f}"
                found.append(
                    Condition(label, sign_low * off, sign_high * off, weakest, twist, 40.0, pause, 26.0)
                )  # fmt: skip
        for weakest in (quiet, loud):
            found.append(Condition(f"{name} nominal {weakest:.0f}", 0, 0, weakest, 0, 40.0, pause, 26.0))
        low, high = off, -off
        found.append(Condition(f"{name} 40 ms with 10 ms cut out", low, high, -20, twists[0], 40, pause, 26, 10))
        found.append(Condition(f"{name} 60 ms with 10 ms cut out", -low, -high, -12, twists[1], 60, pause, 26, 10))
        found.append(Condition(f"{name} 100 ms with 10 ms cut out", low, low, -12, twists[1], 100, pause, 26, 10))
    found.append(Condition("AT&T cycle 93, tone 40", 0.015, -0.015, -25, -8, 40, 53, 26))
    found.append(Condition("AT&T cycle 93, tone 53", -0.015, 0.015, -25, 4, 53, 40, 26))
    found.append(Condition("tone 1 s", 0.015, 0.018, -25, 4, 1000, 40, 26))
    return found


def forbidden() -> list[Condition]:
    """Return what must never be a key."""
    found = []
    for tone, sign, ms, db in product((0, 1), (-1, 1), (40.0, 100.0), (26.0, 50.0)):
        off = 0.035 * sign
        low, high = (off, 0.0) if tone == 0 else (0.0, off)
        found.append(Condition(f"off {low:+.1%} {high:+.1%} {ms:.0f} ms {db:.0f} dB", low, high, -15, 0, ms, 60, db))
    for off, other in product((-0.035, 0.035), (-0.015, 0.015)):
        found.append(Condition(f"off {off:+.1%} {other:+.1%}", off, other, -15, 0, 60, 60))
        found.append(Condition(f"off {other:+.1%} {off:+.1%}", other, off, -15, 0, 60, 60))
    for ms, twist, db in product((10.0, 18.0, 23.0), (-8.0, 0.0, 4.0), (26.0, 50.0)):
        found.append(Condition(f"{ms:.0f} ms twist {twist:+.0f} {db:.0f} dB", 0, 0, -15, twist, ms, 60, db))
    found.append(Condition("23 ms loud", 0.015, 0.015, 0, 0, 23, 60))
    found += [Condition(f"-55 dBm0 {db:.0f} dB", 0, 0, -55, 0, 80, 60, db) for db in (26.0, 60.0)]
    for ms, db in product((50.0, 200.0), (26.0, 50.0)):
        found.append(Condition(f"single {ms:.0f} ms {db:.0f} dB", 0, 0, -12, 0, ms, 60, db, single=True))
        for third in ("key", "any"):
            found.append(Condition(f"third ({third}) {ms:.0f} ms {db:.0f} dB", 0, 0, -15, 0, ms, 60, db, third=third))
    return found


def batch(condition: Condition, n: int, seed: int, streams: int = 200) -> Batch:
    """Return at least `n` presses of `condition`, mu-law coded."""
    raw = synthesize(condition, n, seed, streams)
    return replace(raw, audio=g711.decode(g711.encode(raw.audio, g711.PCMU), g711.PCMU))


def synthesize(condition: Condition, n: int, seed: int, streams: int = 200) -> Batch:
    """Return at least `n` presses of `condition`, float, not yet coded."""
    c, rng = condition, np.random.default_rng(seed)
    presses = -(-n // streams)
    shape = (streams, presses)
    cycle = round((c.tone_ms + c.interruption_ms + c.pause_ms) * RATE / 1000)
    keys = rng.integers(0, 16, shape)
    same = np.flatnonzero(rng.random(shape) < 0.25)  # the same key again: the pause must be seen
    keys.flat[same[same % presses > 0]] = keys.flat[same[same % presses > 0] - 1]
    start = rng.uniform(0, 20, (streams, 1)) * np.ones(shape)
    low_level, high_level = _levels(c)
    pairs = keypad.pairs()[keys]
    tones = [(pairs[..., 0] * (1 + c.low), low_level), (pairs[..., 1] * (1 + c.high), high_level)]
    if c.single:
        pick = rng.random(shape) < 0.5
        tones = [(np.where(pick, *[f for f, _ in tones]), low_level)]
    if c.third:
        tones.append((_third(c.third, pairs, rng), min(low_level, high_level)))
    t = np.arange(cycle) - start[..., None]
    audio = np.zeros((*shape, cycle))
    for hz, level in tones:
        phase = rng.uniform(0, 2 * np.pi, shape)[..., None]
        audio += g711.amplitude(level) * np.sin(2 * np.pi * hz[..., None] / RATE * t + phase)
    on = c.tone_ms + c.interruption_ms
    ms = t * 1000 / RATE
    gate = (ms >= 0) & (ms < on)
    if c.interruption_ms:
        cut = rng.uniform(10, on - 10 - c.interruption_ms, shape)[..., None]
        gate &= (ms < cut) | (ms >= cut + c.interruption_ms)
    line = np.pad((audio * gate).reshape(streams, -1), ((0, 0), (LEAD, LEAD)))
    power = sum(g711.amplitude(level) ** 2 / 2 for _, level in tones[:2])
    line += rng.normal(0, np.sqrt(power) * 10 ** (-c.snr_db / 20), line.shape)
    return Batch(line.astype(np.float32), keys, start, cycle)


def _levels(c: Condition) -> tuple[float, float]:
    if c.twist_db >= 0:
        return c.weakest_dbm0, c.weakest_dbm0 + c.twist_db
    return c.weakest_dbm0 - c.twist_db, c.weakest_dbm0


def _third(kind: str, pairs: Values, rng: np.random.Generator) -> Values:
    """Return the third tone's Hz for each of `pairs` float64[..., 2]."""
    shape = pairs.shape[:-1]
    if kind == "key":
        all_tones = np.array(keypad.LOW + keypad.HIGH)
        choice = rng.integers(0, 8, (*shape, 12))
        candidates = all_tones[choice]
    else:
        candidates = rng.uniform(300, 3400, (*shape, 12))
    clear = (np.abs(candidates[..., None] - pairs[..., None, :]) > 60).all(axis=-1)
    first = clear.argmax(axis=-1)
    return np.asarray(np.take_along_axis(candidates, first[..., None], axis=-1)[..., 0])


Press = tuple[int, int, int]
"""(stream, key index, start)."""


def hear(
    decoder: Decoder, audio: Samples, packets: Sequence[int] = (160,), lost: NDArray[np.bool_] | None = None
) -> list[Press]:
    """Push `audio` float32[streams, samples] in packets of the lengths in turn, as the engine does.

    lost: bool[streams, packets] packets that never came. Return the presses.
    """
    n, total = audio.shape
    span = decoder.span
    history = np.zeros((n, span), np.float32)
    known = np.full(n, 1 << 20, np.int64)
    presses: list[Press] = []
    at, turn = 0, 0
    while at < total:
        size = packets[turn % len(packets)]
        block = audio[:, at : at + size]
        if block.shape[1] < size:
            break
        here = np.ones(n, np.bool_) if lost is None else ~lost[:, turn]
        slots = np.flatnonzero(here)
        history[~here], known[~here] = 0, 0
        full = np.concatenate([history[slots], block[slots]], axis=1)
        report = decoder.push(slots, full, known[slots], np.full(len(slots), at, np.int64))
        presses += [(int(slots[row]), key, start) for row, key, start in report.pressed]
        history[slots] = full[:, -span:]
        known[slots] += size
        at, turn = at + size, turn + 1
    return presses


def score(batch: Batch, presses: Sequence[Press], delay: int = 0) -> Score:
    """Compare `presses` with what was keyed; `delay`: of a codec between, samples."""
    streams, count = batch.keys.shape
    right = np.zeros((streams, count), np.int64)
    for stream, key, start in presses:
        i = (start - delay - LEAD + batch.cycle // 4) // batch.cycle
        if 0 <= i < count and batch.keys[stream, i] == key:
            right[stream, i] += 1
    hit = int((right > 0).sum())
    return Score(right.size, right.size - hit, len(presses) - hit)
