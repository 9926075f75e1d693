"""The loops of dsp that gain most from being compiled. Each has its like in numpy, here or where it is called.

`dsp/_kernel` is built when flattone is installed if Cython and a C compiler are there. FLATTONE_PURE=1 leaves it out.
Either way the verdicts are the same, float rounding aside (tests/unit/test_kernel.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

try:
    from dsp import _kernel
except ImportError:
    _kernel = None  # type: ignore[assignment]

Octets = NDArray[np.uint8]
Samples = NDArray[np.float32]
Counts = NDArray[np.int64]
Index = NDArray[np.intp]
Flags = NDArray[np.bool_]
Stamps = NDArray[np.uint32]
Window = tuple[Samples, int, Samples, Samples, float]
"""float32[samples, hum + r], hum, float32[r, 4 * pairs], float32[pairs, 4, r], share: as in dsp.gate."""
Hear = Callable[[Index, Samples, Counts, Counts, list[tuple[int, int, int]], list[tuple[int, int]]], None]

COMPILED: Final[bool] = _kernel is not None and os.environ.get("FLATTONE_PURE", "0") in ("", "0")
LANES: Final[tuple[int, ...]] = tuple(lanes for lanes in (4, 8, 16) if COMPILED and lanes <= _kernel.LANES)
"""Widths of vector that this processor has, in floats."""


def judge(
    brief: Window, lasting: Window, limits: dict[str, float], lanes: int = 0
) -> Callable[[Samples, Counts, Counts], None] | None:
    """`Gate.judge` for these windows as one call of (audio, yes, last); None where it is not compiled.

    audio: float32[n, lasting's samples + length], the samples of a row side by side; yes, last: int64[n] of zeros, to
    be filled. lanes: one of LANES, 0 for the widest.
    """
    if not COMPILED:
        return None
    lanes = lanes or _kernel.LANES
    try:
        return _kernel.Judge(_window(lanes, *brief), _window(lanes, *lasting), lanes, limits)
    except ValueError:  # no sizes it was written for: another sampling rate
        return None


def hear(
    bank: Samples, hann: Samples, advance: NDArray[np.complex64], relative: Samples, response: Samples,
    ramp: NDArray[np.float64], limits: dict[str, float], runs: NDArray[Any], lanes: int = 0,
) -> Hear | None:  # fmt: skip
    """`Decoder.push` as one call of (slots, audio, known, position, pressed, released); None where it is not compiled.

    Tables and limits as in dsp.decoder; runs: RUN[capacity], written; pressed, released: lists to append to, in order
    of time within a row only. lanes: as for `judge`.
    """
    if not COMPILED:
        return None
    turn = np.stack([advance.real, advance.imag])
    state = runs.view(np.uint8).reshape(len(runs), -1)
    try:
        return _kernel.Hear(
            aligned(bank), aligned(hann), turn, relative, response, ramp, lanes or _kernel.LANES, limits, state
        )
    except ValueError:  # as above
        return None


def linear(octets: Octets, codec: Index, table: Samples, out: Samples) -> None:
    """g711.linear where it is compiled: out float32[n, length] of uint8[n, length] by table[codec], float32[2, 256]."""
    _kernel.decode(octets, codec, table, out)


def look(
    x: Samples, bank: Samples, hann: Samples, norm: float, share: float, weakest: float, twist: float
) -> tuple[Index, Samples]:
    """Rows of x float32[n, window] of which two tones are most, int[m], and float32[m, 8], the power of each tone.

    bank: float32[window, 16], real parts of low and high tones, then imaginary; hann: float32[window], squared. The
    stronger low and high tone, times norm, must be `share` of the energy under `hann`, neither below `weakest` nor
    more than `twist` times the other.
    """
    if COMPILED:
        near, power = np.empty(len(x), np.uint8), np.empty((len(x), 8), np.float32)
        _kernel.look(x, bank, hann, near, power, norm, share, weakest, twist)
    else:
        z = np.square(x @ bank)
        power = z[:, :8] + z[:, 8:]
        energy = np.square(x) @ hann
        low, high = power[:, :4].max(axis=1), power[:, 4:].max(axis=1)
        less = np.minimum(low, high)
        near = ((low + high) * norm >= share * energy) & (less >= weakest) & (np.maximum(low, high) <= twist * less)
    rows = np.flatnonzero(near)
    return rows, power[rows]


def place(
    slots: Index, timestamp: Stamps, length: int, resync: int, expected: Stamps, joined: Flags, started: Flags
) -> tuple[Flags, Flags]:
    """MaskLine._place where it is compiled: bool[n], late, and bool[n], following on a gap. Writes the last three."""
    late, gap = np.empty(len(slots), np.bool_), np.empty(len(slots), np.bool_)
    _kernel.place(
        slots, timestamp, length, resync, expected, _octets(joined), _octets(started), _octets(late), _octets(gap)
    )
    return late, gap


def settle(
    slots: Index, ok: Flags, forced: Flags, yes: Counts, last: Counts, limits: dict[str, int], until: Counts,
    run: Counts, heat: Counts, seen: Counts, confirmed: Flags,
) -> tuple[Flags, Flags]:  # fmt: skip
    """MaskLine._settle where it is compiled: bool[n], flat, and bool[n], hot. Writes the last five."""
    flat, hot = np.empty(len(slots), np.bool_), np.empty(len(slots), np.bool_)
    _kernel.settle(
        slots, _octets(ok), _octets(forced), yes, last, until, run, heat, seen, _octets(confirmed), _octets(flat),
        _octets(hot), **limits,
    )  # fmt: skip
    return flat, hot


def shift(
    slots: Index, ok: Flags, octets: Octets, codec: Index, transcode: Octets, before: Octets, held: Index
) -> Octets:
    """MaskLine._shift where it is compiled. Writes the last two."""
    line = np.empty((len(slots), before.shape[1] + octets.shape[1]), np.uint8)
    _kernel.shift(slots, _octets(ok), octets, codec, transcode, before, held, line)
    return line


def paint(
    slots: Index, ok: Flags, flat: Flags, clock: Stamps, codec: Index, tone: Octets, silence: Octets, unknown: Counts,
    out: Octets,
) -> Counts:  # fmt: skip
    """MaskLine._paint where it is compiled. Writes the last two."""
    masked = np.empty(len(slots), np.int64)
    _kernel.paint(slots, _octets(ok), _octets(flat), clock, codec, tone, silence, unknown, out, masked)
    return masked


def _octets(flags: Flags) -> Octets:
    return flags.view(np.uint8)


def _window(lanes: int, bank: Samples, hum: int, pairs: Samples, solve: Samples, share: float) -> _kernel.Window:
    more = -bank.shape[1] % lanes
    joint = np.zeros(bank.shape[1] + more, np.float32)
    joint[hum : bank.shape[1]] = 1
    # Vectors side by side as they are read: [pairs / lanes, r, 4, lanes].
    pairs = pairs.reshape(len(pairs), 4, -1, lanes).transpose(2, 0, 1, 3)
    bank, joint, pairs, solve = map(aligned, (np.pad(bank, ((0, 0), (0, more))), joint, pairs, solve))
    return _kernel.Window(bank, hum, joint, pairs, solve, share)


def aligned(table: Samples) -> Samples:
    """A copy that begins where a cache line does: a vector across two is read twice."""
    room = np.empty(table.size + 16, np.float32)
    begin = -room.ctypes.data // 4 % 16
    out = room[begin : begin + table.size].reshape(table.shape)
    out[:] = table
    return out
