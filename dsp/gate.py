"""Could this be a key? The permissive judge: whatever it says yes to is masked.

For a window it asks what share of the energy the best of 80 tone pairs explains (16 keys, five deviations each), hum
and DC left out of the account. A window of 8 ms, as long as the look-back, sees an onset before its first sample has
to leave; one of 16 ms sees tones that a speech codec or noise has roughened. A false yes costs milliseconds of speech,
a false no a key, so the limits lean one way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711, goertzel, kernel, keypad

Samples = NDArray[np.float32]
Counts = NDArray[np.int64]
Index = NDArray[np.intp]
Flags = NDArray[np.bool_]

DEVIATIONS: Final = (-0.035, -0.0175, 0.0, 0.0175, 0.035)
"""Grid of frequency errors: Q.24 lets receivers reject from 3.5 % (AT&T), so nothing nearer may be missed."""
FLOOR_DBM0: Final = -63.0
"""Windows below this are not judged: the weakest tones promised are at -60 dBm0, one µ-law step high."""
WEAKER_TONE: Final = 0.04
"""Least share of the pair's energy in the weaker tone: 13.8 dB of twist (Q.24 asks for 10 at most)."""
_SHORT_8K: Final = (64, 0.80)
_LONG_8K: Final = (128, 0.72)
"""Samples, least share explained. Measured (benchmarks.masking, tuning half): at 9 dB SNR one onset in a thousand
explains less than 0.815 of the 8 ms after it. Clipping 6 dB under the peak leaves 0.79 and 0.67 at the median."""
_HOP_8K: Final = 20
_LONG_EVERY: Final = 2
"""The long window is judged at every other place of the short one, and there only if ..."""
_CLOSE: Final = 0.5
"""... this share of the short one lies in the space of the pairs."""
_STEP_DB: Final = 2.0
_STEADY: Final = 0.50
"""A short window must be so much louder than the 8 ms before it, or this share of the long one must be a pair.
Measured: 84 samples after an onset, at 9 dB SNR, 98 % of keys are 2.7 dB louder; 104 samples after it 0.60 of the long
window is a pair. Of the yeses to synthetic male voices, which fit a pair in every period, nine in ten are neither."""
_VOWEL: Final = 0.30
"""What was before is no vowel that went on if less of it was a pair: a dial tone, a click, other speech may stop at the
very moment a key begins (measured: without this 25 % of keys after a dial tone of 6 dB more showed their onset)."""
_ONSET: Final = 0.65
_ONSET_JOINT: Final = 0.90
_ONSET_DB: Final = 14.0
"""After near silence a window need not fit so well, if nearly all of it lies in the space of the pairs: AMR at 4.75
kbit/s smears an onset (first keys of which more than 2 ms showed: 27 % without, 12 % with; 2 s of speech an hour)."""
_TINY: Final = np.float32(1e-12)
_FADE_DB: Final = 3.0
"""By how much the first half of a short window may be louder than the second: tones stay within 2 dB at 9 dB SNR and
within 3.3 dB through GSM-FR; half of the yeses to recorded prompts do not."""
_HUM_HZ: Final = 66.0
"""Mains hum of either sort (50, 60 Hz) and slower is no part of the account."""
_HUM_ENERGY: Final = 1e-4
"""Directions with less of the energy of slow sounds are left to the tones: four to five dimensions remain."""
_JOINT_ENERGY: Final = 0.998
"""Of all pairs, within the subspace: what is left out is far below the slack."""
_ROUNDING: Final = 1e-3
_JOINT_SLACK: Final = 0.97
"""The joint test may only turn away what no pair explains, so it asks for a little less than the pair test."""
_TILE: Final = 512
"""Streams at a time: their windows stay in the cache (measured: benchmarks.dsp_cost)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of one block of n streams.

    yes: int64[n], windows that look like a key; last: int64[n], where the last of them ends, in samples from the
    block's start (0 where there is none).
    """

    yes: Counts
    last: Counts


