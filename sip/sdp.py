"""Session descriptions (RFC 8866): read what a proxy for audio needs, write only what it means to say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address

from sip import limits, sdes, webrtc
from sip.errors import PeerError
from sip.headers.params import number
from sip.sdes import Crypto

LAST_PORT = 65534
"""RTCP is one above (RFC 3550 section 11)."""
LONGEST_PTIME = 200
_EVENTS = re.compile(r"[0-9,-]{1,64}")
"""The only format parameters that are used: which events there are (RFC 4733 section 2.4.1)."""
_PARAMETERS = re.compile(r"[A-Za-z0-9-]{1,32}=[A-Za-z0-9-]{1,16}(?:; ?[A-Za-z0-9-]{1,32}=[A-Za-z0-9-]{1,16}){0,15};?")
"""Those of Opus (RFC 7587 section 6.1): names and plain values."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")
DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")


@dataclass(slots=True)
class Media:
    """One m= section. `formats` are payload types as text; `rtpmap` and `fmtp` by payload type."""

    kind: str
    port: int
    protocol: str
    formats: list[str]
    address: str = ""
    rtcp_port: int = 0
    direction: str = ""
    ptime: int = 0
    maxptime: int = 0
    rtpmap: dict[str, str] = field(default_factory=dict)
    fmtp: dict[str, str] = field(default_factory=dict)
    crypto: list[Crypto] = field(default_factory=list, repr=False)
    said: webrtc.Said = field(default_factory=webrtc.Said)
    own: webrtc.Transport | None = None
    """This box's half, where it is what the description is written for."""


@dataclass(slots=True)
class Sdp:
    """A description: session-level connection, direction and transport, and the media sections in order."""

    media: list[Media]
    address: str = ""
    direction: str = ""
    said: webrtc.Said = field(default_factory=webrtc.Said)

    def address_of(self, media: Media) -> str:
        """The connection address of `media` (its own or the session's)."""
        return media.address or self.address

    def direction_of(self, media: Media) -> str:
        """The direction of `media`; sendrecv where none is said (RFC 8866 section 6.7)."""
        return media.direction or self.direction or "sendrecv"


def parse(body: bytes | bytearray) -> Sdp:
    """Parse an SDP body. Raises PeerError (488)."""
    text = body.decode("utf-8", "replace").replace("\r\n", "\n")
    if _CONTROL.search(text):
        raise PeerError("SDP holds a control character", 488)  # what one reader takes for the end of a line
    lines = text.split("\n")
    if len(lines) > limits.SDP_LINES:
        raise PeerError("SDP has too many lines", 488)
    sdp = Sdp([])
    if not lines or lines[0].strip() != "v=0":
        raise PeerError("SDP does not begin with v=0", 488)
    for line in lines[1:]:
        kind, equals, value = line.partition("=")
        value = value.strip()
        if not line.strip():
            continue
        if not equals or len(kind) != 1:
            raise PeerError("a line of SDP cannot be read", 488)
        media = sdp.media[-1] if sdp.media else None
        if kind == "m":
            sdp.media.append(_media(value))
            if len(sdp.media) > limits.MEDIA:
                raise PeerError("SDP has too many media sections", 488)
        elif kind == "c":
            address = _connection(value)
            if media is None:
                sdp.address = address
            else:
                media.address = address
        elif kind == "a":
            _attribute(sdp, media, value)
    return sdp


def _media(value: str) -> Media:
    words = value.split()
    kind, port, protocol, *formats = words + [""] * (3 - len(words))
    at = number(port.partition("/")[0], LAST_PORT)
    if at is None or not protocol:
        raise PeerError("m= of SDP cannot be read", 488)
    if len(formats) > limits.FORMATS:
        raise PeerError("m= of SDP has too many formats", 488)
    return Media(kind, at, protocol, [f for f in formats if f])


def _connection(value: str) -> str:
    parts = value.split()
    if len(parts) != 3 or parts[0] != "IN" or parts[1] not in ("IP4", "IP6"):
        raise PeerError("c= of SDP cannot be read", 488)
    address = parts[2].partition("/")[0]
    try:
        found = ip_address(address)  # a name would have to be looked up for every packet
    except ValueError:
        raise PeerError("c= of SDP is not an IP address", 488) from None
    if "%" in address:
        raise PeerError("c= of SDP has a zone", 488)
    mapped = found.ipv4_mapped if found.version == 6 else None
    return str(mapped if mapped is not None else found)


def _attribute(sdp: Sdp, media: Media | None, value: str) -> None:
    name, _, rest = value.partition(":")
    if name in DIRECTIONS:
        if media is None:
            sdp.direction = name
        else:
            media.direction = name
    (sdp if media is None else media).said.take(name, rest)
    if media is None:
        return
    first, _, detail = rest.partition(" ")
    if name == "rtpmap":
        media.rtpmap[first] = detail.strip()
    elif name == "fmtp" and (_EVENTS.fullmatch(detail.strip()) or _PARAMETERS.fullmatch(detail.strip())):
        media.fmtp[first] = detail.strip()
    elif name == "crypto":
        media.crypto += [crypto for crypto in (sdes.parse(rest),) if crypto is not None][: limits.CRYPTOS]
    elif name == "rtcp":
        media.rtcp_port = number(first, LAST_PORT) or 0
    elif name == "ptime":
        media.ptime = number(rest, LONGEST_PTIME) or 0
    elif name == "maxptime":
        media.maxptime = number(rest, LONGEST_PTIME) or 0


def write(sdp: Sdp, session: str, version: int) -> bytes:
    """Write a description from its parts alone."""
    family = "IP6" if ":" in sdp.address else "IP4"
    lines = [
        "v=0",
        f"o=flattone {session} {version} IN {family} {sdp.address}",
        "s=-",
        f"c=IN {family} {sdp.address}",
        "t=0 0",
    ]
    own = next((media.own for media in sdp.media if media.own is not None), None)
    if own is not None:
        lines += webrtc.session_lines(own.mid)
    for media in sdp.media:
        lines.append(f"m={media.kind} {media.port} {media.protocol} {' '.join(media.formats) or '0'}")
        if not media.port:
            continue
        for text in media.formats:
            if text in media.rtpmap:
                lines.append(f"a=rtpmap:{text} {media.rtpmap[text]}")
            if text in media.fmtp:
                lines.append(f"a=fmtp:{text} {media.fmtp[text]}")
        lines += webrtc.media_lines(media.own, sdp.address, media.port) if media.own is not None else []
        lines += [f"a=crypto:{crypto}" for crypto in media.crypto]
        lines += [f"a=ptime:{media.ptime}"] if media.ptime else []
        lines += [f"a=maxptime:{media.maxptime}"] if media.maxptime else []
        lines.append(f"a={media.direction or 'sendrecv'}")
    return ("\r\n".join(lines) + "\r\n").encode()
