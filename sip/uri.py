"""SIP URIs (RFC 3261 section 19.1): the parts that routing needs; the rest is kept as it came."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sip.errors import PeerError
from sip.hop import PORTS

_URI = re.compile(
    r"(?P<scheme>sips?):(?:(?P<user>[^@\s<>]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?(?P<rest>[;?][^\s<>]*)?",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_OF_THE_HOST = frozenset({"transport", "maddr", "ttl", "method", "lr"})


@dataclass(frozen=True, slots=True)
class Uri:
    """scheme:user@host:port followed by parameters and headers, `rest`, kept as they came."""

    scheme: str
    user: str
    host: str
    port: int | None = None
    rest: str = ""

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Parse a sip or sips URI. Raises PeerError (416 for another scheme)."""
        match = _URI.fullmatch(text.strip())
        if match is None:
            scheme, colon, _ = text.partition(":")
            if colon and _SCHEME.fullmatch(scheme) and scheme.lower() not in ("sip", "sips"):
                raise PeerError("URI scheme is not sip", 416)
            raise PeerError("URI cannot be read")
        port = int(match["port"]) if match["port"] else None
        if port is not None and not 0 < port < 65536:
            raise PeerError("port of a URI is out of range")
        return cls(match["scheme"].lower(), match["user"] or "", match["host"], port, match["rest"] or "")

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}:{user}{self.host}{port}{self.rest}"

    @property
    def number(self) -> str:
        """The user part without its parameters: the number or extension."""
        return self.user.partition(";")[0].partition(":")[0]

    @property
    def transport(self) -> str:
        """The transport that the URI asks for, in capitals; nothing where it asks for none that is known here."""
        for part in self.rest.partition("?")[0].split(";"):
            name, _, value = part.partition("=")
            if name.strip().lower() == "transport" and value.strip().upper() in PORTS:
                return value.strip().upper()
        return ""

    def with_param(self, name: str, value: str) -> Uri:
        """The same with one more parameter."""
        return replace(self, rest=f"{self.rest};{name}={value}")

    def at(self, host: str, port: int | None) -> Uri:
        """The same user at another host, without what names the old one (RFC 3261 section 19.1.1)."""
        params = [part for part in self.rest.partition("?")[0].split(";")[1:] if part]
        kept = [part for part in params if part.partition("=")[0].lower() not in _OF_THE_HOST]
        return replace(self, host=host, port=port, rest="".join(f";{part}" for part in kept))
