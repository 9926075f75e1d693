"""Dialogs (RFC 3261 section 12): what a leg remembers between requests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sip.errors import PeerError
from sip.headers.address import Address
from sip.headers.via import MAGIC
from sip.hop import Hop
from sip.message import Request, Response
from sip.uri import Uri


@dataclass(slots=True)
class Dialog:
    """One leg's half of a call, from this box's point of view.

    route: the route set, nearest first; target: the peer's Contact; peer: where the last request or answer came from,
    or the first one went.
    """

    call_id: str
    local: Address
    remote: Address
    target: str
    peer: Hop
    route: list[str] = field(default_factory=list)
    local_cseq: int = 0
    remote_cseq: int = -1
    mine: bool = False
    """The Call-ID is this box's own: it waits longer after a glare (RFC 3261 section 14.1)."""

    @classmethod
    def as_server(cls, request: Request, tag: str, source: Hop) -> Dialog:
        """The dialog that an INVITE from a peer opens (section 12.1.1). Raises PeerError."""
        contacts = request.every("Contact")
        if not contacts and not request.via.branch.startswith(MAGIC):
            contacts = [request.from_.uri]  # RFC 2543 did not ask for one
        return cls(
            request.call_id,
            request.to.tagged(tag),
            request.from_,
            _contact(contacts),
            source,
            _route(request.every("Record-Route")),
            0,
            request.cseq[0],
        )

    def early(self, local_tag: str = "") -> Dialog:
        """Another dialog of the same INVITE: with another tag of this box's, or of a peer's that is to be learnt."""
        if local_tag:
            return replace(self, local=self.local.tagged(local_tag), route=list(self.route))
        return replace(self, remote=self.remote.tagged(""), route=[])

    def learn(self, response: Response) -> None:
        """Take tag, target and route set from an answer to this box's INVITE (section 12.1.2)."""
        self.refresh(response)
        self.remote = response.to
        self.route = _route(response.every("Record-Route"))[::-1] or self.route

    def refresh(self, message: Request | Response) -> None:
        """Take a new target from a target refresh (section 12.2)."""
        contacts = message.every("Contact")
        if contacts:
            self.target = _contact(contacts)

    def admit(self, request: Request) -> bool:
        """Whether a request's CSeq is newer than the last one's (section 12.2.2)."""
        if request.cseq[0] <= self.remote_cseq:
            return False
        self.remote_cseq = request.cseq[0]
        return True

    @property
    def next_hop(self) -> str:
        """The URI to which requests go: the first route, or the target."""
        return Address.parse(self.route[0]).uri if self.route else self.target

    def request(self, method: str, cseq: int = 0) -> Request:
        """A new request in the dialog; `cseq` for an ACK, which repeats its INVITE's number."""
        if not cseq:
            self.local_cseq += 1
            cseq = self.local_cseq
        uri, route = self.target, self.route
        if route and ";lr" not in (first := self.next_hop).lower():  # a strict router (section 12.2.1.1)
            uri, route = first, [*route[1:], f"<{self.target}>"]
        request = Request(method=method, uri=uri)
        request.headers = [
            ("Max-Forwards", "70"),
            ("From", str(self.local)),
            ("To", str(self.remote)),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
            *[("Route", entry) for entry in route],
        ]
        return request


def _route(values: list[str]) -> list[str]:
    """A route set whose every entry can be used."""
    for value in values:
        Uri.parse(Address.parse(value).uri)
    return values


def _contact(values: list[str]) -> str:
    if not values:
        raise PeerError("Contact is missing")
    contact = Address.parse(values[0]).uri
    Uri.parse(contact)
    return contact
