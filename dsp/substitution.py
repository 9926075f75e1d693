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
_BLOCK: Final = 40
_TILE: Final = 128
"""Streams at a time: what is in between stays in the cache (measured: benchmarks.dsp_cost)."""
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


def _hann(hops: int) -> Samples:
    window = np.hanning(hops + 2)[1:-1]
    return np.asarray(window / window.sum(), np.float32)


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


def _toeplitz(filters: list[Values], size: int) -> Samples:
    """float32[HISTORY + size, len(filters) * size]: filters over a window as one product."""
    out = np.zeros((HISTORY + size, len(filters), size), np.float32)
    for i, fir in enumerate(filters):
        for j in range(size):
            out[j : j + _TAPS, i, j] = fir[::-1]
    return out.reshape(HISTORY + size, -1)


def _noise(rng: np.random.Generator) -> Samples:
    """float32[6, TABLE], RMS 1: outside the band (shaped like the click of an edge), below 500 Hz, in A, in B, slow
    (4 to 80 Hz) twice."""
    spectrum = np.fft.rfft(rng.standard_normal((6, _TABLE)))
    hz = np.fft.rfftfreq(_TABLE, 1 / 8000)
    click = np.where(hz < 1000, 1 / (1 + np.clip(600 - hz, 0, None) / 200), 1 / (1 + np.clip(hz - 1750, 0, None) / 300))
    spectrum[0] *= click * np.abs(np.fft.rfft(_STOP, _TABLE)) * (hz > 60) * (hz < 3600)
    spectrum[1] *= np.abs(np.fft.rfft(_LOW, _TABLE)) * (hz > 60)
    for row, fir in zip(spectrum[2:4], _REBUILD, strict=True):
        row *= np.abs(np.fft.rfft(fir, _TABLE))
    spectrum[4:] *= (hz < 80) & (hz > 4)
    noise = np.fft.irfft(spectrum, _TABLE)
    return np.asarray(noise / noise.std(axis=1, keepdims=True), np.float32)


def _ramp(nodes: Samples) -> Samples:
    """float32[..., k + 1], values at the ends of hops -> float32[..., k * HOP], linear in between."""
    t = np.arange(1, HOP + 1, dtype=np.float32) / HOP
    out = nodes[..., :-1, None] + np.diff(nodes, axis=-1)[..., None] * t
    return np.asarray(out.reshape(*nodes.shape[:-1], -1), np.float32)


def _power(x: Samples) -> Samples:
    """float32[..., k * HOP] -> float32[..., k], mean square of each hop."""
    hops = x.reshape(*x.shape[:-1], -1, HOP)
    return np.asarray(np.einsum("...i,...i->...", hops, hops) / np.float32(HOP), np.float32)


def _smooth(x: Samples, weights: Samples) -> Samples:
    return np.asarray(np.lib.stride_tricks.sliding_window_view(x, weights.size, axis=-1) @ weights, np.float32)


