"""One recording: two legs laid side by side by arrival and RTP timestamp, written as it grows.

Left is what the agent heard (the caller, masked), right what the agent said. The file has the ending `.part` until
it is complete.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711
from mediaproxy import __version__

RATE: Final = 8000
LAG: Final = 1.0
"""Seconds of audio held back: a packet may come that much later than its neighbour of the other leg."""
WINDOW: Final = 500
"""Packets over which the earliest is looked for: ten seconds of 20 ms each."""
STEP: Final = RATE // 100
"""A leg is moved by 10 ms at least, twice what a worker's tick may put on the time of arrival."""
LONGEST_JUMP: Final = 30 * RATE
"""A timestamp further ahead than this is a new clock: placed by arrival instead."""
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


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
    """Stereo int16 of one call. Raises OSError where the disk does not take it."""

    def __init__(self, directory: Path, call: str, at: float) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        names = (f"{stamp}-{call}{suffix}.wav" for suffix in ("", *(f"-{i}" for i in range(2, 1000))))
        self._final = next(p for p in map(directory.joinpath, names) if not p.exists() and not _part(p).exists())
        self._part = _part(self._final)
        self._call, self._began = call, at
        self._file: BinaryIO = self._part.open("xb")
        self._file.write(_header(0))
        self._written = 0
        self._pending = np.zeros((4 * RATE, 2), np.int16)
        self._clock: list[tuple[int, int] | None] = [None, None]
        """Of each leg, (timestamp, frame) of the last packet."""
        self._drift = [_Drift(), _Drift()]

    @property
    def path(self) -> Path:
        return self._final

    def add(self, side: int, codec: int, timestamp: int, arrival: float, octets: NDArray[np.uint8]) -> None:
        """Lay a packet in its place. side: 0 heard, 1 said; arrival: seconds on the worker's clock."""
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

    def _place(self, side: int, timestamp: int, arrival: float) -> int:
        """The frame of a packet: by timestamp after the last one, by arrival at the start and after a break."""
        by_arrival = round((arrival - self._began) * RATE)
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
        self._write(max(0, round((now - self._began - LAG) * RATE) - self._written))

    def _write(self, frames: int) -> None:
        frames = min(frames, len(self._pending))
        if frames <= 0:
            return
        self._file.write(self._pending[:frames].astype("<i2").tobytes())
        rest = self._pending[frames:]
        self._pending = np.concatenate([rest, np.zeros((frames, 2), np.int16)])
        self._written += frames

    def finish(self, complete: bool = True) -> Path:
        """Write the rest, the header and the manifest, and take the ending off."""
        end = max((clock[1] for clock in self._clock if clock is not None), default=0) + RATE // 10
        self._write(max(0, end - self._written))
        self._file.seek(0)
        self._file.write(_header(self._written))
        self._file.close()
        self._part.rename(self._final)
        digest = hashlib.sha256(self._final.read_bytes()).hexdigest()
        manifest = {
            "call": self._call, "seconds": round(self._written / RATE, 3), "complete": complete, "sha256": digest,
            "channels": ["heard by agent", "said by agent"], "version": __version__,
        }  # fmt: skip
        self._final.with_suffix(".json").write_text(json.dumps(manifest, indent=1) + "\n")
        return self._final

    def abandon(self) -> None:
        """Close what the disk did not take; the part stays, so that it shows."""
        try:
            self._file.close()
        except OSError:
            return


def _part(path: Path) -> Path:
    return path.with_suffix(".wav.part")


def _header(frames: int) -> bytes:
    size = frames * 4
    return _HEADER.pack(b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 2, RATE, RATE * 4, 4, 16, b"data", size)
