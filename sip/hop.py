"""Where a message goes, or came from."""

from __future__ import annotations

from typing import NamedTuple

Endpoint = tuple[str, int]
UDP, TCP, TLS, WSS = "UDP", "TCP", "TLS", "WSS"
PORTS = {UDP: 5060, TCP: 5060, TLS: 5061, WSS: 443}
"""The port where none is said (RFC 3261 section 19.1.2)."""


class Hop(NamedTuple):
    """An address and how to speak to it.

    connection: the stream it came by, 0 where there is none yet; name: what its certificate has to say (TLS, RFC 5922
    section 4), nothing for the address; of a browser the name of its flow, which outlasts connections (WSS).
    """

    host: str
    port: int
    transport: str = UDP
    connection: int = 0
    name: str = ""

    @property
    def reliable(self) -> bool:
        """Whether the transport delivers by itself."""
        return self.transport != UDP

    def __str__(self) -> str:
        return join(self.host, self.port)


def join(host: str, port: int) -> str:
    """host:port as URIs and Via write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
