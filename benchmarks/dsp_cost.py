"""What masking costs a 20 ms frame on one core, as a ratio to spandsp's detector alone on the same speech, in one run.

Guarded: look-back line, gate, decoder and guard on recorded speech (the decoder runs where the gate has said yes).
Armed: the same and substitution. Each figure is the least of several passes taken in turn, so that a busy machine
slows both alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks import material
from benchmarks.material import Condition, keying
from benchmarks.peers import spandsp
from benchmarks.table import RESULTS, Row, arguments, finish
from dsp import g711
from dsp.decoder import Decoder
from dsp.guard import Guard
from dsp.mask import MaskLine

FRAME = 160
BATCHES = (64, 256, 1024)


class Leg:
    """The whole of the masking of n caller legs, as the engine strings it together."""

    def __init__(self, n: int, armed: bool) -> None:
        self._line, self._decoder, self._guard = MaskLine(n, seed=1), Decoder(n), Guard(n)
        self._slots, self._codec = np.arange(n), np.zeros(n, np.intp)
        self._on, self._off = np.ones(n, np.bool_), np.zeros(n, np.bool_)
        self._armed = np.full(n, armed)
        self._clock = 0
        self.parts: dict[str, float] = {}

    def frame(self, octets: NDArray[np.uint8]) -> None:
        """Work through uint8[n, 160]."""
        began = time.perf_counter()
        stamp = np.full(len(octets), self._clock, np.uint32)
        block = self._line.push(
            self._slots, octets, self._codec, stamp, self._on, self._off, substitute=self._armed
        )  # fmt: skip
        masked = time.perf_counter()
        self._guard.alarms(self._slots, block.octets, self._codec)
        guarded = time.perf_counter()
        hot = np.flatnonzero(block.hot)
        if hot.size:
            heard = block.audio(hot)[:, -FRAME - self._decoder.span :]
            self._decoder.push(self._slots[hot], heard, block.known[hot], stamp[hot].astype(np.int64))
        decoded = time.perf_counter()
        for part, took in zip(
            ("mask", "guard", "decoder"), (masked - began, guarded - masked, decoded - guarded), strict=True
        ):
            self.parts[part] = self.parts.get(part, 0.0) + took
        self._clock += FRAME


def least(passes: int, jobs: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Least microseconds a frame of each job, taken in turn."""
    best = dict.fromkeys(jobs, np.inf)
    for _ in range(passes):
        for name, job in jobs.items():
            best[name] = min(best[name], job())
    return best


def ours(octets: NDArray[np.uint8], armed: bool, parts: dict[str, float]) -> float:
    """Microseconds a frame for uint8[n, length]."""
    leg = Leg(len(octets), armed)
    frames = octets.shape[1] // FRAME
    began = time.perf_counter()
    for i in range(frames):
        leg.frame(octets[:, i * FRAME : (i + 1) * FRAME])
    took = time.perf_counter() - began
    parts.update({part: 1e6 * spent / (frames * len(octets)) for part, spent in leg.parts.items()})
    return float(1e6 * took / (frames * len(octets)))


def theirs(samples: NDArray[np.int16]) -> float:
    """Microseconds a frame for spandsp on int16[n]."""
    library = spandsp.library()
    receiver = library.dtmf_rx_init(None, None, None)
    began = time.perf_counter()
    spandsp.run(samples, receiver, library)
    took = time.perf_counter() - began
    library.dtmf_rx_free(receiver)
    return 1e6 * took / (len(samples) / FRAME)


def main() -> int:
    args = arguments(__doc__)
    try:
        spandsp.library()
    except OSError as error:
        sys.exit(str(error))
    frames, passes = (40, 3) if args.quick else (150, 7)
    speech = np.concatenate(material.prompts(material.FINAL))
    rows: list[Row] = []
    parts: dict[str, float] = {}
    for n in BATCHES:
        octets = g711.encode(np.resize(speech, (n, frames * FRAME)), g711.PCMU)
        samples = np.ascontiguousarray(g711.DECODE_INT16[g711.PCMU][octets].ravel())
        found = least(
            passes,
            {
                "spandsp": partial(theirs, samples),
                "guarded": partial(ours, octets, False, parts),
                "armed": partial(ours, octets, True, {}),
            },
        )  # fmt: skip
        absolute = f"{found['guarded']:.2f} against {found['spandsp']:.2f} us a frame"
        rows.append(Row(f"guarded, N={n}: {absolute}", 3.0, found["guarded"] / found["spandsp"], "ratio", "lower"))
        split = ", ".join(f"{part} {spent:.2f}" for part, spent in parts.items())
        print(f"N={n}, last pass: {split} us a frame")
        absolute = f"{found['armed']:.2f} us a frame"
        rows.append(Row(f"armed, N={n}: {absolute}", 5.0, found["armed"] / found["spandsp"], "ratio", "lower"))
    keys = keying(Condition(snr=30), 64 * 8, 1998, 64)
    octets = g711.encode(keys.audio, g711.PCMU)
    samples = np.ascontiguousarray(g711.DECODE_INT16[g711.PCMU][octets].ravel())
    found = least(passes, {"spandsp": partial(theirs, samples), "guarded": partial(ours, octets, False, parts)})
    rows.append(
        Row(
            f"guarded, N=64, nothing but keys: {found['guarded']:.2f} us a frame",
            100.0,
            found["guarded"] / found["spandsp"],
            "ratio",
            "lower",
            published=True,
        )
    )
    if not args.quick:
        _plot(rows)
    return finish(rows, args.json)


def _plot(rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3))
    for name, colour, goal in (("guarded", "#37a", 3.0), ("armed", "#2a7", 5.0)):
        chosen = [row for row in rows if row.what.startswith(f"{name}, N=") and "keys" not in row.what]
        axes.plot(BATCHES, [row.measured for row in chosen], "o-", color=colour, label=name)
        axes.axhline(goal, color=colour, linestyle=":", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("streams in a batch")
    axes.set_ylabel("cost, spandsp's detector = 1")
    axes.set_ylim(0)
    axes.legend()
    figure.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "dsp_cost.png", dpi=80)


if __name__ == "__main__":
    sys.exit(main())
