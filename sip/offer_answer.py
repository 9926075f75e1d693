"""Offer and answer through the proxy (RFC 3264): each side is told of the proxy only, in codecs the proxy decodes.

Nothing of a peer's description is patched through: what goes out is built anew from an allowlist. Where both sides
speak G.711 they speak the same, and the audio passes as it is; a side that is configured with further codecs may speak
those, and this box stands between.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from sip import webrtc
from sip.errors import PeerError
from sip.headers.params import number
from sip.sdes import SUITES, Crypto
from sip.sdp import Media, Sdp

HELD = ("", "0.0.0.0", "::")
"""Addresses that mean: send nothing."""
EVENTS = tuple(f"telephone-event/{clock}" for clock in (8000, 16000, 32000, 48000))
"""Keys, also with the clock of a wideband codec that was offered beside them (RFC 4733 section 2.5.1.1)."""
PLAIN: Final = ("PCMU/8000", "PCMA/8000")
"""What passes as it is, and what every leg speaks unless it is configured otherwise."""
OPUS, G722 = "opus/48000", "G722/8000"
CODED: Final = {OPUS: EVENTS[3], G722: EVENTS[0]}
"""What this box codes and decodes itself, and the events on the same clock."""
AUDIO: Final = (*PLAIN, *CODED)
_NOISE = "CN/8000"
_STATIC = {"0": "PCMU/8000", "8": "PCMA/8000", "9": G722, "13": _NOISE}
"""Payload types that need no rtpmap (RFC 3551 section 6)."""
_USUAL: Final = {"PCMU/8000": 0, "PCMA/8000": 8, G722: 9, OPUS: 111, EVENTS[0]: 101, EVENTS[3]: 110}
"""Payload types for what the other side has not numbered."""
_CHANNELS: Final = {OPUS: "/2"}
"""Written so whatever is sent (RFC 7587 section 7)."""
_WISHES: Final = {OPUS: "minptime=10;useinbandfec=1;stereo=0;usedtx=0;maxplaybackrate=8000;sprop-maxcapturerate=8000"}
"""What this box asks of who sends it (RFC 7587 section 6.1): the audio goes on at 8 kHz; without DTX a pause is heard
as one."""
_KNOWN: Final = {encoding.lower(): encoding for encoding in (*AUDIO, _NOISE, *EVENTS)}
_AVP, _SECURE = ("RTP/AVP", "RTP/AVPF"), ("RTP/SAVP", "RTP/SAVPF")
OFF, OPTIONAL, REQUIRED, DTLS = "off", "optional", "required", "dtls"
"""How a leg is secured: DTLS is also how a browser speaks at all, with ICE and RTCP on the same port."""
_WORDS = {(True, True): "sendrecv", (True, False): "sendonly", (False, True): "recvonly", (False, False): "inactive"}
"""Whether it sends, whether it receives."""
_BACK = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


@dataclass(frozen=True, slots=True)
class Layout:
    """The m= sections of a description in order, as (kind, protocol), and which of them is the audio: whoever speaks
    next on this leg has to keep them (RFC 3264 section 8)."""

    sections: tuple[tuple[str, str], ...] = (("audio", "RTP/AVP"),)
    audio: int = 0

    @property
    def secure(self) -> bool:
        """Whether the audio is SRTP."""
        return self.sections[self.audio][1] in (*_SECURE, *webrtc.PROTOCOLS)

    @property
    def keyed(self) -> bool:
        """Whether its keys stand in SDP."""
        return self.sections[self.audio][1] in _SECURE


@dataclass(frozen=True, slots=True)
class Far:
    """What this box tells the peer of a leg of itself. host and port: where it hears it; codecs: what the leg may
    speak; keys: where its SRTP is keyed by SDP; transport: where it is a browser's."""

    host: str
    port: int
    layout: Layout = Layout()
    codecs: tuple[str, ...] = PLAIN
    keys: tuple[Crypto, ...] = field(default=(), repr=False)
    transport: webrtc.Transport | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """Where a peer wants its audio, and in which payload types.

    formats: encoding by payload type, in the peer's order; address is empty or 0.0.0.0 where it wants none; crypto: the
    keys it offers or has chosen; transport: of a browser, whose address only ICE tells.
    """

    address: str
    port: int
    rtcp_port: int
    direction: str
    formats: dict[int, str] = field(default_factory=dict)
    fmtp: dict[int, str] = field(default_factory=dict)
    ptime: int = 0
    maxptime: int = 0
    layout: Layout = Layout()
    crypto: tuple[Crypto, ...] = field(default=(), repr=False)
    transport: webrtc.Transport | None = None

    @property
    def held(self) -> bool:
        """Whether the peer wants no audio."""
        return self.transport is None and self.address in HELD

    @property
    def audio(self) -> list[str]:
        """Its audio encodings in its order."""
        return [encoding for encoding in self.formats.values() if encoding in AUDIO]


