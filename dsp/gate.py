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

from dsp import g711, goertzel, keypad

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
_JOINT_SLACK: Final = 0.97
"""The joint test may only turn away what no pair explains, so it asks for a little less than the pair test."""
_TILE: Final = 256
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
    """float32[r, 4 * 80]: an orthonormal basis a pair within that subspace, first vectors first."""
    solve: Samples
    """float32[80, 4, r]: least-squares coefficients (cos low, cos high, sin low, sin high)."""


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
    return _Window(
        samples,
        share,
        np.concatenate([hum, joint], axis=1).astype(np.float32),
        hum.shape[1],
        np.stack([goertzel.orthonormal(joint.T @ basis) for basis in orthonormal], axis=2)
        .reshape(rank, -1)
        .astype(np.float32),
        np.stack([np.linalg.pinv(joint.T @ basis) for basis in bases]).astype(np.float32),
    )


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

    def judge(self, audio: Samples) -> Verdict:
        """Judge float32[n, history + length]: every window that ends in the last `length` samples, on its hop.

        What is not finite is a yes.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            return self._judge(audio)

    def _judge(self, audio: Samples) -> Verdict:
        n, total = audio.shape
        length = total - self.history
        count = -(-length // self.hop)
        first = total - self._short.samples - (count - 1) * self.hop
        short = goertzel.frames(audio[:, first:], self._short.samples, self.hop)
        long = np.lib.stride_tricks.sliding_window_view(audio, self._long.samples, axis=1)
        yes, last = np.zeros(n, np.int64), np.zeros(n, np.int64)
        for tile in range(0, n, _TILE):
            x = short[tile : tile + _TILE].reshape(-1, self._short.samples)
            found, close = self._likely(self._short, x, _CLOSE, _ONSET)
            found = found[self._plausible(self._placed(long, tile, found, count, length))]
            every = close[(count - 1 - close % count) % _LONG_EVERY == 0]
            more, _ = self._likely(self._long, self._placed(long, tile, every, count, length), 1.0)
            place = np.concatenate([found, every[more]])
            if place.size:
                row = tile + place // count
                yes += np.bincount(row, minlength=n)
                np.maximum.at(last, row, length - (count - 1 - place % count) * self.hop)
        return Verdict(yes, last)

    def _placed(self, long: Samples, tile: int, place: Index, count: int, length: int) -> Samples:
        """The long windows that end where the short ones of index `place` in the tile do, float32[m, samples]."""
        end = length - (count - 1 - place % count) * self.hop
        return long[tile + place // count, self.history + end - self._long.samples]

    def _plausible(self, whole: Samples) -> Flags:
        """bool[m]: whether the second halves of long windows `whole`, that may be tones, are no vowels.

        A vowel fits a pair for one period of the voice as well as a tone does, and no longer. So what fits less well
        must stand out of what was before; what was as loud and fitted nearly as well before must have been the same
        pair; and what fades within the window is no key.
        """
        if not len(whole):
            return np.zeros(0, np.bool_)
        half = self._short.samples
        x = np.ascontiguousarray(whole[:, half:])
        inside, energy = self._inside(self._short, x)
        inside_before, before = self._inside(self._short, np.ascontiguousarray(whole[:, :half]))
        share, share_before = self._share(self._short, inside, energy), self._share(self._short, inside_before, before)
        loud, loud_before = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", whole[:, :half], whole[:, :half])
        fine = ~(loud_before > 10 ** (-_STEP_DB / 10) * loud) | (share_before < _VOWEL)
        old = np.flatnonzero(~fine)
        if old.size:
            fine[old] = self._share(self._long, *self._inside(self._long, whole[old])) >= _STEADY
        joint = np.einsum("ij,ij->i", inside, inside)
        onset = (before <= 10 ** (-_ONSET_DB / 10) * energy) & (joint >= _ONSET_JOINT * energy)
        fine &= ~(share < self._short.share) | onset
        halves = x.reshape(len(x), 2, half // 2)
        halves = halves - halves.mean(axis=2, keepdims=True)
        power = np.einsum("ijk,ijk->ij", halves, halves)
        return np.asarray(fine & ~(power[:, 0] > 10 ** (_FADE_DB / 10) * power[:, 1]), np.bool_)

    def _share(self, window: _Window, inside: Samples, energy: Samples) -> Samples:
        """float32[m]: what share of the energy the best pair explains."""
        explained = np.square(inside @ window.pairs).reshape(len(inside), 4, len(window.solve)).sum(axis=1).max(axis=1)
        return np.asarray(explained / (energy + _TINY), np.float32)

    def _inside(self, window: _Window, x: Samples) -> tuple[Samples, Samples]:
        """Coordinates of x in the space of the pairs, float32[m, r], and its energy without hum, float32[m]."""
        y = x @ window.bank
        hum = y[:, : window.hum]
        return y[:, window.hum :], np.einsum("ij,ij->i", x, x) - np.einsum("ij,ij->i", hum, hum)

    def _likely(self, window: _Window, x: Samples, close: float, limit: float = 1.0) -> tuple[Index, Index]:
        """Rows of x float32[m, samples] that look like a key, and those of whose energy the share `close` may be."""
        inside, energy = self._inside(window, x)
        joint = np.einsum("ij,ij->i", inside, inside)
        # Limits are asked the other way round, so that what is not a number is masked.
        loud = ~(energy <= self._floor * window.samples)
        near = np.flatnonzero(loud & ~(joint < close * energy))
        found = np.flatnonzero(loud & ~(joint < _JOINT_SLACK * window.share * energy))
        if not found.size:
            return found, near
        inside, share = inside[found], min(window.share, limit) * energy[found]
        explained = np.square(inside @ window.pairs).reshape(len(found), 4, -1).sum(axis=1)
        best = explained.argmax(axis=1)
        passed = np.flatnonzero(~(explained[np.arange(len(found)), best] < share))
        c = np.square(np.einsum("nkr,nr->nk", window.solve[best[passed]], inside[passed]))
        low, high = c[:, 0] + c[:, 2], c[:, 1] + c[:, 3]
        lopsided = np.minimum(low, high) < WEAKER_TONE * (low + high)
        return found[passed[~lopsided]], near
