"""The keypad's band rebuilt from what cannot tell which key it was, for callers who talk while they key.

Speech hides a tone from any gate, so while a capture is armed the band 660 to 1700 Hz is never forwarded. Every key
has exactly one tone in band A (660-985 Hz) and one in band B (1150-1700 Hz), so two envelopes are the same for all
keys; they are laid on the squared positive half of the speech below 500 Hz, which has the speaker's harmonics, and a
little noise. Filters alone do not do: the click of a tone's edge and the products of G.711 reach outside the band and
name half of the keys (measured), so noise that follows the rise and fall of the level in the band covers them, before
the excitation is bent as well as in what passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Values = NDArray[np.float64]
Index = NDArray[np.intp]

HOP: Final = 8
"""Samples between two values of an envelope, 1 ms."""
HISTORY: Final = 128
"""Samples that must precede a block: the filters' length."""
FADE: Final = 64
"""8 ms from the original to the substitute and back: no click."""
_TAPS: Final = HISTORY + 1
_TABLE: Final = 1 << 16
_EARLY: Final = 32
"""So many taps of the filters that need not wait for the full delay are zero, at one end, and are left out."""
_FAINT: Final = 1e-9
_BLOCKS: Final = (32, 40, HOP)
_PIECE: Final = 160
_TILE: Final = 160
"""Samples that a filter makes in one product, samples and streams at a time: what is in between stays in the cache
(measured: benchmarks.dsp_cost)."""
LONGEST: Final = 8000
"""Samples of the longest block: a second."""
_LEVEL_HOPS: Final = 12
"""Smoothing of the two envelopes, ms: shorter, and the beat of tone and voice begins to tell (11.2 %, with 8)."""
_FAST_HOPS: Final = 8
"""Smoothing of the level that the covering noise follows, ms."""
_JITTER: Final = 0.10
"""Random share of the envelopes, against what is left of that beat."""
_RANGE: Final = 8
"""How long a rise or fall keeps the covering noise up, ms: the filters ring so long."""
_FLOOR: Final = 0.02
_EDGE: Final = 0.35
_KNEE: Final = 1.4
"""Covering noise: this share of the level in the band, and this of its rise or fall beyond the factor KNEE. With 0.35
and 8 ms of smoothing 11.5 % of keys were named, with 0.40 and 12 ms 9.9 to 10.8 % (no gate before it)."""
_BLUR: Final = 2.0
"""The same before the excitation is bent, times the noise outside: without, 12.3 % by the excitation alone."""
_NOISE: Final = 0.02
"""Share of noise in the excitation."""
_FLAT_HOPS: Final = 4
_LOW_HOPS: Final = 16
"""Hops over which the excitation is flattened, in its bands and before it is bent."""
_BENT: Final = 0.3
"""Root mean square, about, of what bending leaves of speech at level 1."""
_TINY: Final = np.float32(1e-10)