def read(sdp: Sdp, srtp: str = OFF, alone: bool = False, codecs: tuple[str, ...] = PLAIN) -> Stream:
    """Pick the first audio section that can be anchored. Raises PeerError (488) where there is none.

    srtp: whether it may, or must, be SRTP; alone: refuse a description with any other section in use; codecs: what the
    leg may speak.
    """
    for position, media in enumerate(sdp.media):
        if media.kind == "audio" and media.port and _speaks(media, srtp):
            formats = _formats(media, codecs)
            if any(encoding in AUDIO for encoding in formats.values()):
                if alone and any(other.port for other in sdp.media if other is not media):
                    raise PeerError("SDP has more than one media section, which policy refuses", 488)
                return Stream(
                    sdp.address_of(media),
                    media.port,
                    media.rtcp_port or media.port + 1,
                    _direction(sdp, media, srtp),
                    formats,
                    {pt: media.fmtp[str(pt)] for pt, enc in formats.items() if _fits(enc, media.fmtp.get(str(pt), ""))},
                    media.ptime,
                    media.maxptime,
                    Layout(tuple((other.kind, other.protocol) for other in sdp.media), position),
                    tuple(media.crypto) if media.protocol in _SECURE else (),
                    webrtc.read(sdp.said, media.said) if srtp == DTLS else None,
                )
    wanted = {
        OFF: "RTP/AVP", REQUIRED: "RTP/SAVP with a=crypto", OPTIONAL: "RTP/AVP or RTP/SAVP with a=crypto",
        DTLS: webrtc.PROTOCOLS[0],
    }  # fmt: skip
    names = " or ".join(encoding.partition("/")[0] for encoding in codecs)
    raise PeerError(f"SDP offers no audio in {names} over {wanted[srtp]}", 488)


def _speaks(media: Media, srtp: str) -> bool:
    if srtp == DTLS:
        return media.protocol in webrtc.PROTOCOLS
    if media.protocol in _SECURE:
        return srtp != OFF and bool(media.crypto)
    return media.protocol in _AVP and srtp != REQUIRED


def _direction(sdp: Sdp, media: Media, srtp: str) -> str:
    """The direction; the old way to hold, an address of zeros, is told in the new way (RFC 3264 section 8.4)."""
    direction = sdp.direction_of(media)
    if srtp != DTLS and sdp.address_of(media) in HELD:
        return {"sendrecv": "sendonly", "recvonly": "inactive"}.get(direction, direction)
    return direction


def _formats(media: Media, codecs: tuple[str, ...]) -> dict[int, str]:
    found: dict[int, str] = {}
    for text in media.formats:
        payload_type = number(text, 127)
        if payload_type is None:
            continue
        name, _, channels = media.rtpmap.get(text, _STATIC.get(text, "")).partition("/")
        clock, _, channels = channels.partition("/")
        encoding = _KNOWN.get(f"{name}/{clock}".lower(), "")
        if channels != _CHANNELS.get(encoding, "").lstrip("/") and channels not in ("", "1"):
            continue
        if encoding in codecs or encoding in EVENTS or encoding == _NOISE:
            found[payload_type] = encoding
    return found


def offer(stream: Stream, far: Far) -> Sdp:
    """What leg `far` is offered when the other side offers `stream`."""
    return _describe(_section(stream, _bridged(stream, far.codecs), far, far.keys), far)


def answer(stream: Stream, offered: Stream, far: Far, codecs: tuple[str, ...] = PLAIN) -> Sdp:
    """What the peer that offered `offered` is answered when the other side, which may speak `codecs`, answers `stream`.

    In the payload types of the offer, with every further section refused. Raises PeerError (488) without a codec.
    """
    formats, _ = agree(offered, stream, far.codecs, codecs)
    chosen = choose(offered.crypto)
    keys = tuple(replace(key, tag=chosen.tag) for key in far.keys if chosen is not None and key.suite == chosen.suite)
    return _describe(
        _section(stream, formats, replace(far, layout=offered.layout), keys), replace(far, layout=offered.layout)
    )


def agree(
    offered: Stream, answered: Stream, offerer: tuple[str, ...], answerer: tuple[str, ...]
) -> tuple[dict[int, str], dict[int, str]]:
    """What each leg, which may speak the codecs given, speaks in the end: (offerer's formats, answerer's), by their own
    payload types. Raises PeerError (488) where that is nothing.

    G.711 on both sides is the same G.711, as many as both have. A leg that may speak more speaks one codec: the first
    of its answer, or the first of its configuration that it has offered.
    """
    if not _coded(offerer) and not _coded(answerer):
        accepted = set(answered.formats.values())
        formats = {pt: encoding for pt, encoding in offered.formats.items() if encoding in accepted}
        theirs = {pt: encoding for pt, encoding in answered.formats.items() if encoding in formats.values()}
    else:
        far = answered.audio[:1] if _coded(answerer) else answered.audio
        shared = [encoding for encoding in offered.audio if encoding in PLAIN and encoding in far]
        bridged = [encoding for encoding in offered.audio if encoding in PLAIN] if set(far) <= set(CODED) else []
        if _coded(offerer):
            can = {*CODED, *shared, *bridged} & set(offered.audio)
            near = [encoding for encoding in offerer if encoding in can][:1]
        else:
            near = shared or bridged[:1]
        if near and near[0] in PLAIN and far and far[0] in PLAIN:
            far = [encoding for encoding in far if encoding in near]
        events = bool(set(EVENTS) & set(answered.formats.values()))
        formats, theirs = _with_events(offered, near, events), _with_events(answered, far, events)
    if not any(encoding in AUDIO for encoding in formats.values()):
        raise PeerError("SDP answer shares no codec with the offer", 488)
    return formats, theirs


