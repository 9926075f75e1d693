"""An attacker who knows the method: the times of all keys, the flat tone, the tones of the keypad.

He strikes out what is flat tone or silence and fits every pair of tones to whatever is left of a key. He imports
neither gate nor mask. Common tone decoders see nothing below 20 ms; he needs 2 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711

Octets = NDArray[np.uint8]
LOW: Final = (697.0, 770.0, 852.0, 941.0)
HIGH: Final = (1209.0, 1336.0, 1477.0)
DIGITS: Final = [(3, 1)] + [(row, column) for row in range(3) for column in range(3)]
"""Row and column of the digits 0 to 9."""
CHANCE: Final = 0.1
_SHORTEST, _LONGEST = 8, 160


@cache
def bases(length: int) -> NDArray[np.float64]:
    """float64[10, length, 4]: an orthonormal basis of each digit's pair over `length` samples."""
    t = np.arange(length) / 8000
    found = []
    for row, column in DIGITS:
        waves = [f(2 * np.pi * hz * t) for hz in (LOW[row], HIGH[column]) for f in (np.cos, np.sin)]
        found.append(np.linalg.qr(np.stack(waves, axis=1))[0])
    return np.stack(found)


def flat_tone(octets: Octets, hz: float, dbm0: float) -> NDArray[np.bool_]:
    """bool[n]: which samples are the flat tone, to the octet, or silence. Its phase is found, its sound is known."""
    period = 400
    t = np.arange(period) / 8000
    table = g711.encode((g711.amplitude(dbm0) * np.sin(2 * np.pi * hz * t)).astype(np.float32), g711.PCMU)
    place = np.arange(len(octets)) % period
    equal = max(((octets == np.roll(table, shift)[place]) for shift in range(period)), key=np.count_nonzero)
    flat = np.zeros(len(octets), np.bool_)
    for a, b in runs(equal | (octets == g711.SILENCE[g711.PCMU])):
        flat[a:b] = b - a >= 4
    return flat


def guess(
    octets: Octets, marks: NDArray[np.int64], struck: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Name the digit of each key. octets: uint8[n]; marks: int[k, 2], where each key lies; struck: bool[n], samples
    that tell nothing. Returns int[k], 0 to 9; at random where nothing is left."""
    audio = g711.decode(octets, g711.PCMU).astype(np.float64)
    guesses = np.empty(len(marks), np.int64)
    for k, (start, end) in enumerate(marks):
        fit = scores(audio, start, end, struck)
        guesses[k] = int((fit + rng.uniform(0, 1e-12, len(fit))).argmax())
    return guesses


def scores(audio: NDArray[np.float64], start: int, end: int, struck: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64[10]: how much energy each digit's pair explains in what is not struck out between start and end."""
    score = np.zeros(len(DIGITS))
    for a, b in runs(~struck[start:end]):
        for at in range(start + a, start + b, _LONGEST):
            piece = audio[at : min(at + _LONGEST, start + b)]
            if len(piece) >= _SHORTEST:
                fit = np.einsum("klf,l->kf", bases(len(piece)), piece)
                score += np.square(fit).sum(axis=1)
    return score


def runs(free: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, end) of every stretch of True in bool[n]."""
    edges = np.flatnonzero(np.diff(np.r_[False, free, False].astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Shares of keys named: behind the mask, and by the two controls that show the attacker can read at all."""

    masked: float
    unmasked: float
    residue: float
    keys: int

    @property
    def valid(self) -> bool:
        """Whether the controls hold; otherwise the figure behind the mask means nothing."""
        return self.unmasked >= 0.99 and self.residue >= 0.95

    @property
    def margin(self) -> float:
        """Half the width of a 95 % interval around chance."""
        return 1.96 * float(np.sqrt(CHANCE * (1 - CHANCE) / self.keys))


def attack(
    sent: Octets,
    heard: Octets,
    keys: NDArray[np.int64],
    marks: NDArray[np.int64],
    delay: int,
    flat: tuple[float, float],
) -> Verdict:
    """Attack what an agent heard of `sent` (uint8[n]); heard: uint8[n + delay].

    keys: int[k], digits 0 to 9; marks: int[k, 2]; delay in samples; flat: frequency (Hz) and level
    (dBm0) of the flat tone.
    """
    rng = np.random.default_rng(7)
    behind = np.stack([marks[:, 0], marks[:, 1] + 2 * delay], axis=1)
    masked = guess(heard, behind, flat_tone(heard, *flat), rng)
    open_ = guess(sent, marks, np.zeros(len(sent), np.bool_), rng)
    middle = marks.mean(axis=1).astype(np.int64)
    residues = np.stack([middle, middle + 16], axis=1)  # 2 ms
    residue = guess(sent, residues, np.zeros(len(sent), np.bool_), rng)
    masked_share, open_share, residue_share = (float(np.mean(named == keys)) for named in (masked, open_, residue))
    return Verdict(masked_share, open_share, residue_share, len(keys))
