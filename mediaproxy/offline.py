"""`flattone mask`: a recording through the very leg that the live proxy runs, packet by packet."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """octets: uint8[..., len + delay], what an agent's phone plays; first: where in each recording, in samples, the
    first key was confirmed, -1 for nowhere; the other fields are what the command prints."""

    octets: NDArray[np.uint8]
    delay_ms: int
    masked_ms: float
    keys: int
    packets: int
    lost: int
    first: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Network:
    """What the way to this box does to packets. loss: share lost, each by itself where `burst` is 1, else in bursts of
    that mean length (Gilbert-Elliott).

    late, twice: share of packets that come one packet late, or twice; jump: share at which the sender's clock jumps.
    """

    loss: float = 0.0
    burst: float = 1.0
    seed: int = 0
    late: float = 0.0
    twice: float = 0.0
    jump: float = 0.0

    def lost(self, n: int) -> NDArray[np.bool_]:
        """bool[n], True where the packet is lost."""
        rng = np.random.default_rng(self.seed)
        if self.burst <= 1:
            return np.asarray(rng.random(n) < self.loss, np.bool_)
        leave = 1 / self.burst
        enter = min(leave * self.loss / max(1 - self.loss, 1e-9), 1.0)
        draws, lost, bad = rng.random(n), np.zeros(n, np.bool_), False
        for i in range(n):
            bad = draws[i] >= leave if bad else draws[i] < enter
            lost[i] = bad
        return lost

    def arrivals(self, streams: int, count: int) -> list[NDArray[np.intp]]:
        """For each of `streams`, the packets (0 to count - 1) in the order in which they come."""
        lost = self.lost(streams * count).reshape(streams, count)
        rng = np.random.default_rng(self.seed + 1)
        ways = []
        for gone in lost:
            when = np.arange(count) + np.where(rng.random(count) < self.late, 1.5, 0)
            way = np.argsort(when, kind="stable")
            way = way[~gone[way]]
            ways.append(np.repeat(way, np.where(rng.random(len(way)) < self.twice, 2, 1)))
        return ways

    def clocks(self, streams: int, count: int) -> NDArray[np.uint32]:
        """uint32[streams, count]: what to add to each packet's timestamp."""
        rng = np.random.default_rng(self.seed + 2)
        jumps = np.where(rng.random((streams, count)) < self.jump, rng.integers(0, 1 << 32, (streams, count)), 0)
        return np.cumsum(jumps, axis=1).astype(np.uint32)


def mask(
    octets: NDArray[np.uint8],
    mode: Mode = Mode.GUARDED,
    codec: str = "pcmu",
    ptime_ms: int = 20,
    network: Network | None = None,
    substitution: bool = True,
) -> Result:
    """Send G.711 `octets` uint8[n] through a leg; what never arrives at the agent is silence in the result."""
    result = mask_many(octets[None, :], mode, codec, ptime_ms, network, substitution)
    return replace(result, octets=result.octets[0])


def mask_many(
    octets: NDArray[np.uint8],
    mode: Mode = Mode.GUARDED,
    codec: str = "pcmu",
    ptime_ms: int = 20,
    network: Network | None = None,
    substitution: bool = True,
) -> Result:
    """Send n recordings uint8[n, length] through n legs of one engine, in step; the counts are of all together.

    substitution: False leaves it out of guarded legs, so that every key meets the gate alone, as a first key does.
    """
    encoding, payload_type = CODECS[codec]
    number = g711.PCMU if codec == "pcmu" else g711.PCMA
    streams, length = octets.shape
    engine = Engine(2 * streams)
    if not substitution:
        engine.confirmed_seconds = 0.0
    for slot in range(streams):
        engine.open(slot, streams + slot, mode, lambda: 0, recorded=False, now=0.0)
        for leg in (slot, streams + slot):
            engine.update(leg, {payload_type: encoding}, {encoding: payload_type}, ptime_ms)
    size, delay = 8 * ptime_ms, engine.line.delay
    count = -(-(length + delay) // size)
    source = np.full((streams, count * size), g711.SILENCE[number], np.uint8)
    source[:, :length] = octets
    network = network or Network()
    ways, clocks = network.arrivals(streams, count), network.clocks(streams, count)
    heard = np.full_like(source, g711.SILENCE[number])
    first = np.full(streams, -1, np.int64)
    rows = Rows()
    due = np.zeros(streams, np.intp)
    for i in range(count):
        here, packet = _due(ways, due, i)
        n = rows.count = len(here)
        stamp = (packet * size).astype(np.uint32) + clocks[here, packet]
        kind = np.full(n, payload_type, np.uint8)
        rtp.write(rows.slab[:n], kind, packet.astype(np.uint16), stamp, np.ones(n, np.uint32))
        place = packet[:, None] * size + np.arange(size)
        rows.slab[:n, rtp.HEADER : rtp.HEADER + size] = source[here[:, None], place]
        rows.slot[:n], rows.length[:n] = here, rtp.HEADER + size
        out = engine.process(rows, i * ptime_ms / 1000)
        sent = np.flatnonzero(~out.control[: out.count])
        _play(heard, out.slot[sent] - streams, out.slab[sent, : rtp.HEADER + size])
        first[(first < 0) & (engine.tally.keys[:streams] > 0)] = i * size
    return Result(
        heard[:, : length + delay],
        1000 * delay // engine.line.rate,
        float(engine.tally.masked[:streams].sum()) / 8,
        int(engine.tally.keys[:streams].sum()),
        count * streams,
        count * streams - sum(len(np.unique(way)) for way in ways),
        first,
    )


def _due(ways: list[NDArray[np.intp]], due: NDArray[np.intp], tick: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The packets that have come by `tick`: (stream, packet). A late one comes with the one after it."""
    streams, packets = [], []
    for stream, way in enumerate(ways):
        while due[stream] < len(way) and way[due[stream]] <= tick:
            streams.append(stream)
            packets.append(way[due[stream]])
            due[stream] += 1
    return np.array(streams, np.intp), np.array(packets, np.intp)


def _play(heard: NDArray[np.uint8], stream: NDArray[np.intp], packets: NDArray[np.uint8]) -> None:
    """Lay what came out where its timestamps say (egress began at 0)."""
    at = packets[:, 4:8].astype(np.int64) @ (1 << np.array([24, 16, 8, 0]))
    size = packets.shape[1] - rtp.HEADER
    fits = np.flatnonzero(at + size <= heard.shape[1])
    heard[stream[fits, None], at[fits, None] + np.arange(size)] = packets[fits, rtp.HEADER :]