@dataclass(frozen=True, slots=True)
class _Window:
    samples: int
    share: float
    bank: Samples
    """float32[samples, hum + r]: orthonormal: hum first, then a subspace that holds every pair nearly whole."""
    hum: int
    pairs: Samples
    """float32[4 * 80, r]: an orthonormal basis a pair within that subspace, first vectors first."""
    solve: Samples
    """float32[80, 4, r]: least-squares coefficients (cos low, cos high, sin low, sin high)."""
    tones: Samples
    """float32[2 * 4 * 2 * 5, r]: an orthonormal basis of each tone alone, [vector, tone, low or high, deviation]."""
    slack: float
    """The energy that a pair explains, times this, is no more than what its tones explain each alone."""


@cache
def _window(samples: int, share: float, rate: int) -> _Window:
    slow = goertzel.tone_basis(np.arange(0, _HUM_HZ, 6.0), samples, rate)
    u, s, _ = np.linalg.svd(slow, full_matrices=False)
    hum = u[:, s**2 > _HUM_ENERGY * np.sum(s**2)]
    bases = [
        goertzel.tone_basis(np.array(keypad.pair(key)) * (1 + deviation), samples, rate)
        for key in range(16)
        for deviation in DEVIATIONS
    ]
    bases = [basis - hum @ (hum.T @ basis) for basis in bases]
    orthonormal = [goertzel.orthonormal(basis) for basis in bases]
    u, s, _ = np.linalg.svd(np.concatenate(orthonormal, axis=1), full_matrices=False)
    rank = int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), _JOINT_ENERGY)) + 1
    joint = u[:, :rank]
    pairs = [goertzel.orthonormal(joint.T @ basis) for basis in orthonormal]
    # Columns of a basis: cos low, cos high, sin low, sin high. Every tone, from the first key that has it:
    tones = [[goertzel.orthonormal(joint.T @ basis[:, i::2]) for basis in bases] for i in (0, 1)]
    return _Window(
        samples,
        share,
        np.concatenate([hum, joint], axis=1).astype(np.float32),
        hum.shape[1],
        np.stack([pair.T for pair in pairs], axis=1).reshape(-1, rank).astype(np.float32),
        np.stack([np.linalg.pinv(joint.T @ basis) for basis in bases]).astype(np.float32),
        _alone(tones).reshape(-1, rank).astype(np.float32),
        1 - max(float(np.linalg.norm(low.T @ high, 2)) for low, high in zip(*tones, strict=True)) - _ROUNDING,
    )


def _alone(tones: list[list[NDArray[np.float64]]]) -> NDArray[np.float64]:
    """float64[2, 4, 2, deviations, r]: of the bases of the low and the high tone of [key, deviation], each tone's."""
    low, high = (np.stack(part).reshape(4, 4, len(DEVIATIONS), -1, 2) for part in tones)
    return np.stack([low[:, 0], high[0]]).transpose(4, 1, 0, 2, 3)


def _tables(window: _Window) -> kernel.Window:
    return window.bank, window.hum, window.pairs.T, window.solve, window.share