def _coded(codecs: tuple[str, ...]) -> bool:
    """Whether a leg may speak what this box codes itself."""
    return any(codec in CODED for codec in codecs)


def _with_events(stream: Stream, audio: list[str], events: bool) -> dict[int, str]:
    """The formats of `stream` with these audio encodings, and events on their clock."""
    wanted = {*audio, *({CODED.get(encoding, EVENTS[0]) for encoding in audio} if events else ())}
    return {pt: encoding for pt, encoding in stream.formats.items() if encoding in wanted}


def _bridged(stream: Stream, codecs: tuple[str, ...]) -> dict[int, str]:
    """What a leg that may speak `codecs` is offered when the other side offers `stream`: its own payload types where it
    has them."""
    if not _coded(codecs) and not set(stream.audio) & set(CODED):
        return stream.formats
    shared = [encoding for encoding in stream.audio if encoding in PLAIN and encoding in codecs]
    plain = shared or [encoding for encoding in PLAIN if encoding in codecs and not set(stream.audio) & set(PLAIN)]
    order = codecs if _coded(codecs) else plain
    audio = [encoding for encoding in order if encoding in CODED or encoding in plain]
    events: list[str] = []
    if set(EVENTS) & set(stream.formats.values()):
        events = list(dict.fromkeys(CODED.get(encoding, EVENTS[0]) for encoding in audio))
    own = {encoding: pt for pt, encoding in reversed(stream.formats.items())}
    found: dict[int, str] = {}
    for encoding in (*audio, *events):
        places = (own.get(encoding, _USUAL[encoding]), _USUAL[encoding], *range(96, 128))
        found[next(pt for pt in places if pt not in found)] = encoding
    return found


def reply(stream: Stream, offered: Stream, wish: str) -> Stream:
    """What the other side, last heard of in `stream`, would answer to `offered` if it were asked: the same, in the
    direction that fits both the offer and what it wishes itself (RFC 3264 section 6.1)."""
    both = {_BACK[offered.direction], wish}
    sends, receives = both <= {"sendrecv", "sendonly"}, both <= {"sendrecv", "recvonly"}
    return replace(stream, direction=_WORDS[sends, receives])


def choose(offered: tuple[Crypto, ...]) -> Crypto | None:
    """The first key offered, in the order of preference of who offers (RFC 4568 section 5.1.2)."""
    return offered[0] if offered else None


def fresh_keys(random: bytes) -> tuple[Crypto, ...]:
    """A key of this box's own for every suite, cut from `random` (uint8[KEY_BYTES])."""
    keys, at = [], 0
    for tag, (suite, size) in enumerate(SUITES.items(), 1):
        keys.append(Crypto(tag, suite, random[at : at + size]))
        at += size
    return tuple(keys)


KEY_BYTES: Final = sum(SUITES.values())


def _describe(audio: Media, far: Far) -> Sdp:
    sections = [Media(kind, 0, protocol, ["0"]) for kind, protocol in far.layout.sections]
    sections[far.layout.audio] = audio
    return Sdp(sections, far.host)


def _section(stream: Stream, formats: dict[int, str], far: Far, keys: tuple[Crypto, ...]) -> Media:
    said = {encoding: stream.fmtp[pt] for pt, encoding in stream.formats.items() if pt in stream.fmtp}
    fmtp = {str(pt): said.get(encoding, "0-15") for pt, encoding in formats.items() if encoding in EVENTS}
    fmtp |= {str(pt): _WISHES[encoding] for pt, encoding in formats.items() if encoding in _WISHES}
    return Media(
        "audio",
        far.port,
        far.layout.sections[far.layout.audio][1],
        [str(pt) for pt in formats],
        direction=stream.direction,
        ptime=stream.ptime,
        maxptime=stream.maxptime,
        rtpmap={str(pt): encoding + _CHANNELS.get(encoding, "") for pt, encoding in formats.items()},
        fmtp=fmtp,
        crypto=list(keys) if far.layout.keyed else [],
        own=far.transport,
    )


def _fits(encoding: str, parameters: str) -> bool:
    """Whether format parameters are of the kind that this encoding has."""
    return bool(parameters) and (
        ("=" in parameters) if encoding == OPUS else encoding in EVENTS and "=" not in parameters
    )


def parameters(stream: Stream, payload_type: int) -> tuple[tuple[str, int], ...]:
    """What a peer asks for of a codec: numbers by name."""
    found = [part.strip().partition("=") for part in stream.fmtp.get(payload_type, "").split(";")]
    return tuple((name.lower(), int(value)) for name, _, value in found if value.isascii() and value.isdecimal())
