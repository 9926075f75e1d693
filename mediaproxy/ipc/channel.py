"""A channel: one end of a SOCK_SEQPACKET pair, which keeps messages whole and in order, made by the supervisor.

Sending never waits. A channel that is full refuses, and the sender decides what that means for what it wanted to say.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from mediaproxy.ipc import messages

BUFFER_BYTES = 1 << 20
"""Room for bursts: about two thousand messages."""
LARGEST = 1 << 17
"""The largest message: one tick of recorded audio."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return ends


class Channel:
    """One end, by name."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name = name
        self.socket = sock
        self.refused = 0
        sock.setblocking(False)

    @classmethod
    def from_fd(cls, name: str, fd: int) -> Channel:
        """The channel on an inherited descriptor."""
        return cls(name, socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: messages.Message) -> bool:
        """Send; False where the channel is full or its far end is gone."""
        return self.send_raw(messages.encode(message))

    def send_raw(self, data: bytes | bytearray | memoryview) -> bool:
        """Send octets as one message."""
        try:
            self.socket.send(data)
        except (BlockingIOError, BrokenPipeError, ConnectionError, OSError):
            self.refused += 1
            return False
        return True

    def receive(self) -> Iterator[messages.Any_]:
        """Yield the messages that wait here."""
        while True:
            try:
                data = self.socket.recv(LARGEST)
            except (BlockingIOError, ConnectionError):
                return
            if not data:
                return
            yield messages.decode(data)
