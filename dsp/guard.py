"""An independent look at what leaves: if a key is heard there, the mask has failed, whatever the reason.

It shares nothing with the gate and the mask but the table of frequencies: a window of 20 ms a packet, the strongest
row and column tone, then the best fit of that pair, and a verdict only when two windows side by side agree. It is
blind to what is shorter than 40 ms, and needs to be: a false alarm takes a caller's voice away.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711, goertzel, kernel, keypad

Octets = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

WINDOW_MS: Final = 20
SHARE: Final = 0.5
"""Least share of the window's energy in the two tones at their nominal frequencies: the cheap look at every window."""
FIT: Final = 0.92
"""Least share that the best pair of that key explains. Of 20 hours of masked and speed-warped speech 73 places come to
0.6, 2 to 0.7 and none to 0.75 (tuning half; `benchmarks.masking` measures the other); tones at 15 dB SNR have 0.95."""
OFFSETS: Final = (-0.02, -0.01, 0.0, 0.01, 0.02)
"""Frequency errors tried for either tone: Q.24 asks receivers to take 1.8 %."""
TWIST_DB: Final = 10.0
LEAD_DB: Final = 6.0
"""By how much the tone must lead the others of its group: at 1.5 % off, a Hann window of 20 ms leaves 8 dB."""
WEAKEST_DBM0: Final = -48.0
_WINDOWS: Final = 2
"""Windows without overlap that must agree: 40 ms, the shortest key of Q.24."""


@cache
def _bases(window: int, rate: int) -> NDArray[np.float32]:
    """float32[16, 25, window, 4]: an orthonormal basis of each key's pair at each two offsets."""
    frequencies = [
        [np.array([low * (1 + a), high * (1 + b)]) for a in OFFSETS for b in OFFSETS] for low, high in keypad.pairs()
    ]
    return np.stack(
        [[goertzel.orthonormal(goertzel.tone_basis(pair, window, rate)) for pair in pairs] for pairs in frequencies]
    ).astype(np.float32)


class Guard:
    """Listeners behind `capacity` legs, one slot each."""

    def __init__(self, capacity: int, rate: int = 8000) -> None:
        self._window = size = WINDOW_MS * rate // 1000
        hann = np.hanning(self._window + 1)[:-1]
        self._hann = kernel.aligned(np.square(hann).astype(np.float32))
        self._bank = kernel.aligned(goertzel.spectrum_bank(np.array(keypad.LOW + keypad.HIGH), hann, rate))
        self._norm = float(np.sum(hann**2)) / 2
        self._bases = _bases(size, rate)
        self._weakest = g711.amplitude(WEAKEST_DBM0) ** 2
        self._tail = np.zeros((capacity, self._window), np.float32)
        self._key = np.full(capacity, -1, np.int64)
        self._heard = np.zeros(capacity, np.int64)
        """Samples over which that key has been heard without a break."""

    def reset(self, slots: Index | int) -> None:
        """Forget what left by `slots`."""
        self._tail[slots] = 0
        self._key[slots] = -1
        self._heard[slots] = 0

    def alarms(self, slots: Index, octets: Octets, codec: Index) -> Flags:
        """bool[n]: does what leaves by `slots` (distinct) now, uint8[n, length], end in a key? codec: int[n]."""
        n, length = octets.shape
        before = -length % self._window  # makes whole windows
        audio = np.empty((n, before + length), np.float32)
        if before:
            audio[:, :before] = self._tail[slots, self._window - before :]
        g711.linear(octets, codec, audio[:, before:])
        self._tail[slots] = audio[:, -self._window :]
        step = min(length, self._window)
        alarm = np.zeros(n, np.bool_)
        for end in range(self._window, audio.shape[1] + 1, self._window):
            key, fit = self.listen(audio[:, end - self._window : end])
            key[fit < FIT] = -1
            if key.max(initial=-1) < 0:
                self._key[slots], self._heard[slots] = -1, 0
                continue
            before, heard = self._key[slots], self._heard[slots]
            heard = np.where(key < 0, 0, np.where(key == before, heard + step, self._window))
            self._key[slots], self._heard[slots] = key, heard
            alarm |= heard >= _WINDOWS * self._window
        return alarm

    def listen(self, x: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Of float32[n, window]: the key that each may hold, int64[n] (-1 for none), and how well it fits, 0 to 1."""
        rows, power = kernel.look(
            x, self._bank, self._hann, self._norm, SHARE, self._weakest, 10 ** (TWIST_DB / 10)
        )  # fmt: skip
        key, fit = np.full(len(x), -1, np.int64), np.zeros(len(x), np.float32)
        if rows.size:
            lead = 10 ** (-LEAD_DB / 10)
            ranked = np.sort(power.reshape(-1, 2, 4), axis=2)
            clear = (ranked[:, :, 2] <= lead * ranked[:, :, 3]).all(axis=1)
            rows, power = rows[clear], power[clear]
            key[rows] = power[:, :4].argmax(axis=1) * 4 + power[:, 4:].argmax(axis=1)
            explained = np.square(np.einsum("nl,ndlf->ndf", x[rows], self._bases[key[rows]])).sum(axis=2).max(axis=1)
            fit[rows] = explained / np.square(x[rows]).sum(axis=1)
        return key, fit
