"""What the recorder gets: of each recorded call the audio that left by either leg, never what came in."""

from __future__ import annotations

import struct
from collections import deque

import numpy as np
from numpy.typing import NDArray

from mediaproxy import log
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.channel import LARGEST, Channel

AUDIO = 0xC1
"""First octet of a message of audio; MessagePack never uses it."""
PACKET = struct.Struct("!IBBBxHxxIQ")
"""call number, side (0: heard by the agent, 1: said by the agent), codec, flags, length, RTP timestamp, arrival in
microseconds."""
MASKED, SILENT, AFTER_LOSS = 1, 2, 4
"""Flags of a packet: a flat tone or silence stands in it for the caller's audio; a policy keeps the recording silent;
the recorder did not take something of this call before it."""
_FULL = LARGEST - 4096


class Tap:
    """Collects a tick's audio into one message; what the channel does not take is dropped and counted."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.dropped = 0
        self._behind = False
        self._parts = bytearray((AUDIO,))
        self._inside: set[int] = set()
        """Calls of which there is something in the message."""
        self._lost: set[int] = set()
        self._kept: deque[m.Message] = deque(maxlen=100_000)
        """What the channel has not taken yet, beside audio."""

    def start(self, call: str, number: int, at: float, route: str, mode: str) -> None:
        self._tell(m.StartRecording(call, number, at, route, mode))

    def mode(self, number: int, at: float, mode: str, alarm: str = "") -> None:
        self._tell(m.RecordingMode(number, at, mode, alarm))

    def stop(self, number: int) -> None:
        self._lost.discard(number)
        self._tell(m.StopRecording(number))

    def _tell(self, message: m.Message) -> None:
        """Send, or keep for later in its order: a recording whose end is lost would never end."""
        if self._kept or not self.channel.send(message):
            self._kept.append(message)

    def forget(self) -> None:
        """The recorder was restarted: what waits for it means nothing to it."""
        self._kept.clear()
        self._lost.clear()

    def add(
        self, number: int, side: int, codec: int, timestamp: int, at: float, octets: NDArray[np.uint8], flags: int = 0
    ) -> None:
        if number in self._lost:
            self._lost.discard(number)
            flags |= AFTER_LOSS
        self._inside.add(number)
        self._parts += PACKET.pack(number, side, codec, flags, len(octets), timestamp, int(at * 1e6)) + octets.tobytes()
        if len(self._parts) > _FULL:
            self.flush()

    def flush(self) -> None:
        while self._kept and self.channel.send(self._kept[0]):
            self._kept.popleft()
        if len(self._parts) > 1 and (self._kept or not self.channel.send_raw(self._parts)):
            if not self._behind:
                log.get().warning("recording-behind")
            self.dropped, self._behind = self.dropped + 1, True
            self._lost |= self._inside
        elif len(self._parts) > 1:
            self._behind = False
        self._parts = bytearray((AUDIO,))
        self._inside.clear()
