"""Offer and answer between the two legs of a call (RFC 3264, RFC 6337): what each end was told and has said."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from sip import offer_answer, sdp, webrtc
from sip.b2bua.events import Coding, LegMedia, Secured
from sip.errors import PeerError
from sip.offer_answer import CODED, DTLS, EVENTS, PLAIN, Far, Layout, Stream
from sip.sdes import Crypto


@dataclass(slots=True)
class End:
    """One leg's half. host and port: where this box hears it; srtp: off, optional, required, dtls; keys: this box's
    own, one a suite; alone: no second media section is taken; codecs: what it may speak; ice: this box's ufrag and
    password, where it is a browser's."""

    host: str
    srtp: str
    session: str
    keys: tuple[Crypto, ...] = field(default=(), repr=False)
    alone: bool = False
    codecs: tuple[str, ...] = PLAIN
    ice: tuple[str, str] = field(default=("", ""), repr=False)
    fingerprint: str = ""
    """Of this box's certificate."""
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
    met: str = field(default="", repr=False)
    """The peer's ufrag for which `ice` was given out."""
    wish: str = "sendrecv"
    """The direction that the peer asked for itself, and did not merely grant."""
    own: dict[int, str] = field(default_factory=dict)
    """The formats of what this leg's peer was told last."""
    formats: dict[int, str] = field(default_factory=dict)
    """Payload types that may come in, once agreed."""

    def __post_init__(self) -> None:
        if self.srtp == offer_answer.REQUIRED:
            self.layout = Layout((("audio", "RTP/SAVP"),))
        elif self.srtp == DTLS:
            self.layout = Layout((("audio", webrtc.PROTOCOLS[0]),))

    def far(self, offered: Stream | None = None) -> Far:
        """What this leg's peer is to be told; `offered`: in answer to this."""
        transport = None
        if self.srtp == DTLS:
            self._meet(offered)
            transport = webrtc.Transport(
                *self.ice, ("sha-256", self.fingerprint), self._setup(offered), self._mid(offered)
            )
        return Far(self.host, self.port, self.layout, self.codecs, self.keys, transport)

    def _meet(self, offered: Stream | None) -> None:
        """A browser that begins ICE anew meets new credentials here too (RFC 8445 section 9), once its offer is
        answered."""
        if offered is None or offered.transport is None:
            return
        before = self.stream.transport if self.stream is not None else None
        known = self.met or (before.ufrag if before is not None else "")
        if known and offered.transport.ufrag != known:
            self.ice = _next(self.ice)
        self.met = offered.transport.ufrag

    def _setup(self, offered: Stream | None) -> str:
        """The peer begins the handshake where it may: then it comes from where it can be reached. Who has begun stays
        who began while the association stays (RFC 8842 section 5.3)."""
        if offered is None or offered.transport is None:
            return webrtc.ACTPASS
        return webrtc.ACTIVE if self.kept(offered).setup == webrtc.PASSIVE else webrtc.PASSIVE

    def kept(self, stream: Stream) -> webrtc.Transport:
        """The transport of a browser's description, with the role that it has already."""
        transport, before = stream.transport, self.stream.transport if self.stream is not None else None
        assert transport is not None
        same = before is not None and before.fingerprint == transport.fingerprint
        return (
            replace(transport, setup=before.setup)
            if before is not None and same and transport.setup == webrtc.ACTPASS
            else transport
        )

    def settle(self, stream: Stream) -> None:
        """Take what the peer has said as agreed."""
        self.stream = replace(stream, transport=self.kept(stream)) if stream.transport is not None else stream

    def _mid(self, offered: Stream | None) -> str:
        heard = offered or self.stream
        return heard.transport.mid if heard is not None and heard.transport is not None else "0"

    @property
    def coded(self) -> str:
        """The codec that the leg speaks and this box codes; nothing where it is G.711."""
        return next((encoding for encoding in self.formats.values() if encoding in CODED), "")

    @property
    def codec(self) -> str:
        """What it speaks."""
        return next((encoding for encoding in self.formats.values() if encoding in offer_answer.AUDIO), "")

    def describe(self, description: sdp.Sdp) -> bytes:
        """The SDP for this leg's peer; the version counts changes (RFC 3264 section 8)."""
        audio = description.media[self.layout.audio]
        self.own = {int(pt): encoding.removesuffix("/2") for pt, encoding in audio.rtpmap.items()}
        body = sdp.write(description, self.session, self.version)
        if body != self.described:
            self.version += 1
            body = sdp.write(description, self.session, self.version)
            self.described = body
        return body

    def read(self, body: bytes | bytearray) -> Stream:
        """What the peer says in `body`. Raises PeerError (488)."""
        if self._heard is None or self._heard[0] != body:
            self._heard = bytes(body), offer_answer.read(sdp.parse(body), self.srtp, self.alone, self.codecs)
        return self._heard[1]


