"""What speech loses behind the mask, and how often the guard would err: rows of `benchmarks.masking`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks import material
from benchmarks.material import FINAL
from benchmarks.table import Row
from dsp import g711
from dsp.guard import Guard
from mediaproxy import offline
from mediaproxy.media.modes import Mode

Audio = NDArray[np.float32]
STREAMS = 64
WARPS = np.round(np.concatenate([np.arange(0.70, 1.0, 0.025), np.arange(1.025, 1.41, 0.025)]), 3)
"""Speeds that make 47 minutes of speech into 22 hours of other voices."""


def _streams(samples: list[Audio]) -> NDArray[np.uint8]:
    audio = np.concatenate(samples)
    return g711.encode(audio[: len(audio) // (STREAMS * 160) * STREAMS * 160], g711.PCMU).reshape(STREAMS, -1)


def false_masks(quick: bool) -> list[Row]:
    """Speech masked by mistake in a guarded leg; and that all else is the octets as they came."""
    octets = _streams(material.prompts(FINAL[:1] if quick else FINAL))
    result = offline.mask_many(octets)
    hours = octets.size / 8000 / 3600
    same = result.octets[:, 128:] == octets[:, 64:]
    changed = float((~same).sum()) / 8 - result.masked_ms
    return [
        Row(f"speech masked by mistake, guarded, {hours:.2f} h", 20.0, result.masked_ms / 1000 / hours, "s/h", "lower"),
        Row("  the same, stretch", 10.0, result.masked_ms / 1000 / hours, "s/h", "lower"),
        Row("  octets changed beyond what was masked", 0.0, max(changed, 0.0), "ms", "lower"),
        Row("  keys confirmed in speech", 0, result.keys, "keys", "lower"),
    ]


def quality(quick: bool) -> list[Row]:
    """Speech while armed, against the same speech over G.711: STOI (pystoi) and PESQ narrow-band (pesq)."""
    from pystoi import stoi

    stois, pesqs, scored = [], [], True
    seconds = 8 if quick else 60
    for voice in FINAL:
        speech = material.speech((voice,))[: seconds * 8000] * g711.amplitude(-20) / np.sqrt(2)
        octets = g711.encode(speech.astype(np.float32), g711.PCMU)
        clean = g711.decode(octets, g711.PCMU)
        heard = g711.decode(offline.mask(octets, Mode.ARMED).octets, g711.PCMU)[64:]
        for at in range(0, len(clean) - 64000 + 1, 64000):
            piece = slice(at, at + 64000)
            stois.append(float(stoi(clean[piece], heard[piece], 8000)))
            try:
                from pesq import pesq

                pesqs.append(float(pesq(8000, clean[piece], heard[piece], "nb")))
            except ImportError:
                scored = False
    rows = [Row(f"speech while armed, STOI, {len(stois)} x 8 s", 0.91, float(np.mean(stois)), "", "higher")]
    if scored:
        return [*rows, Row("  the same, PESQ narrow-band", 2.2, float(np.mean(pesqs)), "MOS", "higher")]
    print("pesq is not installed, so its row is left out: make bench", file=sys.stderr)
    return rows


def guard(quick: bool) -> list[Row]:
    """Alarms of the guard behind the mask, on speech at many speeds; and how many keys it sees when nothing masks."""
    from scipy.signal import resample_poly

    keys = material.keying(material.Condition(snr=15, ms=(60, 120)), 200 if quick else 2000, 1999, 20)
    open_ = g711.encode(keys.audio, g711.PCMU)
    alarmed = _alarms(open_)
    seen = np.mean([
        alarmed[row, start // 160 : end // 160 + 2].any() for row in range(len(open_)) for start, end in keys.marks[row]
    ])  # fmt: skip
    speech = np.concatenate(material.prompts(FINAL))
    hours, alarms, fits = 0.0, 0, []
    for speed in WARPS[::20] if quick else WARPS:
        octets = _streams([resample_poly(speech, round(1000 / speed), 1000).astype(np.float32)])
        heard = offline.mask_many(octets).octets
        alarms += int(_alarms(heard).sum())
        fits.append(near_misses(heard))
        hours += octets.size / 8000 / 3600
    tail = np.concatenate(fits)
    rows = [
        Row("guard: keys of 60-120 ms seen with no mask before it", 99.0, 100 * float(seen), "%", "higher"),
        Row(f"guard: alarms behind the mask, {hours:.1f} h of warped speech", 0, alarms, "alarms", "lower"),
    ]
    if not quick:  # three hours have too few near misses to say anything of a thousand
        what = f"  extrapolated from {len(tail)} near misses"
        rows.append(Row(what, 1.0, 1000 * extrapolated(tail, hours), "/1000 h", "lower"))
    return rows


def _alarms(octets: NDArray[np.uint8]) -> NDArray[np.bool_]:
    guard, slots = Guard(len(octets)), np.arange(len(octets))
    codec = np.zeros(len(octets), np.intp)
    blocks = range(0, octets.shape[1] - 159, 160)
    return np.stack([guard.alarms(slots, octets[:, at : at + 160], codec) for at in blocks], axis=1)


NEAR = 0.6


def near_misses(octets: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The worse fit of each two windows that agree on a key, where it is NEAR or more."""
    guard, found = Guard(len(octets)), []
    before, fit_before = np.full(len(octets), -1), np.zeros(len(octets), np.float32)
    audio = g711.decode(octets, g711.PCMU)
    for at in range(0, audio.shape[1] - 159, 160):
        key, fit = guard.listen(audio[:, at : at + 160])
        agree = (key >= 0) & (key == before)
        worse = np.minimum(fit, fit_before)[agree]
        found += worse[worse >= NEAR].tolist()
        before, fit_before = key, fit
    return np.array(found)


def extrapolated(tail: NDArray[np.float64], hours: float) -> float:
    """False alarms an hour at the guard's limit, if near misses thin out exponentially as they do from NEAR on.

    They thin out faster (a fit cannot pass 1, and the gate masks what comes near), so this is on the safe side.
    """
    from dsp.guard import FIT

    if len(tail) < 5:
        return float(len(tail)) / hours  # too few to say more
    return float(len(tail) / hours * np.exp(-(FIT - NEAR) / np.mean(tail - NEAR)))


JOBS: tuple[Callable[[bool], list[Row]], ...] = (false_masks, quality, guard)
