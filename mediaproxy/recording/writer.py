"""One recording: two legs laid side by side by arrival and RTP timestamp, written as it grows.

Left is what the agent heard (the caller, masked), right what the agent said. The file has the ending `.part` until
it is complete.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711
from mediaproxy.evidence import AlarmAt, ModeAt
from mediaproxy.ipc.tap import AFTER_LOSS, MASKED, SILENT
from mediaproxy.recording.sinks import RATE, Sink

LAG: Final = 1.0
"""Seconds of audio held back: a packet may come that much later than its neighbour of the other leg."""
WINDOW: Final = 500
"""Packets over which the earliest is looked for: ten seconds of 20 ms each."""
STEP: Final = RATE // 100
"""A leg is moved by 10 ms at least, twice what a worker's tick may put on the time of arrival."""
MOST_ALARMS: Final = 1000
LONGEST_JUMP: Final = 30 * RATE
"""A timestamp further ahead than this is a new clock: placed by arrival instead."""


class _Drift:
    """How a sender's clock runs away from this machine's: 50 ppm are 180 ms an hour, and differ from leg to leg.

    Packets come late by what the network did to them, but never early, so the earliest of each ten seconds tells.
    """

    def __init__(self) -> None:
        self._count = 0
        self._least = self._first = 0
        self._known = False

    def shift(self, late: int) -> int:
        """By how many frames to move this packet and all after it. late: its arrival against its clock, in frames."""
        self._least = late if not self._count else min(self._least, late)
        self._count += 1
        if self._count < WINDOW:
            return 0
        self._count = 0
        if not self._known:
            self._first, self._known = self._least, True
        moved = self._least - self._first
        return moved if abs(moved) >= STEP else 0


class Recording:
    """Both legs of one call laid into a sink. Raises OSError where the disk does not take it."""

    def __init__(self, call: str, route: str, mode: str, at: float, into: Sink, path: Path, part: Path) -> None:
        """at: when it begins, on the clock of arrivals; path: its name once it is whole, part: until then."""
        self.call, self.route, self.path, self.part = call, route, path, part
        self.began = time.time()
        self.modes = [ModeAt(0.0, mode)]
        self.alarms: list[AlarmAt] = []
        self.masked, self.silent = _Spans(), _Spans()
        self._start = at
        self._sink = into
        self._written = 0
        self._pending = np.zeros((4 * RATE, 2), np.int16)
        self._clock: list[tuple[int, int] | None] = [None, None]
        """Of each leg, (timestamp, frame) of the last packet."""
        self._drift = [_Drift(), _Drift()]

    @property
    def seconds(self) -> float:
        """How much is written."""
        return self._written / RATE

    def add(
        self, side: int, codec: int, timestamp: int, arrival: float, octets: NDArray[np.uint8], flags: int = 0
    ) -> None:
        """Lay a packet in its place. side: 0 heard, 1 said; arrival: seconds on the worker's clock; flags: of
        mediaproxy.ipc.tap."""
        frame = self._place(side, timestamp, arrival)
        offset = frame - self._written
        if offset < 0 or offset > 60 * RATE:
            return
        samples = g711.DECODE_INT16[codec][octets]
        if offset + len(samples) > len(self._pending):
            grown = np.zeros((offset + len(samples) + 4 * RATE, 2), np.int16)
            grown[: len(self._pending)] = self._pending
            self._pending = grown
        self._pending[offset : offset + len(samples), side] = samples
        if flags & MASKED and side == 0:
            self.masked.add(frame, frame + len(samples))
        if flags & SILENT:
            self.silent.add(frame, frame + len(samples))
        if flags & AFTER_LOSS and len(self.alarms) < MOST_ALARMS:
            self.alarms.append(AlarmAt(round(frame / RATE, 3), "audio-lost"))

    def set_mode(self, mode: str, at: float, alarm: str) -> None:
        """From `at`, on the clock of arrivals, the caller's leg is in `mode`; alarm: why, if something is wrong."""
        seconds = round(max(0.0, at - self._start), 3)
        if mode != self.modes[-1].mode:
            self.modes.append(ModeAt(seconds, mode))
        if alarm and len(self.alarms) < MOST_ALARMS:
            self.alarms.append(AlarmAt(seconds, alarm))

    def _place(self, side: int, timestamp: int, arrival: float) -> int:
        """The frame of a packet: by timestamp after the last one, by arrival at the start and after a break."""
        by_arrival = round((arrival - self._start) * RATE)
        last = self._clock[side]
        frame = by_arrival
        if last is not None:
            ahead = (timestamp - last[0] + 0x80000000 & 0xFFFFFFFF) - 0x80000000
            by_clock = last[1] + ahead
            if abs(ahead) < LONGEST_JUMP and abs(by_clock - by_arrival) < RATE // 4:
                frame = by_clock + self._drift[side].shift(by_arrival - by_clock)
            else:
                self._drift[side] = _Drift()
        self._clock[side] = (timestamp, frame)
        return frame

    def advance(self, now: float) -> None:
        """Write what can no longer change."""
        self._write(max(0, round((now - self._start - LAG) * RATE) - self._written))

    def _write(self, frames: int) -> None:
        while frames > 0:
            part = min(frames, len(self._pending))
            self._sink.write(self._pending[:part])
            rest = self._pending[part:]
            self._pending = np.concatenate([rest, np.zeros((part, 2), np.int16)])
            self._written += part
            frames -= part

    def finish(self) -> None:
        """Write the rest and make the file whole; it still has the name of a part."""
        end = max((clock[1] for clock in self._clock if clock is not None), default=0) + RATE // 10
        self._write(max(0, end - self._written))
        self._sink.finish()

    def abandon(self) -> None:
        """Close what the disk did not take; the part stays, so that it shows."""
        try:
            self._sink.close()
        except OSError:
            return


class _Spans:
    """Intervals of frames that come about in order, near ones joined."""

    JOINED: Final = RATE // 50
    MOST: Final = 10_000
    """After so many the last one grows."""

    def __init__(self) -> None:
        self._spans: list[list[int]] = []

    def add(self, start: int, end: int) -> None:
        last = self._spans[-1] if self._spans else None
        if last is not None and (start <= last[1] + self.JOINED or len(self._spans) >= self.MOST):
            last[1] = max(last[1], end)
        else:
            self._spans.append([max(0, start), end])

    def seconds(self) -> tuple[tuple[float, float], ...]:
        return tuple((round(start / RATE, 3), round(end / RATE, 3)) for start, end in self._spans)
