"""One call: two legs, the INVITE on its way between them, and what offer and answer have said so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from sip import offer_answer, sdp
from sip.b2bua.events import LegMedia, MediaAgreed
from sip.b2bua.peers import AGENT, Peer, Route
from sip.dialog import Dialog
from sip.message import Message, Response
from sip.offer_answer import Stream
from sip.transaction import ClientTransaction, ServerTransaction


@dataclass(slots=True)
class Leg:
    """One side of a call. host: the address that the box advertises to this side."""

    peer: Peer
    host: str
    dialog: Dialog
    port: int = 0
    session: str = ""
    version: int = 0
    described: bytes = b""

    def describe(self, description: sdp.Sdp) -> bytes:
        """The SDP for this leg's peer; the version counts changes (RFC 3264 section 8)."""
        body = sdp.write(description, self.session, self.version)
        if body != self.described:
            self.version += 1
            body = sdp.write(description, self.session, self.version)
            self.described = body
        return body


@dataclass(slots=True)
class Exchange:
    """An INVITE on its way from leg `source` to the other one."""

    call: Call
    source: int
    server: ServerTransaction
    client: ClientTransaction | None = None
    answer: Response | None = None
    """The 2xx, until its ACK has passed."""
    ack: bytes = b""
    provisionals: int = 0


@dataclass(slots=True)
class Passing:
    """Another request on its way from leg `source` to the other one."""

    call: Call
    source: int
    server: ServerTransaction


@dataclass(slots=True)
class Call:
    """legs[0] is the one that called. mode: of the trunk leg (passthrough, guarded, armed, sealed)."""

    id: str
    route: Route
    legs: tuple[Leg, Leg]
    mode: str
    number: str
    """The agent's extension: the user that was called or that calls."""
    correlation: str
    began: float
    exchange: Exchange | None = None
    state: str = "opening"
    offered: tuple[int, Stream] | None = None
    streams: list[Stream | None] = field(default_factory=lambda: [None, None])
    common: dict[int, str] = field(default_factory=dict)
    passing: int = 0

    @property
    def ended(self) -> bool:
        return self.state == "ended"

    @property
    def agent_leg(self) -> int:
        return 0 if self.legs[0].peer.side == AGENT else 1

    def pass_sdp(self, source: int, message: Message, final: bool) -> tuple[bytes, bool]:
        """Take the description in `message` from leg `source`; return the one for the other leg and whether media
        is now agreed. Raises PeerError (488). `final`: an answer here settles the offer (not so in an 18x)."""
        stream = offer_answer.read(sdp.parse(message.body))
        other = self.legs[1 - source]
        if self.offered is None or self.offered[0] == source:
            self.offered = (source, stream)
            return other.describe(offer_answer.offer(stream, other.host, other.port)), False
        offered = self.offered[1]
        body = other.describe(offer_answer.answer(stream, offered, other.host, other.port))
        accepted = set(stream.formats.values())
        self.common = {pt: encoding for pt, encoding in offered.formats.items() if encoding in accepted}
        self.streams[source], self.streams[1 - source] = stream, offered
        if final:
            self.offered = None
        return body, True

    def agreed(self) -> MediaAgreed:
        """What the media worker needs to know."""
        return MediaAgreed(self.id, (self._media(0), self._media(1)))

    def _media(self, index: int) -> LegMedia:
        stream = self.streams[index]
        if stream is None:
            return LegMedia(None)
        held = stream.address in offer_answer.HELD
        send = {encoding: pt for pt, encoding in reversed(stream.formats.items())}
        remote = None if held else (stream.address, stream.port)
        return LegMedia(remote, dict(self.common), send, stream.ptime or 20, stream.rtcp_port)
