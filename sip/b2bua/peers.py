"""Who may talk, and which way a call goes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from sip.headers.via import Endpoint

TRUNK, AGENT = "trunk", "agent"


@dataclass(frozen=True, slots=True)
class Peer:
    """A neighbour in signalling: on which side, where requests to it go, and from where its own may come."""

    name: str
    side: str
    address: Endpoint
    sources: tuple[IPv4Network | IPv6Network, ...]

    def speaks_from(self, host: str) -> bool:
        """Whether `host` is one of the peer's addresses."""
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self.sources)


@dataclass(frozen=True, slots=True)
class Route:
    """Calls from peer `origin` whose request-URI user matches `users` go to peer `target`."""

    name: str
    origin: str
    target: str
    users: re.Pattern[str] = re.compile(".*")


def find_peer(peers: tuple[Peer, ...], side: str, host: str) -> Peer | None:
    """The peer of `side` that speaks from `host`, if any."""
    return next((peer for peer in peers if peer.side == side and peer.speaks_from(host)), None)


def find_route(routes: tuple[Route, ...], origin: Peer, user: str) -> Route | None:
    """The first route that fits."""
    return next((r for r in routes if r.origin == origin.name and r.users.fullmatch(user)), None)
