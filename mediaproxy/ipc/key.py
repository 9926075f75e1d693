"""A keypress on its way to the vault: sixteen octets in a buffer that is blanked after use."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from mediaproxy.ipc.channel import Channel

EVENT: Final = 0
INBAND: Final = 1
INFO: Final = 2
"""Where a key was found, best first: a capture listens to one of them."""

_RECORD = struct.Struct("!QIBB2x")
BYTES: Final = _RECORD.size


@dataclass(slots=True)
class Key:
    """capture: its number; ms: when, on the machine's monotonic clock, modulo 2**32; event: RFC 4733 code."""

    capture: int
    ms: int
    event: int = field(repr=False)
    source: int = 0


class KeySender:
    """Writes key records; one buffer, blanked each time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._buffer = bytearray(BYTES)

    def send(self, key: Key) -> bool:
        """Send; False where the vault cannot be reached, and then the capture must fail."""
        _RECORD.pack_into(self._buffer, 0, key.capture, key.ms & 0xFFFFFFFF, key.event, key.source)
        try:
            return self._channel.send_raw(self._buffer)
        finally:
            self._buffer[:] = bytes(BYTES)
            key.event = 0


class KeyReceiver:
    """Reads key records; one buffer, blanked each time."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._buffer = bytearray(BYTES)

    def receive(self) -> Key | None:
        """The next record, or None where none waits."""
        try:
            size = self.channel.socket.recv_into(self._buffer)
        except (BlockingIOError, ConnectionError):
            return None
        if size != BYTES:
            return None
        key = Key(*_RECORD.unpack_from(self._buffer))
        self._buffer[:] = bytes(BYTES)
        return key
