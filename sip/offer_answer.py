"""Offer and answer through the proxy (RFC 3264): each side is told of the proxy only, in codecs the proxy decodes.

Nothing of a peer's description is patched through: what goes out is built anew from an allowlist.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from sip.errors import PeerError
from sip.headers.params import number
from sip.sdes import SUITES, Crypto
from sip.sdp import Media, Sdp

HELD = ("", "0.0.0.0", "::")
"""Addresses that mean: send nothing."""
EVENTS = tuple(f"telephone-event/{clock}" for clock in (8000, 16000, 32000, 48000))
"""Keys, also with the clock of a wideband codec that was offered beside them (RFC 4733 section 2.5.1.1)."""
AUDIO: Final = ("PCMU/8000", "PCMA/8000")
_NOISE = "CN/8000"
_STATIC = {"0": "PCMU/8000", "8": "PCMA/8000", "13": _NOISE}
"""Payload types that need no rtpmap (RFC 3551 section 6)."""
_PLAIN, _SECURE = ("RTP/AVP", "RTP/AVPF"), ("RTP/SAVP", "RTP/SAVPF")
OFF, OPTIONAL, REQUIRED = "off", "optional", "required"
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
        return self.sections[self.audio][1] in _SECURE


@dataclass(frozen=True, slots=True)
class Stream:
    """Where a peer wants its audio, and in which payload types.

    formats: encoding by payload type, in the peer's order; address is empty or 0.0.0.0 where it wants none; crypto: the
    keys it offers or has chosen.
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

    @property
    def held(self) -> bool:
        """Whether the peer wants no audio."""
        return self.address in HELD


def read(sdp: Sdp, srtp: str = OFF, alone: bool = False) -> Stream:
    """Pick the first audio section that can be anchored. Raises PeerError (488) where there is none.

    srtp: whether it may, or must, be SRTP; alone: refuse a description with any other section in use.
    """
    for position, media in enumerate(sdp.media):
        if media.kind == "audio" and media.port and _speaks(media, srtp):
            formats = _formats(media)
            if any(encoding in AUDIO for encoding in formats.values()):
                if alone and any(other.port for other in sdp.media if other is not media):
                    raise PeerError("SDP has more than one media section, which policy refuses", 488)
                return Stream(
                    sdp.address_of(media),
                    media.port,
                    media.rtcp_port or media.port + 1,
                    _direction(sdp, media),
                    formats,
                    {pt: media.fmtp[str(pt)] for pt, enc in formats.items() if enc in EVENTS and str(pt) in media.fmtp},
                    media.ptime,
                    media.maxptime,
                    Layout(tuple((other.kind, other.protocol) for other in sdp.media), position),
                    tuple(media.crypto) if media.protocol in _SECURE else (),
                )
    wanted = {OFF: "RTP/AVP", REQUIRED: "RTP/SAVP with a=crypto", OPTIONAL: "RTP/AVP or RTP/SAVP with a=crypto"}
    raise PeerError(f"SDP offers no audio in PCMU or PCMA over {wanted[srtp]}", 488)


def _speaks(media: Media, srtp: str) -> bool:
    if media.protocol in _SECURE:
        return srtp != OFF and bool(media.crypto)
    return media.protocol in _PLAIN and srtp != REQUIRED


def _direction(sdp: Sdp, media: Media) -> str:
    """The direction; the old way to hold, an address of zeros, is told in the new way (RFC 3264 section 8.4)."""
    direction = sdp.direction_of(media)
    if sdp.address_of(media) in HELD:
        return {"sendrecv": "sendonly", "recvonly": "inactive"}.get(direction, direction)
    return direction


def _formats(media: Media) -> dict[int, str]:
    found: dict[int, str] = {}
    for text in media.formats:
        payload_type = number(text, 127)
        if payload_type is None:
            continue
        name = media.rtpmap.get(text, _STATIC.get(text, ""))
        parts = name.split("/")
        encoding = "/".join(parts[:2]) if len(parts) == 2 or (len(parts) == 3 and parts[2] == "1") else ""
        encoding = encoding.upper() if encoding.upper() in (*AUDIO, _NOISE) else encoding.lower()
        if encoding in (*AUDIO, _NOISE, *EVENTS):
            found[payload_type] = encoding
    return found


def offer(stream: Stream, layout: Layout, keys: tuple[Crypto, ...], address: str, port: int) -> Sdp:
    """What a leg of `layout` is offered when the other side offers `stream`; `keys` where it is SRTP."""
    return _describe(_section(stream, stream.formats, layout, keys, port), layout, address)


def answer(stream: Stream, offered: Stream, keys: tuple[Crypto, ...], address: str, port: int) -> Sdp:
    """What the peer that offered `offered` is answered when the other side answers `stream`.

    In the payload types of the offer, with every further section refused. Raises PeerError (488) without a codec.
    """
    accepted = set(stream.formats.values())
    formats = {pt: encoding for pt, encoding in offered.formats.items() if encoding in accepted}
    if not any(encoding in AUDIO for encoding in formats.values()):
        raise PeerError("SDP answer shares no codec with the offer", 488)
    chosen = choose(offered.crypto)
    own = tuple(replace(key, tag=chosen.tag) for key in keys if chosen is not None and key.suite == chosen.suite)
    return _describe(_section(stream, formats, offered.layout, own, port), offered.layout, address)


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


def _describe(audio: Media, layout: Layout, address: str) -> Sdp:
    sections = [Media(kind, 0, protocol, ["0"]) for kind, protocol in layout.sections]
    sections[layout.audio] = audio
    return Sdp(sections, address)


def _section(stream: Stream, formats: dict[int, str], layout: Layout, keys: tuple[Crypto, ...], port: int) -> Media:
    fmtp = {str(pt): stream.fmtp.get(pt, "0-15") for pt, encoding in formats.items() if encoding in EVENTS}
    return Media(
        "audio",
        port,
        layout.sections[layout.audio][1],
        [str(pt) for pt in formats],
        direction=stream.direction,
        ptime=stream.ptime,
        maxptime=stream.maxptime,
        rtpmap={str(pt): encoding for pt, encoding in formats.items()},
        fmtp=fmtp,
        crypto=list(keys) if layout.secure else [],
    )