@dataclass(slots=True)
class Negotiation:
    """ends by leg; offered: who has made an offer that is not yet answered for good, and what."""

    ends: list[End]
    offered: tuple[int, Stream] | None = None

    def early(self) -> Negotiation:
        """The same for another early dialog: each has an answer of its own (RFC 3261 section 13.2.2.4)."""
        return Negotiation([replace(end) for end in self.ends], self.offered)

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
            return other.describe(offer_answer.offer(stream, other.far())), False
        offered = self.offered[1]
        other.layout = offered.layout
        answer = other.describe(offer_answer.answer(stream, offered, other.far(offered), self.ends[source].codecs))
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
        formats, _ = offer_answer.agree(offered, stream, end.codecs, other.codecs)
        answer = end.describe(offer_answer.answer(stream, offered, end.far(offered), other.codecs))
        self._settle(source, offered, formats)
        end.wish = offered.direction
        return answer

    def offer_here(self, source: int) -> bytes:
        """An offer to leg `source` made of what the other leg said last."""
        end, other = self.ends[source], self.ends[1 - source]
        if other.stream is None:
            raise PeerError("nothing is agreed with the other side yet", 488)
        stream = replace(other.stream, direction=other.wish)
        return end.describe(offer_answer.offer(stream, end.far()))

    def answered_here(self, source: int, body: bytes | bytearray) -> None:
        """Take leg `source`'s answer to `offer_here`. Raises PeerError (488)."""
        other = self.ends[1 - source]
        if other.stream is None:
            raise PeerError("nothing is agreed with the other side yet", 488)
        end = self.ends[source]
        stream = end.read(body)
        _, theirs = offer_answer.agree(other.stream, stream, other.codecs, end.codecs)
        self._settle(source, stream, _told(end, theirs))

    def _agree(self, source: int, answer: Stream, offered: Stream) -> None:
        answerer, offerer = self.ends[source], self.ends[1 - source]
        formats, theirs = offer_answer.agree(offered, answer, offerer.codecs, answerer.codecs)
        answerer.settle(answer)
        offerer.settle(offered)
        offerer.formats, answerer.formats = formats, _told(answerer, theirs)
        offerer.layout = offered.layout
        offerer.wish = offered.direction
        if offered.direction == "sendrecv":
            answerer.wish = answer.direction
        for end in self.ends:
            end.told = _own_key(end)

    def _settle(self, source: int, stream: Stream, formats: dict[int, str]) -> None:
        end = self.ends[source]
        end.settle(stream)
        end.formats = formats
        end.layout = stream.layout if len(stream.layout.sections) >= len(end.layout.sections) else end.layout
        end.told = _own_key(end)

    def media(self, index: int) -> LegMedia:
        """What the media worker needs to know of a leg."""
        end = self.ends[index]
        stream = end.stream
        if stream is None:
            return LegMedia(None, secured=_secured(end))
        agreed = set(end.formats.values())
        send = {encoding: pt for pt, encoding in reversed(stream.formats.items()) if encoding in agreed}
        remote = None if stream.held else (stream.address, stream.port)
        theirs = offer_answer.choose(stream.crypto)
        keys = (theirs.suite, end.told.key, theirs.key) if theirs is not None and end.told is not None else None
        coding = _coding(end, stream, send) if end.coded else None
        return LegMedia(
            remote, dict(end.formats), send, stream.ptime or 20, stream.rtcp_port, keys, coding, _secured(end)
        )


def _next(ice: tuple[str, str]) -> tuple[str, str]:
    """Further credentials, which only who has these can tell."""
    made = hashlib.sha256(":".join(ice).encode()).hexdigest()
    return made[:8], made[8:40]


def _told(end: End, theirs: dict[int, str]) -> dict[int, str]:
    """What an answerer sends: in the payload types that it was offered, whatever it wants itself (RFC 3264 section
    6.1)."""
    agreed = set(theirs.values())
    return {pt: encoding for pt, encoding in end.own.items() if encoding in agreed}


def _coding(end: End, stream: Stream, send: dict[str, int]) -> Coding:
    """How the leg speaks, where this box codes it."""
    receive = {encoding: pt for pt, encoding in reversed(end.formats.items())}
    event = next((encoding for encoding in EVENTS if encoding in send and encoding in receive), "")
    events = (receive[event], send[event]) if event else (-1, -1)
    audio = receive[end.coded], send[end.coded]
    return Coding(end.coded, audio, events, offer_answer.parameters(stream, audio[1]))


def _secured(end: End) -> Secured | None:
    """A browser's transport as both sides know it."""
    if end.srtp != DTLS:
        return None
    theirs = end.stream.transport if end.stream is not None else None
    if theirs is None:
        return Secured(end.ice)
    return Secured(end.ice, theirs.ufrag, theirs.fingerprint, active=theirs.setup == webrtc.PASSIVE)


def _own_key(end: End) -> Crypto | None:
    """The key of the suite that the peer chose, or that was chosen of its offer."""
    chosen = offer_answer.choose(end.stream.crypto) if end.stream is not None else None
    return next((key for key in end.keys if chosen is not None and key.suite == chosen.suite), None)
