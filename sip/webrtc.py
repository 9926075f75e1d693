"""How a browser's audio travels, as SDP tells it: ICE (RFC 8839), DTLS-SRTP (RFC 8122, RFC 8842), on one port for all
(RFC 5761), bundled (RFC 9143)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from sip.errors import PeerError

PROTOCOLS: Final = ("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP")
ACTPASS, ACTIVE, PASSIVE = "actpass", "active", "passive"
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_FINGERPRINT = re.compile(r"(sha-256|sha-384|sha-512) ((?:[0-9A-F]{2}:){31,63}[0-9A-F]{2})", re.IGNORECASE)
_MID = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,32}")
_PRIORITY: Final = 126 << 24 | 65535 << 8 | 255
"""Of a host candidate, the only one there is (RFC 8445 section 5.1.2.1)."""


@dataclass(slots=True)
class Said:
    """Attributes as they stand in a description, for the session or for one media section."""

    ufrag: str = ""
    password: str = field(default="", repr=False)
    fingerprints: list[str] = field(default_factory=list)
    setup: str = ""
    mid: str = ""
    mux: bool = False

    def take(self, name: str, value: str) -> None:
        """Note an attribute, if it is one of these."""
        value = value.strip()
        if name == "ice-ufrag":
            self.ufrag = value
        elif name == "ice-pwd":
            self.password = value
        elif name == "fingerprint" and len(self.fingerprints) < 8:
            self.fingerprints.append(value)
        elif name == "setup":
            self.setup = value.lower()
        elif name == "mid":
            self.mid = value
        elif name == "rtcp-mux":
            self.mux = True


@dataclass(frozen=True, slots=True)
class Transport:
    """One side's half. fingerprint: hash and value; setup: actpass, active or passive (RFC 4145); mid: empty where
    nothing is bundled."""

    ufrag: str
    password: str = field(repr=False)
    fingerprint: tuple[str, str]
    setup: str
    mid: str = ""


def read(session: Said, media: Said) -> Transport:
    """What the peer says of its transport. Raises PeerError (488) that names what is missing."""
    ufrag, password = media.ufrag or session.ufrag, media.password or session.password
    if not _UFRAG.fullmatch(ufrag) or not _PASSWORD.fullmatch(password):
        raise PeerError("SDP has no usable ice-ufrag and ice-pwd", 488)
    found = [_FINGERPRINT.fullmatch(text) for text in media.fingerprints or session.fingerprints]
    usable = next((match for match in found if match is not None), None)
    if usable is None:
        raise PeerError("SDP has no usable fingerprint", 488)
    if not media.mux:
        raise PeerError("SDP does not offer rtcp-mux", 488)
    setup = media.setup or session.setup or ACTPASS
    if setup not in (ACTPASS, ACTIVE, PASSIVE):
        raise PeerError("SDP has no usable setup", 488)
    mid = media.mid if _MID.fullmatch(media.mid) else ""
    return Transport(ufrag, password, (usable[1].lower(), usable[2].upper()), setup, mid)


def session_lines(mid: str) -> list[str]:
    """What stands before the first media section of this box's descriptions."""
    return ["a=ice-lite", *([f"a=group:BUNDLE {mid}"] if mid else [])]


def media_lines(own: Transport, address: str, port: int) -> list[str]:
    """What stands in the audio section."""
    return [
        *([f"a=mid:{own.mid}"] if own.mid else []),
        f"a=ice-ufrag:{own.ufrag}",
        f"a=ice-pwd:{own.password}",
        f"a=candidate:1 1 udp {_PRIORITY} {address} {port} typ host",
        "a=end-of-candidates",
        f"a=fingerprint:{own.fingerprint[0]} {own.fingerprint[1]}",
        f"a=setup:{own.setup}",
        "a=rtcp-mux",
    ]
