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
    """octets: uint8[..., len + delay], what an agent's phone plays; the other fields are what the command prints."""

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
    result = mask_many(octets[None, :], mode, codec, ptime_ms, loss)
    return Result(result.octets[0], result.delay_ms, result.masked_ms, result.keys, result.packets, result.lost)


def mask_many(
    octets: NDArray[np.uint8],
    mode: Mode = Mode.GUARDED,
    codec: str = "pcmu",
    ptime_ms: int = 20,
    loss: Loss | None = None,
) -> Result:
    """Send n recordings uint8[n, length] through n legs of one engine, in step; the counts are of all together."""
    encoding, payload_type = CODECS[codec]
    number = g711.PCMU if codec == "pcmu" else g711.PCMA
    streams, length = octets.shape
    engine = Engine(2 * streams)
    for slot in range(streams):
        engine.open(slot, streams + slot, mode, lambda: 0, recorded=False, now=0.0)
        for leg in (slot, streams + slot):
            engine.update(leg, {payload_type: encoding}, {encoding: payload_type}, ptime_ms)
    size, delay = 8 * ptime_ms, engine.line.delay
    count = -(-(length + delay) // size)
    source = np.full((streams, count * size), g711.SILENCE[number], np.uint8)
    source[:, :length] = octets
    gone = (
        loss.pattern(count * streams).reshape(streams, count) if loss is not None else np.zeros((streams, count), bool)
    )
    heard = np.full_like(source, g711.SILENCE[number])
    rows = Rows()
    for i in range(count):
        here = np.flatnonzero(~gone[:, i])
        n = rows.count = len(here)
        one = np.ones(n, np.uint32)
        first = np.full(n, payload_type, np.uint8)
        rtp.write(rows.slab[:n], first, (one * i).astype(np.uint16), one * np.uint32(i * size), one)
        rows.slab[:n, rtp.HEADER : rtp.HEADER + size] = source[here, i * size : (i + 1) * size]
        rows.slot[:n], rows.length[:n] = here, rtp.HEADER + size
        out = engine.process(rows, i * ptime_ms / 1000)
        sent = np.flatnonzero(~out.control[: out.count])
        to = out.slot[sent] - streams
        heard[to, i * size : (i + 1) * size] = out.slab[sent, rtp.HEADER : rtp.HEADER + size]
    return Result(
        heard[:, : length + delay],
        1000 * delay // engine.line.rate,
        float(engine.masked[:streams].sum()) / 8,
        int(engine.keyed[:streams].sum()),
        count * streams,
        int(gone.sum()),
    )
