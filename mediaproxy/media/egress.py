"""What leaves by each leg: SSRC, sequence numbers and clock of this box's own, whatever the sender's do.

The numbers can live in memory that outlasts the process, so that a worker that takes over goes on where the one before
it stopped; clocks are the machine's monotonic one, which outlasts it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mediaproxy.media.codec import FORMATS
from mediaproxy.media.rows import Rows
from mediaproxy.media.wire import rtp

Index = NDArray[np.intp]

DROP: Final = 255
_ASTRAY: Final = 4000
"""A timestamp 500 ms off the wall clock is no loss or silence but another clock."""


def octets(capacity: int) -> int:
    """Octets of memory that hold the numbers of `capacity` slots."""
    return capacity * (8 + 4 + 4 + 4 + 2)


def _columns(
    memory: memoryview, n: int
) -> tuple[NDArray[np.float64], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint16]]:
    """Arrays over `memory`: when a stream last moved, its local port, SSRC, clock and sequence number."""
    words = np.frombuffer(memory, np.uint32, 3 * n, 8 * n).reshape(3, n)
    return (
        np.frombuffer(memory, np.float64, n),
        words[0],
        words[1],
        words[2],
        np.frombuffer(memory, np.uint16, n, 20 * n),
    )


@dataclass(frozen=True, slots=True)
class Numbers:
    """Where a stream stood: `end` of its last packet on its clock, sent `at` seconds on the monotonic clock."""

    ssrc: int
    sequence: int
    end: int
    at: float


class Egress:
    """Streams of `capacity` slots. memory: of `octets(capacity)`; default: this process's own."""

    def __init__(self, capacity: int, memory: memoryview | None = None) -> None:
        if memory is None:
            memory = memoryview(bytearray(octets(capacity)))
        at, port, ssrc, end, sequence = _columns(memory, capacity)
        self.former = {
            int(port[row]): Numbers(int(ssrc[row]), int(sequence[row]), int(end[row]), float(at[row]))
            for row in np.flatnonzero(port)
        }
        """What the process before this one left, by local port."""
        self._at, self._port, self.ssrc, self.end, self._sequence = at, port, ssrc, end, sequence
        self.sent = np.zeros((capacity, 2), np.int64)
        """Packets and octets of payload."""
        self._offset = np.zeros(capacity, np.uint32)
        self._tied = np.zeros(capacity, np.bool_)
        """Whether the source's clock is tied to this one."""
        self._payload_type = np.full((capacity, len(FORMATS)), DROP, np.uint8)

    def open(self, slot: int, port: int, random: Callable[[], int], now: float, again: bool = False) -> None:
        """Begin a stream; `again`: go on with the one that left by `port` before this process took over."""
        former = self.former.pop(port, None)
        former = former if again else None
        self._port[self._port == port] = 0
        numbers = former or Numbers(random() & 0xFFFFFFFF, random() & 0x7FFF, random() & 0xFFFFFFFF, now)
        self.ssrc[slot], self._sequence[slot] = numbers.ssrc, numbers.sequence
        self.end[slot], self._at[slot], self._port[slot] = numbers.end, numbers.at, port
        self.sent[slot] = 0
        self._tied[slot] = False
        self._payload_type[slot] = DROP

    def close(self, slot: int) -> None:
        """End it."""
        self._port[slot] = 0
        self._payload_type[slot] = DROP

    def update(self, slot: int, payload_types: dict[int, int]) -> None:
        """Set the payload type of each kind; what has none is not sent."""
        self._payload_type[slot] = DROP
        for kind, payload_type in payload_types.items():
            self._payload_type[slot, kind] = payload_type

    def payload_type(self, to: Index, kind: NDArray[np.intp] | int) -> NDArray[np.uint8]:
        """uint8[n], DROP where it may not be sent."""
        return np.asarray(self._payload_type[to, kind], np.uint8)

    def untie(self, slot: int) -> None:
        """Say that another source is to speak: its clock is new."""
        self._tied[slot] = False

    def tied(self, slot: int) -> bool:
        """Whether a source has spoken."""
        return bool(self._tied[slot])

    def position(self, slot: int, now: float) -> int:
        """The time now on the clock of the source that is tied to `slot`."""
        return self.timestamp(slot, now) - int(self._offset[slot]) & 0xFFFFFFFF

    def align(self, to: Index, timestamp: NDArray[np.uint32], now: float) -> None:
        """Tie sources' clocks to those of egress: anew where a source is new, or its clock runs back or away.

        Egress follows the wall clock, not a sender's numbers: some give every key timestamps of its own.
        """
        elapsed = np.maximum(now - self._at[to], 0.0)
        expected = self.end[to] + np.round(elapsed * 1000).astype(np.uint32) * np.uint32(8)
        leaves = timestamp + self._offset[to]
        ahead = (leaves - expected).view(np.int32)
        behind = (leaves - self.end[to]).view(np.int32) < 0
        anew = ~self._tied[to] | behind | (np.abs(ahead) > _ASTRAY)
        if anew.any():
            self._offset[to[anew]] = expected[anew] - timestamp[anew]
        self._at[to] = now
        self._tied[to] = True

    def clock(self, to: Index, timestamp: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """uint32[n]: `timestamp` on the clock of egress."""
        return np.asarray(timestamp + self._offset[to], np.uint32)

    def step(self, to: Index, step: NDArray[np.int64] | int) -> None:
        """Move the sequence numbers of distinct `to` on: a lost packet leaves its gap."""
        self._sequence[to] += np.asarray(step).astype(np.uint16)

    def write(
        self,
        out: Rows,
        to: Index,
        kind: Index,
        payload: NDArray[np.uint8],
        timestamp: NDArray[np.uint32],
        marker: NDArray[np.bool_],
        samples: int,
    ) -> tuple[slice, Index]:
        """Add a row for each of distinct `to` that may send `kind`: where they are, and which of n they were.

        payload: uint8[n, size]; timestamp: uint32[n] on the clock of egress; samples: the time that a packet fills.
        """
        self.end[to] = timestamp + np.uint32(samples)
        payload_type = self._payload_type[to, kind]
        good = np.flatnonzero(payload_type != DROP)
        at = out.claim(len(good))
        good = good[: at.stop - at.start]
        if good.size:
            size, to = payload.shape[1], to[good]
            first = np.asarray(payload_type[good] | marker[good].astype(np.uint8) << 7, np.uint8)
            rtp.write(out.slab[at], first, self._sequence[to], timestamp[good], self.ssrc[to])
            out.slab[at, rtp.HEADER : rtp.HEADER + size] = payload[good]
            out.slot[at], out.length[at], out.control[at] = to, rtp.HEADER + size, False
            self.sent[to] += (1, size)
        return at, good

    def passed(
        self, to: Index, ssrc: NDArray[np.uint32], timestamp: NDArray[np.uint32], size: NDArray[np.int64], now: float
    ) -> None:
        """Note rows that leave by distinct `to` in the numbers of their sender, for the reports on them."""
        self.sent[to] += np.stack([np.ones_like(size), size], axis=1)
        self.ssrc[to], self.end[to], self._at[to] = ssrc, timestamp, now

    def timestamp(self, slot: int, now: float) -> int:
        """The time now on the clock by which `slot` sends."""
        return int(self.end[slot]) + round(max(now - float(self._at[slot]), 0.0) * 8000) & 0xFFFFFFFF