class Gate:
    """Batched judge of the windows that end within a block, counted back from its end: any length of block will do.

    history: samples that must precede the block in `judge`.
    """

    def __init__(self, rate: int = 8000) -> None:
        scale = rate / 8000
        self.rate = rate
        self.hop = round(_HOP_8K * scale)
        self._short, self._long = (
            _window(round(samples * scale), share, rate) for samples, share in (_SHORT_8K, _LONG_8K)
        )
        self._floor = g711.amplitude(FLOOR_DBM0) ** 2 / 2
        self.history = max(self._short.samples, self._long.samples)
        self._compiled = kernel.judge(_tables(self._short), _tables(self._long), self._limits())

    def _limits(self) -> dict[str, float]:
        """What the compiled `judge` must know, as factors."""
        return {
            "hop": self.hop,
            "every": _LONG_EVERY,
            "floor": self._floor,
            "close": _CLOSE,
            "slack": _JOINT_SLACK,
            "least": min(self._short.share, _ONSET),
            "weaker": WEAKER_TONE,
            "step": 10 ** (-_STEP_DB / 10),
            "vowel": _VOWEL,
            "steady": _STEADY,
            "onset": 10 ** (-_ONSET_DB / 10),
            "onset_joint": _ONSET_JOINT,
            "fade": 10 ** (_FADE_DB / 10),
            "tiny": float(_TINY),
        }

    def judge(self, audio: Samples) -> Verdict:
        """Judge float32[n, history + length]: every window that ends in the last `length` samples, on its hop.

        What is not finite is a yes.
        """
        n = len(audio)
        yes, last = np.zeros(n, np.int64), np.zeros(n, np.int64)
        if self._compiled is not None:
            self._compiled(audio, yes, last)
            return Verdict(yes, last)
        tile = -(-n // -(-n // _TILE)) if n else 1
        with np.errstate(invalid="ignore", over="ignore"):
            for at in range(0, n, tile):
                part = slice(at, at + tile)
                row, end = self._tile(np.ascontiguousarray(audio[part]))
                if row.size:
                    yes[part] = np.bincount(row, minlength=len(yes[part]))
                    np.maximum.at(last[part], row, end - self.history)
        return Verdict(yes, last)

    def _tile(self, audio: Samples) -> tuple[Index, Index]:
        """Row of each window that is a yes, and where in `audio` it ends."""
        short, long = self._short, self._long
        ends = np.arange(audio.shape[1], self.history, -self.hop)[::-1]
        inside, loud, energy = self._everywhere(audio, ends)
        joint = np.einsum("ij,ij->i", inside, inside)
        # Limits are asked the other way round, so that what is not a number is masked.
        near = np.flatnonzero(~((energy <= self._floor * short.samples) | (joint < _CLOSE * energy)))
        if not near.size:
            return near, near
        inside, loud, energy, joint = inside[near], loud[near], energy[near], joint[near]
        row, place = np.divmod(near, len(ends))
        end = ends[place]
        likely = np.flatnonzero(~(joint < _JOINT_SLACK * short.share * energy))
        found, share = self._fit(short, inside[likely], energy[likely], _ONSET)
        found = likely[found]
        if found.size:
            onset = joint[found] >= _ONSET_JOINT * energy[found]
            whole = _before(audio, row[found], end[found], long.samples)
            found = found[self._plausible(whole, share, loud[found], energy[found], onset)]
        every = np.flatnonzero((len(ends) - 1 - place) % _LONG_EVERY == 0)
        if every.size:
            whole = _before(audio, row[every], end[every], long.samples)
            found = np.concatenate([found, every[self._likely(long, whole)]])
        return row[found], end[found]

    def _everywhere(self, audio: Samples, ends: Index) -> tuple[Samples, Samples, Samples]:
        """Of the short windows of each row that end at `ends`: coordinates float32[m, r], energy float32[m] with hum
        and without."""
        size, first, width = self._short.samples, ends[0] - self._short.samples, self._short.bank.shape[1]
        y = np.empty((len(audio), len(ends), width), np.float32)
        for place, end in enumerate(ends.tolist()):  # no copy of windows that overlap
            np.matmul(audio[:, end - size : end], self._short.bank, out=y[:, place])
        flat = y.reshape(-1, width)
        hum = flat[:, : self._short.hum]
        loud = (np.square(audio[:, first:]) @ _spans(len(ends), size, self.hop)).ravel()
        return flat[:, self._short.hum :], loud, loud - np.einsum("ij,ij->i", hum, hum)

    def _plausible(self, whole: Samples, share: Samples, loud: Samples, energy: Samples, onset: Flags) -> Flags:
        """bool[m]: whether the second halves of long windows `whole`, that may be tones, are no vowels.

        A vowel fits a pair for one period of the voice as well as a tone does, and no longer. So what fits less well
        must stand out of what was before; what was as loud and fitted nearly as well before must have been the same
        pair; and what fades within the window is no key.

        Of the second half, float32[m]: share that a pair explains, energy with and without hum; bool[m], whether it
        may be an onset.
        """
        half = self._short.samples
        past, halves = whole[:, :half], whole[:, half:].reshape(len(whole), 2, half // 2) @ _centre(half // 2)
        power = np.einsum("ijk,ijk->ij", halves, halves)
        inside, before = self._inside(self._short, past)
        onset = onset & (before <= 10 ** (-_ONSET_DB / 10) * energy)
        fine = ~(power[:, 0] > 10 ** (_FADE_DB / 10) * power[:, 1]) & (~(share < self._short.share) | onset)
        ask = np.flatnonzero(fine & (np.einsum("ij,ij->i", past, past) > 10 ** (-_STEP_DB / 10) * loud))
        if ask.size:
            ask = ask[~(self._share(self._short, inside[ask], before[ask]) < _VOWEL)]
            fine[ask] = self._share(self._long, *self._inside(self._long, whole[ask])) >= _STEADY
        return np.asarray(fine, np.bool_)

    def _inside(self, window: _Window, x: Samples) -> tuple[Samples, Samples]:
        """Coordinates of x in the space of the pairs, float32[m, r], and its energy without hum, float32[m]."""
        y = x @ window.bank
        hum = y[:, : window.hum]
        return y[:, window.hum :], np.einsum("ij,ij->i", x, x) - np.einsum("ij,ij->i", hum, hum)

    def _explained(self, window: _Window, inside: Samples) -> Samples:
        """float32[pairs, m]: energy that each pair explains."""
        c = window.pairs @ inside.T
        np.square(c, out=c)
        return np.asarray(c.reshape(4, len(window.solve), len(inside)).sum(axis=0), np.float32)

    def _at_most(self, window: _Window, inside: Samples) -> Samples:
        """float32[m]: more than any pair explains, at a quarter of the cost: its tones each on their own, more for what
        they have in common. (Of subspaces of which the closest vectors have the cosine c, P + Q >= 1 - c on their
        sum.)"""
        c = window.tones @ inside.T
        np.square(c, out=c)
        c = c.reshape(2, 4, 2, len(DEVIATIONS), len(inside))
        low, high = (c[0] + c[1]).max(axis=0)
        return np.asarray((low + high).max(axis=0) / np.float32(window.slack), np.float32)

    def _share(self, window: _Window, inside: Samples, energy: Samples) -> Samples:
        """float32[m]: what share of the energy the best pair explains."""
        return np.asarray(self._explained(window, inside).max(axis=0) / (energy + _TINY), np.float32)

    def _likely(self, window: _Window, x: Samples) -> Index:
        """Rows of x float32[m, samples] that look like a key."""
        inside, energy = self._inside(window, x)
        joint = np.einsum("ij,ij->i", inside, inside)
        loud = ~(energy <= self._floor * window.samples)
        likely = np.flatnonzero(loud & ~(joint < _JOINT_SLACK * window.share * energy))
        found, _ = self._fit(window, inside[likely], energy[likely], window.share)
        return likely[found]

    def _fit(self, window: _Window, inside: Samples, energy: Samples, least: float) -> tuple[Index, Samples]:
        """Which of windows that lie in the space of the pairs one pair explains, its tones of like strength, and what
        share of the energy."""
        maybe = np.flatnonzero(~(self._at_most(window, inside) < least * energy))
        inside, energy = inside[maybe], energy[maybe]
        explained = self._explained(window, inside)
        most = explained.max(axis=0)
        passed = np.flatnonzero(~(most < least * energy))
        best = explained[:, passed].argmax(axis=0)
        c = np.square(np.einsum("nkr,nr->nk", window.solve[best], inside[passed]))
        low, high = c[:, 0] + c[:, 2], c[:, 1] + c[:, 3]
        lopsided = np.minimum(low, high) < WEAKER_TONE * (low + high)
        passed = passed[~lopsided]
        return maybe[passed], np.asarray(most[passed] / (energy[passed] + _TINY), np.float32)


@cache
def _spans(count: int, samples: int, hop: int) -> Samples:
    """float32[samples + (count - 1) * hop, count]: which samples are whose, of windows a hop apart."""
    out = np.zeros((samples + (count - 1) * hop, count), np.float32)
    for i in range(count):
        out[i * hop : i * hop + samples, i] = 1
    return out


@cache
def _centre(samples: int) -> Samples:
    """float32[samples, samples]: takes the mean away."""
    return np.eye(samples, dtype=np.float32) - np.float32(1 / samples)


def _before(audio: Samples, row: Index, end: Index, samples: int) -> Samples:
    """float32[m, samples]: of each row of `audio`, what comes before `end`."""
    windows: Samples = np.ndarray((audio.size - samples + 1, samples), np.float32, audio, 0, 2 * audio.strides[1:])
    return np.asarray(windows[row * audio.shape[1] + end - samples], np.float32)
