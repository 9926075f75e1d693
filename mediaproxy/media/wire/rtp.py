"""RTP headers (RFC 3550 section 5.1), many rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

HEADER: Final = 12
LARGEST: Final = 2048
"""Octets of a slab row; a datagram that fills it is cut and dropped. 60 ms of G.711 need 492."""
LARGEST_PAYLOAD: Final = 1600
"""200 ms of G.711, the longest ptime that SDP may ask for."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Columns of n rows. start and end bound the payload; ok is False where the row is no RTP packet to use."""

    ok: NDArray[np.bool_]
    marker: NDArray[np.bool_]
    payload_type: NDArray[np.intp]
    sequence: NDArray[np.uint16]
    timestamp: NDArray[np.uint32]
    ssrc: NDArray[np.uint32]
    start: NDArray[np.int64]
    end: NDArray[np.int64]


def parse(slab: NDArray[np.uint8], length: NDArray[np.int64]) -> Headers:
    """Parse rows uint8[n, LARGEST] of `length` octets each (int[n])."""
    head = np.ascontiguousarray(slab[:, :HEADER])
    first = head[:, 0]
    start = HEADER + 4 * (first & 15).astype(np.int64)
    end = length.astype(np.int64)
    ok = (first >> 6 == 2) & (length < LARGEST) & (start <= end)
    # Extension and padding are rare: worked row by row.
    for row in np.flatnonzero(ok & (first & 0x30 != 0)):
        if first[row] & 0x10:
            at = start[row]
            if at + 4 > end[row]:
                ok[row] = False
                continue
            start[row] = at + 4 + 4 * (int(slab[row, at + 2]) << 8 | int(slab[row, at + 3]))
        if first[row] & 0x20 and start[row] < end[row]:
            pad = int(slab[row, end[row] - 1])
            end[row] -= pad
            ok[row] = pad > 0
        ok[row] &= start[row] <= end[row]
    ok &= end - start <= LARGEST_PAYLOAD
    # 72 to 79 with the marker are RTCP that came to the wrong port (RFC 5761 section 4).
    ok &= ~((head[:, 1] >= 200) & (head[:, 1] <= 207))
    return Headers(
        ok,
        head[:, 1] >= 128,
        (head[:, 1] & 127).astype(np.intp),
        head[:, 2:4].copy().view(">u2")[:, 0].astype(np.uint16),
        head[:, 4:8].copy().view(">u4")[:, 0].astype(np.uint32),
        head[:, 8:12].copy().view(">u4")[:, 0].astype(np.uint32),
        start,
        end,
    )


def write(
    rows: NDArray[np.uint8],
    first: NDArray[np.uint8],
    sequence: NDArray[np.uint16],
    timestamp: NDArray[np.uint32],
    ssrc: NDArray[np.uint32],
) -> None:
    """Write headers into rows uint8[n, >= 12]; `first`: marker and payload type, uint8[n]."""
    rows[:, 0] = 0x80
    rows[:, 1] = first
    rows[:, 2:4] = sequence.astype(">u2")[:, None].view(np.uint8)
    rows[:, 4:8] = timestamp.astype(">u4")[:, None].view(np.uint8)
    rows[:, 8:12] = ssrc.astype(">u4")[:, None].view(np.uint8)
