"""Offer and answer between the two legs of a call (RFC 3264, RFC 6337): what each end was told and has said."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sip import offer_answer, sdp
from sip.b2bua.events import LegMedia
from sip.errors import PeerError
from sip.offer_answer import Layout, Stream
from sip.sdes import Crypto


@dataclass(slots=True)
class End:
    """One leg's half. host and port: where this box hears it; srtp: off, optional, required; keys: this box's own, one
    a suite; alone: no second media section is taken."""

    host: str
    srtp: str
    session: str
    keys: tuple[Crypto, ...] = field(default=(), repr=False)
    alone: bool = False
    port: int = 0
    version: int = 0
    described: bytes = field(default=b"", repr=False)
    """What this leg's peer was told last."""
    layout: Layout = field(default_factory=Layout)
    stream: Stream | None = None
    """What the peer said last, once agreed."""
    told: Crypto | None = field(default=None, repr=False)
    """The key under which this box sends."""
    _heard: tuple[bytes, Stream] | None = field(default=None, init=False, repr=False)
    """The last description read: an INVITE's is looked at before its media is opened, and again when it goes on."""
    wish: str = "sendrecv"
    """The direction that the peer asked for itself, and did not merely grant."""

    def __post_init__(self) -> None:
        if self.srtp == offer_answer.REQUIRED:
            self.layout = Layout((("audio", "RTP/SAVP"),))

    def describe(self, description: sdp.Sdp) -> bytes:
        """The SDP for this leg's peer; the version counts changes (RFC 3264 section 8)."""
        body = sdp.write(description, self.session, self.version)
        if body != self.described:
            self.version += 1
            body = sdp.write(description, self.session, self.version)
            self.described = body
        return body

    def read(self, body: bytes | bytearray) -> Stream:
        """What the peer says in `body`. Raises PeerError (488)."""
        if self._heard is None or self._heard[0] != body:
            self._heard = bytes(body), offer_answer.read(sdp.parse(body), self.srtp, self.alone)
        return self._heard[1]


@dataclass(slots=True)
class Negotiation:
    """ends by leg; offered: who has made an offer that is not yet answered for good, and what."""

    ends: list[End]
    offered: tuple[int, Stream] | None = None
    common: dict[int, str] = field(default_factory=dict)
    """Payload types of both legs."""

    def early(self) -> Negotiation:
        """The same for another early dialog: each has an answer of its own (RFC 3261 section 13.2.2.4)."""
        return Negotiation([replace(end) for end in self.ends], self.offered, dict(self.common))

    @property
    def pending(self) -> bool:
        """Whether an offer waits for its answer."""
        return self.offered is not None

    def withdraw(self) -> None:
        """The offer was refused, or came to nothing: all is as before (RFC 3264 section 8)."""
        self.offered = None

    def pass_(self, source: int, body: bytes | bytearray, final: bool) -> tuple[bytes, bool]:
        """Take the description in `body` from leg `source`; return the one for the other leg and whether media is now
        agreed. Raises PeerError (488). `final`: an answer here settles the offer (not so in an unreliable 18x)."""
        stream = self.ends[source].read(body)
        other = self.ends[1 - source]
        if self.offered is None or self.offered[0] == source:
            self.offered = (source, stream)
            return other.describe(offer_answer.offer(stream, other.layout, other.keys, other.host, other.port)), False
        offered = self.offered[1]
        answer = other.describe(offer_answer.answer(stream, offered, other.keys, other.host, other.port))
        self._agree(source, stream, offered)
        if final:
            self.offered = None
        return answer, True

    def answer_here(self, source: int, body: bytes | bytearray) -> bytes:
        """Answer leg `source`'s offer without asking the other leg, as that would answer. Raises PeerError (488)."""
        end, other = self.ends[source], self.ends[1 - source]
        offered = end.read(body)
        if other.stream is None:
            raise PeerError("nothing is agreed with the other side yet", 488)
        stream = offer_answer.reply(other.stream, offered, other.wish)
        answer = end.describe(offer_answer.answer(stream, offered, end.keys, end.host, end.port))
        self._settle(source, offered, stream.formats)
        end.wish = offered.direction
        return answer

    def offer_here(self, source: int) -> bytes:
        """An offer to leg `source` made of what the other leg said last."""
        end, other = self.ends[source], self.ends[1 - source]
        if other.stream is None:
            raise PeerError("nothing is agreed with the other side yet", 488)
        stream = replace(other.stream, direction=other.wish)
        return end.describe(offer_answer.offer(stream, end.layout, end.keys, end.host, end.port))

    def answered_here(self, source: int, body: bytes | bytearray) -> None:
        """Take leg `source`'s answer to `offer_here`. Raises PeerError (488)."""
        other = self.ends[1 - source]
        if other.stream is None:
            raise PeerError("nothing is agreed with the other side yet", 488)
        stream = self.ends[source].read(body)
        offer_answer.answer(stream, other.stream, (), "", 9)  # that they share a codec
        self._settle(source, stream, other.stream.formats)

    def _agree(self, source: int, answer: Stream, offered: Stream) -> None:
        accepted = set(answer.formats.values())
        self.common = {pt: encoding for pt, encoding in offered.formats.items() if encoding in accepted}
        answerer, offerer = self.ends[source], self.ends[1 - source]
        answerer.stream, offerer.stream = answer, offered
        offerer.layout = offered.layout
        offerer.wish = offered.direction
        if offered.direction == "sendrecv":
            answerer.wish = answer.direction
        for end in self.ends:
            end.told = _own_key(end)

    def _settle(self, source: int, stream: Stream, formats: dict[int, str]) -> None:
        accepted = set(stream.formats.values()) & set(formats.values())
        end = self.ends[source]
        end.stream = stream
        end.layout = stream.layout if len(stream.layout.sections) >= len(end.layout.sections) else end.layout
        end.told = _own_key(end)
        self.common = {pt: encoding for pt, encoding in stream.formats.items() if encoding in accepted}

    def media(self, index: int) -> LegMedia:
        """What the media worker needs to know of a leg."""
        end = self.ends[index]
        stream = end.stream
        if stream is None:
            return LegMedia(None)
        send = {encoding: pt for pt, encoding in reversed(stream.formats.items())}
        remote = None if stream.held else (stream.address, stream.port)
        theirs = offer_answer.choose(stream.crypto)
        keys = (theirs.suite, end.told.key, theirs.key) if theirs is not None and end.told is not None else None
        return LegMedia(remote, dict(self.common), send, stream.ptime or 20, stream.rtcp_port, keys)


def _own_key(end: End) -> Crypto | None:
    """The key of the suite that the peer chose, or that was chosen of its offer."""
    chosen = offer_answer.choose(end.stream.crypto) if end.stream is not None else None
    return next((key for key in end.keys if chosen is not None and key.suite == chosen.suite), None)
