"""What the recorder gets: of each recorded call the audio that left by either leg, never what came in."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from mediaproxy import log
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.channel import LARGEST, Channel

AUDIO = 0xC1
"""First octet of a message of audio; MessagePack never uses it."""
PACKET = struct.Struct("!IBBHIQ")
"""call number, side (0: heard by the agent, 1: said by the agent), codec, length, RTP timestamp, arrival in µs."""
_FULL = LARGEST - 4096


class Tap:
    """Collects a tick's audio into one message; what the channel does not take is dropped and counted."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.dropped = 0
        self._behind = False
        self._parts = bytearray((AUDIO,))

    def start(self, call: str, number: int, at: float) -> None:
        self.channel.send(m.StartRecording(call, number, at))

    def stop(self, number: int) -> None:
        self.channel.send(m.StopRecording(number))

    def add(self, number: int, side: int, codec: int, timestamp: int, at: float, octets: NDArray[np.uint8]) -> None:
        self._parts += PACKET.pack(number, side, codec, len(octets), timestamp, int(at * 1e6)) + octets.tobytes()
        if len(self._parts) > _FULL:
            self.flush()

    def flush(self) -> None:
        if len(self._parts) > 1 and not self.channel.send_raw(self._parts):
            if not self._behind:
                log.get().warning("recording-behind")
            self.dropped, self._behind = self.dropped + 1, True
        elif len(self._parts) > 1:
            self._behind = False
        self._parts = bytearray((AUDIO,))
