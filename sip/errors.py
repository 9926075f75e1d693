"""The one error that leaves this package: the other side said something that cannot be worked with."""

from __future__ import annotations


class PeerError(Exception):
    """What a peer sent is wrong. The text names what and where, and never echoes what was sent.

    status: the SIP response that fits (RFC 3261 section 21).
    """

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status
