"""Telephone-events as presses in time (RFC 4733): what each packet says that is new.

An event's timestamp is where the press began and its duration where it has come to, so packets overlap, repeat and
arrive in any order. Long presses come in segments. Some senders replay a capture, numbers and all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mediaproxy.media.wire.telephone_event import TelephoneEvent

_HANG: Final = 640
"""Audio stays masked for 80 ms after the last sign of a press: a gateway's tone may outlast it."""
_OPEN: Final = 1600
"""A press without its end is taken to go on for 200 ms (RFC 4733 section 2.6.1 asks for updates every 50)."""
_LONGEST: Final = 0xFFFF
"""A longer press comes in segments (RFC 4733 section 2.5.1.3)."""
_REORDERED: Final = 4000
"""A packet of a press up to 500 ms older than the last is a late one; an older one means a new clock."""
PAUSE: Final = 0.1
"""Seconds without a packet of it after which a press is over: updates come every 50 ms at most."""
_SEGMENT: Final = 60000
"""A press that follows on one as long as this without a gap is the same (RFC 4733 section 2.5.1.3)."""


@dataclass(frozen=True, slots=True)
class Press:
    """What a packet says: the press lasts from `start` up to `end` by now, on the audio's clock. new: not seen before;
    restarted: with numbers that may have been used before; end may lie beyond 2**32."""

    start: int
    end: int
    new: bool
    restarted: bool


class Events:
    """The presses of `capacity` slots, one at a time each."""

    def __init__(self, capacity: int) -> None:
        self._seen = np.zeros(capacity, np.bool_)
        self._active = np.zeros(capacity, np.bool_)
        self._raw = np.zeros(capacity, np.uint32)
        """Timestamp of the press as it came."""
        self._start = np.zeros(capacity, np.uint32)
        """The same on the audio's clock."""
        self._code = np.zeros(capacity, np.int64)
        self._duration = np.zeros(capacity, np.int64)
        self._arrival = np.full(capacity, -np.inf)
        self._hold = np.zeros(capacity, np.uint32)

    def reset(self, slot: int) -> None:
        """Begin anew for another leg."""
        self._seen[slot] = self._active[slot] = False
        self._code[slot] = -1

    def holds(self, slots: NDArray[np.intp], timestamp: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """bool[n]: is audio at `timestamp` to be masked since a press goes on or has just ended? slots: distinct."""
        left = (self._hold[slots] - timestamp).view(np.int32)
        self._active[slots] &= (left > 0) & (left <= _LONGEST + _OPEN)
        return np.asarray(self._active[slots], np.bool_)

    def take(
        self, slot: int, event: TelephoneEvent, timestamp: int, marker: bool, now: float, scale: int, here: int
    ) -> Press | None:
        """What a packet of an event says; None where it is late and so says nothing.

        scale: ticks of the event's clock for each of the audio's; here: the time now on the audio's clock, which is
        where a press with another clock is taken to begin.
        """
        age = signed(timestamp - int(self._raw[slot])) // scale
        # A marker after a pause begins a press, even with numbers used before: some senders replay a capture.
        restarted = marker and now - self._arrival[slot] > PAUSE
        self._arrival[slot] = now
        other = event.code != self._code[slot]
        if self._seen[slot] and -_REORDERED < age < 0 and not restarted and not (other and marker):
            return None
        self._code[slot] = event.code
        duration = event.duration // scale
        segment = age == self._duration[slot] and age * scale >= _SEGMENT
        new = not self._seen[slot] or age != 0 or restarted or (other and not segment)
        self._duration[slot] = duration
        if new:
            start = timestamp if scale == 1 else int(self._start[slot]) + age if segment else here
            self._raw[slot], self._start[slot] = timestamp, start & 0xFFFFFFFF
            self._seen[slot] = True
        start = int(self._start[slot])
        end = start + duration
        hold = end + (_HANG if event.end else _OPEN)
        if new or not self._active[slot] or signed(hold - int(self._hold[slot])) > 0:
            self._hold[slot] = hold & 0xFFFFFFFF
        self._active[slot] = True
        return Press(start, end, new and not segment, bool(restarted))


def signed(difference: int) -> int:
    """A difference of two 32-bit timestamps, as the nearer of the two ways round."""
    return (difference + 0x80000000 & 0xFFFFFFFF) - 0x80000000
