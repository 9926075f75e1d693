"""Offer and answer through the proxy (RFC 3264): each side is told of the proxy only, in codecs the proxy decodes.

Nothing of a peer's description is patched through: what goes out is built anew from an allowlist.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sip.errors import PeerError
from sip.headers.params import number
from sip.sdp import Media, Sdp

HELD = ("", "0.0.0.0", "::")
"""Addresses that mean: send nothing."""
EVENTS = tuple(f"telephone-event/{clock}" for clock in (8000, 16000, 32000, 48000))
"""Keys, also with the clock of a wideband codec that was offered beside them (RFC 4733 section 2.5.1.1)."""
_AUDIO = ("PCMU/8000", "PCMA/8000")
_NOISE = "CN/8000"
_STATIC = {"0": "PCMU/8000", "8": "PCMA/8000", "13": _NOISE}
"""Payload types that need no rtpmap (RFC 3551 section 6)."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Where a peer wants its audio, and in which payload types.

    formats: encoding by payload type, in the peer's order; address is empty or 0.0.0.0 where it wants none.
    """

    address: str
    port: int
    rtcp_port: int
    direction: str
    formats: dict[int, str] = field(default_factory=dict)
    fmtp: dict[int, str] = field(default_factory=dict)
    ptime: int = 0
    maxptime: int = 0
    section: int = 0
    sections: tuple[tuple[str, str], ...] = ()
    """Kind and protocol of every m= section, for an answer with as many."""


def read(sdp: Sdp) -> Stream:
    """Pick the first audio section that can be anchored. Raises PeerError (488) where there is none."""
    for position, media in enumerate(sdp.media):
        if media.kind == "audio" and media.port and media.protocol == "RTP/AVP":
            formats = _formats(media)
            if any(encoding in _AUDIO for encoding in formats.values()):
                return Stream(
                    sdp.address_of(media),
                    media.port,
                    media.rtcp_port or media.port + 1,
                    _direction(sdp, media),
                    formats,
                    {pt: media.fmtp[str(pt)] for pt, enc in formats.items() if enc in EVENTS and str(pt) in media.fmtp},
                    media.ptime,
                    media.maxptime,
                    position,
                    tuple((other.kind, other.protocol) for other in sdp.media),
                )
    raise PeerError("SDP offers no audio in PCMU or PCMA over RTP/AVP", 488)


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
        encoding = encoding.upper() if encoding.upper() in (*_AUDIO, _NOISE) else encoding.lower()
        if encoding in (*_AUDIO, _NOISE, *EVENTS):
            found[payload_type] = encoding
    return found


def offer(stream: Stream, address: str, port: int) -> Sdp:
    """What the other side is offered when a peer offers `stream`."""
    return Sdp([_section(stream, stream.formats, port)], address)


def answer(stream: Stream, offered: Stream, address: str, port: int) -> Sdp:
    """What the peer that offered `offered` is answered when the other side answers `stream`.

    In the payload types of the offer, with every further section refused. Raises PeerError (488) without a codec.
    """
    accepted = set(stream.formats.values())
    formats = {pt: encoding for pt, encoding in offered.formats.items() if encoding in accepted}
    if not any(encoding in _AUDIO for encoding in formats.values()):
        raise PeerError("SDP answer shares no codec with the offer", 488)
    sections = [Media(kind, 0, protocol, ["0"]) for kind, protocol in offered.sections]
    sections[offered.section] = _section(stream, formats, port)
    return Sdp(sections, address)


def _section(stream: Stream, formats: dict[int, str], port: int) -> Media:
    fmtp = {str(pt): stream.fmtp.get(pt, "0-15") for pt, encoding in formats.items() if encoding in EVENTS}
    return Media(
        "audio",
        port,
        "RTP/AVP",
        [str(pt) for pt in formats],
        direction=stream.direction,
        ptime=stream.ptime,
        maxptime=stream.maxptime,
        rtpmap={str(pt): encoding for pt, encoding in formats.items()},
        fmtp=fmtp,
    )
