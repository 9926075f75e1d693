"""Dialogs (RFC 3261 section 12): what a leg remembers between requests."""

from __future__ import annotations

from dataclasses import dataclass, field

from sip.errors import PeerError
from sip.headers.address import Address
from sip.headers.via import Endpoint
from sip.message import Request, Response
from sip.uri import Uri


@dataclass(slots=True)
class Dialog:
    """One leg's half of a call, from this box's point of view.

    route: the route set, nearest first; target: the peer's Contact; peer: where the next hop is.
    """

    call_id: str
    local: Address
    remote: Address
    target: str
    peer: Endpoint
    route: list[str] = field(default_factory=list)
    local_cseq: int = 0
    remote_cseq: int = -1

    @classmethod
    def as_server(cls, request: Request, tag: str, source: Endpoint) -> Dialog:
        """The dialog that an INVITE from a peer opens (section 12.1.1). Raises PeerError."""
        contact = _contact(request.every("Contact"))
        return cls(
            request.call_id,
            request.to.tagged(tag),
            request.from_,
            contact,
            source,
            _route(request.every("Record-Route")),
            0,
            request.cseq[0],
        )

    def learn(self, response: Response) -> None:
        """Take tag, target and route set from an answer to this box's INVITE (section 12.1.2)."""
        route = _route(response.every("Record-Route"))
        self.refresh(response)
        self.remote = response.to
        if route:
            self.route = route[::-1]

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

    def request(self, method: str, cseq: int = 0) -> Request:
        """A new request in the dialog; `cseq` for an ACK, which repeats its INVITE's number."""
        if not cseq:
            self.local_cseq += 1
            cseq = self.local_cseq
        request = Request([], bytearray(), method, self.target)
        request.headers = [
            ("Max-Forwards", "70"),
            ("From", str(self.local)),
            ("To", str(self.remote)),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
            *(("Route", route) for route in self.route),
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
