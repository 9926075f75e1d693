"""Who may talk, how to speak to each, and which way a call goes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address

from sip.digest import Credentials
from sip.hop import TLS, UDP, WSS, Hop
from sip.message import Request
from sip.offer_answer import OFF, PLAIN

TRUNK, AGENT = "trunk", "agent"
EXECUTE, PASS, REFUSE = "execute", "pass", "refuse"
"""What to do with a REFER: carry it out here, hand it on, or say no."""


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """What to do with header `name` of messages that go to a peer: "strip" takes it out, "set" puts `value` in its
    place (adding it where it was not), "rewrite" replaces what `matches` finds by `value`."""

    action: str
    name: str
    value: str = ""
    matches: re.Pattern[str] | None = None


@dataclass(slots=True)
class Peer:
    """A neighbour in signalling.

    hops: where requests to it go, in order of preference; the host keeps them fresh where they come from DNS.
    sources: from where its own requests may come, beside the hops; certificates: names of which its certificate must
    hold one (TLS only). transport: how it is spoken to; TLS also means that nothing else is believed.
    """

    name: str
    side: str
    hops: list[Hop]
    sources: tuple[IPv4Network | IPv6Network, ...] = ()
    transport: str = UDP
    certificates: frozenset[str] = frozenset()
    credentials: Credentials | None = None
    srtp: str = OFF
    codecs: tuple[str, ...] = PLAIN
    """What it may speak, best first."""
    refer: str = EXECUTE
    options_seconds: float = 0.0
    failover_seconds: float = 4.0
    session_seconds: int = 1800
    least_session_seconds: int = 90
    requests_a_second: float = 0.0
    hide_topology: bool = False
    alone: bool = False
    """Refuse descriptions with any media section beside the audio, instead of taking the others out."""
    registered: bool = False
    """It is the browsers that have registered as phones of `tenant`'s agents."""
    tenant: str = ""
    rules: tuple[HeaderRule, ...] = ()
    _hosts: tuple[list[Hop], frozenset[str]] = field(default=([], frozenset()), repr=False)

    def speaks_from(self, host: str) -> bool:
        """Whether `host` is one of the peer's addresses."""
        if self._hosts[0] is not self.hops:
            self._hosts = (self.hops, frozenset(hop.host for hop in self.hops))
        if host in self._hosts[1]:
            return True
        if not self.sources:
            return False
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self.sources)

    def is_at(self, source: Hop) -> bool:
        """Whether what came from `source` is this peer's. Its certificate's names, by commas, are `source.name`; a
        browser that has registered has its flow's there."""
        if self.registered or source.transport == WSS:
            return self.registered and source.transport == WSS and source.name.startswith(f"{self.tenant}/")
        if self.transport == TLS and source.transport != TLS:
            return False
        if self.certificates and not (self.certificates & set(source.name.split(","))):
            return False
        return self.speaks_from(source.host)


@dataclass(frozen=True, slots=True)
class Route:
    """Calls from peer `origin` go to peer `target` where the request-URI's user matches `users` and, if named, the
    header's value matches `header_matches`."""

    name: str
    origin: str
    target: str
    users: re.Pattern[str] = re.compile(".*")
    header: str = ""
    header_matches: re.Pattern[str] = re.compile(".*")
    mode: str = "guarded"
    guard_on: frozenset[str] = frozenset({"transfer"})
    """What ends passthrough: answer, transfer."""
    guard_header: str = ""
    """A header of the agent side that ends passthrough."""
    guard_keys: int = 0
    """Keys after which passthrough ends; 0: never."""

    def fits(self, request: Request, origin: str, user: str) -> bool:
        """Whether a call takes this route."""
        if self.origin != origin or not self.users.fullmatch(user):
            return False
        if not self.header:
            return True
        return any(self.header_matches.fullmatch(value) for value in request.lines(self.header))


def find_peer(peers: tuple[Peer, ...], side: str, source: Hop) -> Peer | None:
    """The peer of `side` that speaks from `source`, if any."""
    return next((peer for peer in peers if peer.side == side and peer.is_at(source)), None)


def find_route(routes: tuple[Route, ...], request: Request, origin: Peer, user: str) -> Route | None:
    """The first route that fits."""
    return next((route for route in routes if route.fits(request, origin.name, user)), None)
