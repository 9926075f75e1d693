"""`flattone mask`: a recording through the very leg that the live proxy runs, packet by packet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsp import g711
from mediaproxy.media.engine import Engine
from mediaproxy.media.modes import Mode
from mediaproxy.media.rows import Rows
from mediaproxy.media.wire import rtp

CODECS = {"pcmu": ("PCMU/8000", 0), "pcma": ("PCMA/8000", 8)}


@dataclass(frozen=True, slots=True)
class Result:
    """octets: uint8[len + delay], what an agent's phone plays; the other fields are what the command prints."""

    octets: NDArray[np.uint8]
    delay_ms: int
    masked_ms: float
    keys: int
    packets: int
    lost: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Gilbert-Elliott: share of packets lost, mean length of a burst, seed."""

    share: float = 0.0
    burst: float = 1.0
    seed: int = 0

    def pattern(self, n: int) -> NDArray[np.bool_]:
        """bool[n], True where the packet is lost."""
        rng = np.random.default_rng(self.seed)
        leave = 1 / max(self.burst, 1.0)
        enter = min(leave * self.share / max(1 - self.share, 1e-9), 1.0)
        draws, lost, bad = rng.random(n), np.zeros(n, np.bool_), False
        for i in range(n):
            bad = draws[i] >= leave if bad else draws[i] < enter
            lost[i] = bad
        return lost


def mask(
    octets: NDArray[np.uint8],
    mode: Mode = Mode.GUARDED,
    codec: str = "pcmu",
    ptime_ms: int = 20,
    loss: Loss | None = None,
) -> Result:
    """Send G.711 `octets` uint8[n] through a leg; what never arrives at the agent is silence in the result."""
    encoding, payload_type = CODECS[codec]
    number = g711.PCMU if codec == "pcmu" else g711.PCMA
    engine = Engine(2)
    engine.open(0, 1, mode, lambda: 0, recorded=False, now=0.0)
    for slot in (0, 1):
        engine.update(slot, {payload_type: encoding}, {encoding: payload_type}, ptime_ms)
    size, delay = 8 * ptime_ms, engine.line.delay
    count = -(-(len(octets) + delay) // size)
    source = np.full(count * size, g711.SILENCE[number], np.uint8)
    source[: len(octets)] = octets
    gone = loss.pattern(count) if loss is not None else np.zeros(count, np.bool_)
    heard = np.full(count * size, g711.SILENCE[number], np.uint8)
    rows = Rows(np.zeros((1, rtp.LARGEST), np.uint8))
    one = np.zeros(1, np.uint32)
    for i in np.flatnonzero(~gone):
        first = np.array([payload_type], np.uint8)
        rtp.write(rows.slab, first, (one + i).astype(np.uint16), (one + i * size).astype(np.uint32), one)
        rows.slab[0, rtp.HEADER : rtp.HEADER + size] = source[i * size : (i + 1) * size]
        rows.count, rows.length[0] = 1, rtp.HEADER + size
        for row in range((out := engine.process(rows, i * ptime_ms / 1000)).count):
            if not out.control[row]:
                heard[i * size : (i + 1) * size] = out.slab[row, rtp.HEADER : rtp.HEADER + size]
    return Result(
        heard[: len(octets) + delay],
        1000 * delay // engine.line.rate,
        float(engine.masked[0]) / 8,
        int(engine.keyed[0]),
        count,
        int(gone.sum()),
    )
