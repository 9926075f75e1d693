"""Via (RFC 3261 section 20.42) and where a response goes (section 18.2.2, RFC 3581)."""

from __future__ import annotations

import re
from typing import NamedTuple

from sip.errors import PeerError
from sip.headers import params as p
from sip.hop import PORTS, UDP, Hop

MAGIC = "z9hG4bK"
"""Every branch of RFC 3261 starts so (section 8.1.1.7)."""
_SENT = re.compile(
    r"SIP\s*/\s*\d\.\d\s*/\s*(?P<transport>[A-Za-z0-9.!%*_+`'~-]+)\s+"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)\s*(?::\s*(?P<port>\d{1,5}))?",
    re.IGNORECASE,
)


class Via(NamedTuple):
    """SIP/2.0/transport host:port;params."""

    transport: str
    host: str
    port: int | None
    params: dict[str, str | None]

    @classmethod
    def parse(cls, text: str) -> Via:
        """Parse one Via. Raises PeerError."""
        head, *rest = p.split(text, ";")
        match = _SENT.fullmatch(head)
        if match is None or (match["port"] and not 0 < int(match["port"]) < 65536):
            raise PeerError("Via cannot be read")
        return cls(
            match["transport"].upper(), match["host"], int(match["port"]) if match["port"] else None, p.parse(rest)
        )

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"SIP/2.0/{self.transport} {self.host}{port}{p.render(self.params)}"

    @property
    def branch(self) -> str:
        """The branch, or nothing."""
        return self.params.get("branch") or ""

    @property
    def sent_by(self) -> str:
        """host:port as one text, for matching."""
        return f"{self.host.lower()}:{self.port or PORTS.get(self.transport, 5060)}"

    def received_from(self, source: Hop) -> Via:
        """With `received` and, where asked for, `rport` filled in (RFC 3581 section 4)."""
        params = dict(self.params)
        if "rport" in params:
            params["rport"] = str(source.port)
            params["received"] = source.host
        elif self.host.strip("[]").lower() != source.host:
            params["received"] = source.host
        return Via(self.transport, self.host, self.port, params)

    def reply_to(self, source: Hop) -> Hop:
        """Where the response to a request from `source` goes: over a stream, back the way it came."""
        if source.transport != UDP:
            return source
        return Hop(source.host, source.port if "rport" in self.params else self.port or 5060)
