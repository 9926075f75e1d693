"""RTCP of each leg: what the peer says of its clock, and the reports and goodbyes that it gets from this box."""

from __future__ import annotations

from typing import Final

import numpy as np

from mediaproxy.media.egress import Egress
from mediaproxy.media.reception import Reception
from mediaproxy.media.rows import Rows
from mediaproxy.media.wire import rtcp

SECONDS: Final = 5.0
"""Between two reports, half as much more or less (RFC 3550 section 6.2)."""


class Reports:
    """RTCP of `capacity` slots."""

    def __init__(self, capacity: int, egress: Egress, reception: Reception) -> None:
        self._egress, self._reception = egress, reception
        self._due = np.full(capacity, np.inf)
        self._next = np.inf
        self._ntp = np.zeros(capacity, np.uint32)
        """Middle 32 bits of the peer's last sender report, and when that came."""
        self._arrival = np.zeros(capacity)

    def open(self, slot: int, now: float) -> None:
        """Begin with a leg."""
        self._ntp[slot] = 0
        self._plan(slot, now)

    def close(self, slot: int) -> None:
        """Say no more."""
        self._due[slot] = np.inf

    def _plan(self, slot: int, now: float) -> None:
        # The SSRC is random, so calls that began together do not report together.
        share = (int(self._egress.ssrc[slot]) * 40503 & 0xFFFF) / 0x10000
        self._due[slot] = now + SECONDS * (0.5 + share)
        self._next = min(self._next, self._due[slot])

    def heard(self, slot: int, data: bytes, now: float) -> tuple[int, ...] | None:
        """Take RTCP of the peer of `slot`: the sources that it says have ended; None where it is no RTCP."""
        parts = rtcp.parse(data)
        if parts is None:
            return None
        ended: tuple[int, ...] = ()
        for part in parts:
            if isinstance(part, rtcp.Goodbye):
                ended += part.ssrcs
            else:
                self._ntp[slot], self._arrival[slot] = part.ntp >> 16 & 0xFFFFFFFF, now
        return ended

    def due(self, out: Rows, now: float, wall: float) -> None:
        """Add the reports that are due. wall: seconds since 1970."""
        if now < self._next:
            return
        for slot in np.flatnonzero(self._due <= now):
            self._plan(int(slot), now)
            out.put(int(slot), self._report(int(slot), now, wall), control=True)
        self._next = float(self._due.min())

    def _report(self, slot: int, now: float, wall: float) -> bytes:
        egress = self._egress
        packets, octets = (int(value) for value in egress.sent[slot])
        block = self._reception.block(slot, int(self._ntp[slot]), now - float(self._arrival[slot]))
        if not packets:
            return rtcp.receiver_report(int(egress.ssrc[slot]), _NAME, block)
        timestamp = egress.timestamp(slot, now)
        return rtcp.sender_report(int(egress.ssrc[slot]), _NAME, wall, timestamp, packets, octets, block)

    def goodbye(self, slot: int, out: Rows) -> None:
        """Add the end of the stream that left by `slot`, if there was one."""
        if self._egress.sent[slot, 0]:
            out.put(slot, rtcp.goodbye(int(self._egress.ssrc[slot]), _NAME), control=True)


_NAME: Final = "flattone"
