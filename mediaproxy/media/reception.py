"""What came in on each leg: order, loss and jitter as RFC 3550 counts them (appendices A.1, A.3 and A.8)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mediaproxy.media.wire.rtcp import Block

Index = NDArray[np.intp]
Flags = NDArray[np.bool_]

_DROPOUT: Final = 3000
"""A larger jump in the sequence numbers is another stream, not loss (RFC 3550 appendix A.1)."""


class Reception:
    """Statistics of `capacity` slots. All arrays have one entry a slot.

    packets, reordered, duplicates: counts since the leg was opened; lost: those of sources that have ended.
    """

    def __init__(self, capacity: int) -> None:
        self.ssrc = np.zeros(capacity, np.uint32)
        self.heard = np.zeros(capacity, np.bool_)
        """Whether a packet has come, so that `ssrc` means something."""
        self.packets = np.zeros(capacity, np.int64)
        self.reordered = np.zeros(capacity, np.int64)
        self.duplicates = np.zeros(capacity, np.int64)
        self._lost_before = np.zeros(capacity, np.int64)
        self._base = np.zeros(capacity, np.int64)
        self._high = np.zeros(capacity, np.int64)
        self._received = np.zeros(capacity, np.int64)
        self._transit = np.zeros(capacity)
        self._jitter = np.zeros(capacity)
        self._prior = np.zeros((capacity, 2), np.int64)
        """Expected and received at the last report."""

    def reset(self, slot: int) -> None:
        """Begin anew for another leg."""
        for state in vars(self).values():
            state[slot] = 0

    def note(
        self,
        slots: Index,
        ssrc: NDArray[np.uint32],
        sequence: NDArray[np.uint16],
        timestamp: NDArray[np.uint32],
        audio: Flags,
        now: float,
    ) -> Flags:
        """Count one packet of each of `slots` (distinct); bool[n]: those of a source not heard before.

        audio: whether its timestamp is on the audio's clock and moves with time, so that jitter can be told by it.
        """
        new = ~self.heard[slots] | (ssrc != self.ssrc[slots])
        number = sequence.astype(np.int64)
        high = self._high[slots]
        step = (sequence - high.astype(np.uint16)).view(np.int16).astype(np.int64)
        anew = new | (np.abs(step) > _DROPOUT)
        if anew.any():
            restart = slots[anew]
            self._lost_before[restart] = self.lost(restart)
            self._base[restart] = high[anew] = number[anew]
            step[anew] = 1
            high[anew] -= 1
            self._received[restart] = 0
            self._prior[restart] = 0
            self._jitter[restart] = 0
            self.ssrc[restart] = ssrc[anew]
            self.heard[restart] = True
        ahead = step > 0
        self._high[slots] = np.where(ahead, high + step, high)
        if not ahead.all():
            self.reordered[slots[step < 0]] += 1
            self.duplicates[slots[step == 0]] += 1
        self._received[slots] += 1
        self.packets[slots] += 1
        transit = now * 8000 - timestamp
        deviation = np.abs(transit - self._transit[slots])
        steady = audio & ~anew & (deviation < 1 << 20)
        self._jitter[slots] += np.where(steady, (deviation - self._jitter[slots]) / 16, 0.0)
        self._transit[slots] = np.where(audio, transit, self._transit[slots])
        return np.asarray(new, np.bool_)

    def lost(self, slots: Index | int | slice) -> NDArray[np.int64]:
        """How many packets never came; late ones are taken off again."""
        missing = np.maximum(self._high[slots] - self._base[slots] + 1 - self._received[slots], 0)
        return np.asarray(self._lost_before[slots] + np.where(self.heard[slots], missing, 0), np.int64)

    def block(self, slot: int, last_report: int, delay: float) -> Block | None:
        """The report block of what came in on `slot` since the last one; None where nothing ever came.

        last_report: middle 32 bits of the NTP time of the peer's last sender report; delay: seconds since it came.
        """
        if not self.heard[slot]:
            return None
        expected, received = int(self._high[slot] - self._base[slot] + 1), int(self._received[slot])
        new_expected, new_received = expected - int(self._prior[slot, 0]), received - int(self._prior[slot, 1])
        self._prior[slot] = expected, received
        lost = max(new_expected - new_received, 0)
        return Block(
            int(self.ssrc[slot]),
            min(lost * 256 // new_expected, 255) if new_expected > 0 else 0,
            expected - received,
            int(self._high[slot]),
            int(self._jitter[slot]),
            last_report,
            delay,
        )