def _fir(edges: Sequence[float], gains: Sequence[float], weights: Sequence[float], taps: int) -> Values:
    """Linear phase, weighted least squares: from edges[2i] to edges[2i + 1] Hz the gain is gains[i]."""
    rows, want = [], []
    k = np.arange(taps // 2 + 1)
    for low, high, gain, weight in zip(edges[::2], edges[1::2], gains, weights, strict=True):
        hz = np.arange(low, high, 4.0)
        rows.append(weight * np.cos(2 * np.pi * hz[:, None] / 8000 * k))
        want.append(np.full(hz.size, weight * gain))
    half = np.linalg.lstsq(np.concatenate(rows), np.concatenate(want), rcond=None)[0]
    return np.concatenate([half[:0:-1] / 2, half[:1], half[1:] / 2])


def _minimum_phase(fir: Values) -> Values:
    """The same magnitude with the least delay (homomorphic method)."""
    n = 8192
    cepstrum = np.fft.ifft(np.log(np.maximum(np.abs(np.fft.fft(fir, n)), 3e-4))).real
    cepstrum[1 : n // 2] *= 2
    cepstrum[n // 2 + 1 :] = 0
    out = np.fft.ifft(np.exp(np.fft.fft(cepstrum))).real[: fir.size]
    fade = fir.size // 4
    out[-fade:] *= np.cos(np.linspace(0, np.pi / 2, fade)) ** 2
    return out


def _late(fir: Values, delay: int) -> Values:
    """A linear-phase filter, its middle `delay` samples late, in all taps."""
    return np.pad(fir, (delay - fir.size // 2, _TAPS - delay - fir.size // 2 - 1))


_A_EDGES: Final = [0.0, 520, 660, 985, 1150, 4000]
_B_EDGES: Final = [0.0, 985, 1150, 1700, 1860, 4000]
_STOP = _fir([0, 500, 660, 1700, 1860, 4000], [1, 0, 1], [1, 50, 1], _TAPS)
"""What passes: -54 dB or less within the band, exactly 64 samples late."""
_LOW = np.pad(_minimum_phase(_fir([0, 480, 660, 4000], [1, 0], [1, 50], 97)), (32, 0))
_FAST = _late(_fir([0, 400, 660, 1700, 1960, 4000], [0, 1, 0], [1, 5, 1], 49), 24)
_LEVELS = [_late(_fir(edges, [0, 1, 0], w, 97), 48) for edges, w in ((_A_EDGES, [1, 20, 20]), (_B_EDGES, [20, 20, 1]))]
"""Linear phase: with a group delay that varies over the band the moment of a rise names the key (15.8 %)."""
_REBUILD = [
    _minimum_phase(_fir(edges, [0, 1, 0], w, _TAPS)) for edges, w in ((_A_EDGES, [1, 20, 20]), (_B_EDGES, [20, 20, 1]))
]


def _toeplitz(filters: Sequence[Values], size: int) -> Samples:
    """float32[taps - 1 + size, len(filters) * size]: filters of as many taps over a window as one product.

    Taps below all rounding are left out: products with them are subnormal numbers, which made the rest three times as
    slow (measured).
    """
    taps = filters[0].size
    out = np.zeros((taps - 1 + size, len(filters), size), np.float32)
    for i, fir in enumerate(filters):
        audible = np.where(np.abs(fir) < _FAINT * np.abs(fir).max(), 0, fir)
        for j in range(size):
            out[j : j + taps, i, j] = audible[::-1]
    return out.reshape(taps - 1 + size, -1)


def _noise(rng: np.random.Generator) -> Samples:
    """float32[6, TABLE], as it is used: outside the band (shaped like the click of an edge), below 500 Hz, in A, in B,
    and around 1, slow (4 to 80 Hz) twice."""
    spectrum = np.fft.rfft(rng.standard_normal((6, _TABLE)))
    hz = np.fft.rfftfreq(_TABLE, 1 / 8000)
    click = np.where(hz < 1000, 1 / (1 + np.clip(600 - hz, 0, None) / 200), 1 / (1 + np.clip(hz - 1750, 0, None) / 300))
    spectrum[0] *= click * np.abs(np.fft.rfft(_STOP, _TABLE)) * (hz > 60) * (hz < 3600)
    spectrum[1] *= np.abs(np.fft.rfft(_LOW, _TABLE)) * (hz > 60)
    for row, fir in zip(spectrum[2:4], _REBUILD, strict=True):
        row *= np.abs(np.fft.rfft(fir, _TABLE))
    spectrum[4:] *= (hz < 80) & (hz > 4)
    noise = np.fft.irfft(spectrum, _TABLE)
    noise /= noise.std(axis=1, keepdims=True)
    noise[1] *= _BLUR
    noise[2:4] *= _NOISE
    noise[4:] = 1 + _JITTER * noise[4:]
    return np.asarray(noise, np.float32)


def _hann(hops: int) -> Values:
    window = np.hanning(hops + 2)[1:-1]
    return np.asarray(window / window.sum(), np.float64)


def _hops(size: int) -> Samples:
    """float32[size, size / HOP]: from squares to the mean of each hop."""
    return np.repeat(np.eye(size // HOP, dtype=np.float32), HOP, axis=0) / np.float32(HOP)


def _ramps(hops: int) -> Samples:
    """float32[hops + 1, hops * HOP]: from values at the ends of hops to a line from each to the next."""
    t = np.arange(1, HOP + 1, dtype=np.float32) / HOP
    out = np.zeros((hops + 1, hops, HOP), np.float32)
    for hop in range(hops):
        out[hop, hop], out[hop + 1, hop] = 1 - t, t
    return out.reshape(hops + 1, -1)


def _runs(x: Samples, pick: np.ufunc) -> Samples:
    """float32[n, k] -> float32[n, k - RANGE + 1]: the greatest or the least of each RANGE values in a row."""
    width = 1
    while width < _RANGE:  # by doubling: RANGE is a power of two
        x = pick(x[:, :-width], x[:, width:])
        width *= 2
    return x


def _filter(x: Samples, matrix: Samples, size: int, count: int) -> Samples:
    """`count` filters (`_toeplitz`) over float32[n, taps - 1 + length]: float32[count, n, length]."""
    n, window = len(x), len(matrix)
    out = np.empty((count, n, x.shape[1] - window + size), np.float32)
    for at in range(0, out.shape[2], size):
        product = x[:, at : at + window] @ matrix
        out[:, :, at : at + size] = product.reshape(n, count, size).transpose(1, 0, 2)
    return out


class _Plan:
    """All that is linear about a block of one length, as matrices: a few products instead of many small steps."""

    def __init__(self, length: int) -> None:
        hops = length // HOP
        self.block = size = next(block for block in _BLOCKS if length % block == 0)
        self.stop, self.low = _toeplitz([_STOP], size), _toeplitz([_LOW[_EARLY:]], size)
        self.levels = _toeplitz([fir[: _TAPS - _EARLY] for fir in (_FAST, *_LEVELS)], size)
        self.rebuild = _toeplitz([fir / _BENT for fir in _REBUILD], size)
        self.hops, self.ramps = _hops(length), _ramps(hops)
        self.fast = _toeplitz([_hann(_FAST_HOPS)], hops + _RANGE)
        self.slow = _toeplitz([_hann(_LEVEL_HOPS)], hops + 1)
        self.low_mean, self.flat_mean = (_toeplitz([np.full(k, 1 / k)], hops + 1) for k in (_LOW_HOPS, _FLAT_HOPS))


@cache
def _plan(length: int) -> _Plan:
    return _Plan(length)


class Substitution:
    """Rebuilders of `capacity` streams, one slot each; 8 kHz. seed: of the noise, which an attacker must not know."""

    def __init__(self, capacity: int, seed: int | None = None) -> None:
        self._random = np.random.default_rng(seed)
        self._noise = np.lib.stride_tricks.sliding_window_view(_noise(self._random), _PIECE, axis=1)
        self._clock = np.zeros(capacity, np.int64)
        self._power = np.zeros((3, capacity, _RANGE + _LEVEL_HOPS), np.float32)
        """Of past hops: in the band as a whole, in A, in B."""
        self._low_power = np.zeros((1, capacity, _LOW_HOPS), np.float32)
        self._bent = np.zeros((1, capacity, HISTORY), np.float32)
        self._flat = np.zeros((2, capacity, _FLAT_HOPS), np.float32)

    def reset(self, slots: Index) -> None:
        """Forget what was heard in `slots`; from now on they have other noise."""
        for state in (self._power, self._low_power, self._bent, self._flat):
            state[:, slots] = 0
        self._clock[slots] = self._random.integers(0, _TABLE - LONGEST, np.shape(slots))

    def process(self, slots: Index, audio: Samples) -> Samples:
        """Rebuild a block of distinct `slots`.

        audio: float32[n, HISTORY + length], length a multiple of HOP. Returns float32[n, length], 64 samples late.
        """
        n, length = len(slots), audio.shape[1] - HISTORY
        out = np.empty((n, length), np.float32)
        tile = -(-n // -(-n // _TILE)) if n else 1
        for row in range(0, n, tile):
            part = slice(row, row + tile)
            for at in range(0, length, _PIECE):
                end = min(at + _PIECE, length)
                out[part, at:end] = self._piece(slots[part], audio[part, at : HISTORY + end], at)
            self._clock[slots[part]] = (self._clock[slots[part]] + length) % (_TABLE - LONGEST)
        return out

    def _piece(self, slots: Index, audio: Samples, at: int) -> Samples:
        """Rebuild a piece of at most PIECE samples of a block, from `at` on."""
        length = audio.shape[1] - HISTORY
        plan = _plan(length)
        noise = self._noise[:, :, :length][:, self._clock[slots] + at]
        level, cover = self._levels(plan, slots, audio)
        low = _filter(audio[:, : length + HISTORY - _EARLY], plan.low, plan.block, 1)
        low[0] += cover * noise[1]
        rebuilt = _filter(self._bend(plan, slots, low)[0], plan.rebuild, plan.block, 2)
        rebuilt += noise[2:4]
        flat = _follow(self._flat, slots, np.square(rebuilt) @ plan.hops)
        rebuilt *= (1 / np.sqrt(flat @ plan.flat_mean + np.float32(1e-3))) @ plan.ramps
        rebuilt *= level
        rebuilt *= noise[4:]
        out = _filter(audio, plan.stop, plan.block, 1)[0]
        cover *= noise[0]
        for part in (cover, *rebuilt):
            out += part
        return np.asarray(out, np.float32)

    def _levels(self, plan: _Plan, slots: Index, audio: Samples) -> tuple[Samples, Samples]:
        """The levels of A and B, float32[2, n, length], and the covering noise's, float32[n, length]."""
        bands = _filter(audio[:, _EARLY:], plan.levels, plan.block, 3)
        power = _follow(self._power, slots, np.square(bands, out=bands) @ plan.hops)
        recent = np.sqrt(power[0, :, _LEVEL_HOPS - _FAST_HOPS + 1 :] @ plan.fast)
        top, bottom = _runs(recent, np.maximum), _runs(recent, np.minimum)
        cover = _FLOOR * top + _EDGE * np.maximum(top - _KNEE * bottom, 0)
        level = np.sqrt(power[1:, :, _RANGE:] @ plan.slow)
        return np.asarray(level @ plan.ramps, np.float32), np.asarray(cover @ plan.ramps, np.float32)

    def _bend(self, plan: _Plan, slots: Index, low: Samples) -> Samples:
        """float32[1, n, HISTORY + length]: the excitation, harmonics of the speech below 500 Hz, with what came before.

        low: float32[1, n, length].
        """
        power = _follow(self._low_power, slots, np.square(low) @ plan.hops)
        low *= (1 / np.sqrt(power @ plan.low_mean + _TINY)) @ plan.ramps
        return _follow(self._bent, slots, np.square(np.clip(low, 0, 4, out=low), out=low))


def _follow(state: Samples, slots: Index, new: Samples) -> Samples:
    """float32[k, n, past + m]: the past of `slots` that `state` float32[k, capacity, past] keeps, then `new`."""
    whole = np.concatenate([state[:, slots], new], axis=2)
    state[:, slots] = whole[:, :, -state.shape[2] :]
    return whole
