"""Messages out of a stream of octets (RFC 3261 section 18.3), and the pings between them (RFC 5626 section 3.5.1)."""

from __future__ import annotations

from sip import limits
from sip.errors import PeerError
from sip.headers.params import number
from sip.message import head

PING, PONG = b"\r\n\r\n", b"\r\n"
_LENGTH = (b"content-length", b"l")


class Framer:
    """One stream. What it returns is one whole message each, or PING; single line ends between messages are dropped."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._looked = self._whole = 0
        """Where the next look for the end of the headers begins: an octet is looked at once. Then, how long the message
        is that begins here."""

    def __len__(self) -> int:
        return len(self._data)

    def receive(self, data: bytes | bytearray) -> list[bytearray]:
        """Take octets, return what is whole. Raises PeerError where the stream cannot be followed any further: it has
        to be closed, since nobody knows where the next message begins."""
        self._data += data
        found: list[bytearray] = []
        while True:
            self._skip(found)
            if not self._data:
                return found
            end = self._end()
            if end < 0:
                return found
            message = self._data[:end]
            self._data[:end] = bytes(end)  # it may have held a key
            del self._data[:end]
            self._looked = self._whole = 0
            found.append(message)

    def _skip(self, found: list[bytearray]) -> None:
        data = self._data
        while data[:1] == b"\r" or data[:1] == b"\n":
            if data[:4] == PING:
                found.append(bytearray(PING))
                del data[:4]
            elif data[:2] == PONG and (len(data) > 2 and data[2:3] != b"\r"):
                del data[:2]
            elif data[:1] == b"\n":
                del data[:1]
            elif len(data) >= 4:
                del data[:2]
            else:
                return  # a ping that has not come whole, or a pong: told apart by what follows

    def _end(self) -> int:
        """Where the first message ends, -1 where it has not come whole."""
        data = self._data
        if data[:1] == b"\r":
            return -1
        if self._whole:
            return self._whole if len(data) >= self._whole else -1
        found = data.find(b"\r\n\r\n", self._looked, limits.HEADER_BYTES + 4)
        if found < 0 and data.find(b"\n\n", self._looked, limits.HEADER_BYTES + 4) < 0:
            if len(data) > limits.HEADER_BYTES:
                raise PeerError("headers are too large", 513)
            self._looked = max(0, len(data) - 3)
            return -1
        self._looked = 0
        end, start = head(data)
        self._whole = start + _length(data, end)
        return self._whole if len(data) >= self._whole else -1

    def wipe(self) -> None:
        """Blank what is left."""
        self._data[:] = bytes(len(self._data))


def _length(data: bytearray, end: int) -> int:
    """Content-Length, without which a stream cannot be followed (RFC 3261 section 20.14). Raises PeerError."""
    found = None
    for line in bytes(data[:end]).split(b"\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon and line[:1] not in (b" ", b"\t") and name.strip().lower() in _LENGTH:
            size = number(value.decode("latin-1"), limits.MESSAGE_BYTES)
            if size is None or (found is not None and size != found):
                raise PeerError("Content-Length cannot be read")
            found = size
    if found is None:
        raise PeerError("Content-Length is missing on a stream")
    return found
