"""ICE-lite (RFC 8445 section 2.5): one host candidate, which only answers. Sans I/O.

A browser asks from each of its addresses whether it can be reached there; whoever knows the password may, and the pair
it nominates is where this leg sends. The answers also keep its consent fresh (RFC 7675).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Final

from aioice import stun  # its messages are used, its connections are not

from mediaproxy.media.source import Address

_LARGEST: Final = 548
"""Octets of a request: more than a browser's, less than what would make parsing it costly."""
_SOURCES: Final = 16
"""Addresses of one peer that are kept."""


class Ice:
    """One leg's half. ufrag and password: this box's, which the peer has from SDP."""

    def __init__(self, ufrag: str, password: str) -> None:
        self.ufrag, self._password = ufrag, password.encode()
        self.peer = ""
        """The peer's ufrag, once known: nobody with another is answered."""
        self.sources: OrderedDict[Address, None] = OrderedDict()
        """Addresses that have shown that they know the password, the last one last."""
        self.nominated: Address | None = None

    def receive(self, data: bytes, source: Address) -> bytes | None:
        """The answer to a binding request; None where it deserves none (RFC 8445 section 7.3, RFC 8489 section 9.1.3):
        without the right credentials nobody is told that there is anything here."""
        if len(data) > _LARGEST or data[:2] != b"\x00\x01":
            return None
        try:
            request = stun.parse_message(data)
            username = request.attributes.get("USERNAME", "")
        except (ValueError, KeyError, struct.error):  # UnicodeDecodeError is a ValueError
            return None
        own, colon, theirs = username.partition(":")
        if not colon or own != self.ufrag or (self.peer and theirs != self.peer):
            return None
        if not request.check_message_integrity(self._password):
            return None
        if "ICE-CONTROLLED" in request.attributes:  # both controlled: a lite agent never takes the other role
            return self._answer(request, stun.Class.ERROR, {"ERROR-CODE": (487, "Role Conflict")})
        self.sources.pop(source, None)
        self.sources[source] = None
        if len(self.sources) > _SOURCES:
            oldest = next(iter(self.sources))
            del self.sources[oldest]
        if "USE-CANDIDATE" in request.attributes or self.nominated is None:
            self.nominated = source
        return self._answer(request, stun.Class.RESPONSE, {"XOR-MAPPED-ADDRESS": source})

    def _answer(self, request: stun.Message, kind: stun.Class, attributes: dict[str, object]) -> bytes:
        answer = stun.Message(stun.Method.BINDING, kind, request.transaction_id, attributes)
        answer.add_message_integrity(self._password)
        return bytes(answer)