class Substitution:
    """Rebuilders of `capacity` streams, one slot each; 8 kHz. seed: of the noise, which an attacker must not know."""

    def __init__(self, capacity: int, seed: int | None = None) -> None:
        self._random = np.random.default_rng(seed)
        self._table = _noise(self._random)
        self._clock = np.zeros(capacity, np.int64)
        self._power = np.zeros((capacity, 3, _RANGE + _LEVEL_HOPS), np.float32)
        """Of past hops: in the band as a whole, in A, in B."""
        self._low_power = np.zeros((capacity, _LOW_HOPS), np.float32)
        self._bent = np.zeros((capacity, HISTORY), np.float32)
        self._flat = np.zeros((capacity, 2, _FLAT_HOPS), np.float32)
        self._matrices: dict[int, tuple[Samples, Samples]] = {}

    def reset(self, slots: Index) -> None:
        """Forget what was heard in `slots`; from now on they have other noise."""
        for state in (self._power, self._low_power, self._bent, self._flat):
            state[slots] = 0
        self._clock[slots] = self._random.integers(0, _TABLE - LONGEST, np.shape(slots))

    def process(self, slots: Index, audio: Samples) -> Samples:
        """Rebuild a block of distinct `slots`.

        audio: float32[n, HISTORY + length], length a multiple of HOP. Returns float32[n, length], 64 samples late.
        """
        out = np.empty((len(slots), audio.shape[1] - HISTORY), np.float32)
        for tile in range(0, len(slots), _TILE):
            part = slice(tile, tile + _TILE)
            out[part] = self._tile(slots[part], audio[part])
        return out

    def _tile(self, slots: Index, audio: Samples) -> Samples:
        length = audio.shape[1] - HISTORY
        bands = self._filter(audio, 0, 5)
        noise = np.lib.stride_tricks.sliding_window_view(self._table, length, axis=1)[:, self._clock[slots]]
        self._clock[slots] = (self._clock[slots] + length) % (_TABLE - LONGEST)
        level, cover = self._levels(slots, bands[:, 2:])
        bent = self._bend(slots, bands[:, 1] + _BLUR * cover * noise[1])
        rebuilt = self._filter(bent, 1, 2) / np.float32(_BENT)
        rebuilt += _NOISE * noise[2:4].transpose(1, 0, 2)
        flat = np.concatenate([self._flat[slots], _power(rebuilt)], axis=2)
        self._flat[slots] = flat[:, :, -_FLAT_HOPS:]
        even = 1 / np.sqrt(_smooth(flat, np.full(_FLAT_HOPS, 1 / _FLAT_HOPS, np.float32)) + np.float32(1e-3))
        rebuilt *= _ramp(level) * (1 + _JITTER * noise[4:].transpose(1, 0, 2)) * _ramp(even)
        return np.asarray(bands[:, 0] + cover * noise[0] + rebuilt[:, 0] + rebuilt[:, 1], np.float32)

    def _levels(self, slots: Index, bands: Samples) -> tuple[Samples, Samples]:
        """From the band as a whole, A and B (float32[n, 3, length]): the levels of A and B at the ends of hops
        (float32[n, 2, hops + 1]) and the covering noise (float32[n, length])."""
        power = np.concatenate([self._power[slots], _power(bands)], axis=2)
        self._power[slots] = power[:, :, -self._power.shape[2] :]
        fast = np.sqrt(_smooth(power[:, 0, _LEVEL_HOPS - _FAST_HOPS :], _hann(_FAST_HOPS)))
        recent = np.lib.stride_tricks.sliding_window_view(fast, _RANGE, axis=1)[:, 1:]
        top, bottom = recent.max(axis=2), recent.min(axis=2)
        cover = _FLOOR * top + _EDGE * np.maximum(top - _KNEE * bottom, 0)
        return np.sqrt(_smooth(power[:, 1:, _RANGE:], _hann(_LEVEL_HOPS))), _ramp(cover)

    def _bend(self, slots: Index, low: Samples) -> Samples:
        """float32[n, HISTORY + length]: the excitation, harmonics of the speech below 500 Hz, with what came before."""
        power = np.concatenate([self._low_power[slots], _power(low)], axis=1)
        self._low_power[slots] = power[:, -_LOW_HOPS:]
        scale = 1 / np.sqrt(_smooth(power, np.full(_LOW_HOPS, 1 / _LOW_HOPS, np.float32)) + _TINY)
        bent = np.concatenate([self._bent[slots], np.square(np.clip(low * _ramp(scale), 0, 4))], axis=1)
        self._bent[slots] = bent[:, -HISTORY:]
        return bent

    def _filter(self, x: Samples, which: int, count: int) -> Samples:
        """float32[n, HISTORY + length] -> float32[n, count, length]."""
        n, length = x.shape[0], x.shape[1] - HISTORY
        size = _BLOCK if length % _BLOCK == 0 else HOP
        if size not in self._matrices:
            self._matrices[size] = (_toeplitz([_STOP, _LOW, _FAST, *_LEVELS], size), _toeplitz(_REBUILD, size))
        windows = np.lib.stride_tricks.sliding_window_view(x, HISTORY + size, axis=1)[:, ::size]
        out = windows.reshape(-1, HISTORY + size) @ self._matrices[size][which]
        return out.reshape(n, length // size, count, size).transpose(0, 2, 1, 3).reshape(n, count, length)
