"""Replaces (RFC 3891) and the one inside a Refer-To (RFC 3515, RFC 3261 section 19.1.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sip.errors import PeerError
from sip.headers import params as p

_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Replaces:
    """The dialog that an INVITE takes over, as its receiver sees it: `to_tag` is the receiver's own."""

    call_id: str
    to_tag: str
    from_tag: str
    early_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Replaces:
        """Parse one value. Raises PeerError."""
        call_id, *rest = p.split(text, ";")
        params = p.parse(rest)
        to_tag, from_tag = params.get("to-tag"), params.get("from-tag")
        if not call_id or not to_tag or not from_tag:
            raise PeerError("Replaces cannot be read")
        return cls(call_id, to_tag, from_tag, "early-only" in params)

    def __str__(self) -> str:
        early = ";early-only" if self.early_only else ""
        return f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}{early}"


def take_apart(uri: str) -> tuple[str, dict[str, str]]:
    """A URI without its headers, and those headers by lower-case name, unescaped."""
    bare, _, text = uri.partition("?")
    found: dict[str, str] = {}
    for part in text.split("&") if text else []:
        name, _, value = part.partition("=")
        found[_unescaped(name).lower()] = _unescaped(value)
    return bare, found


def put_together(uri: str, headers: dict[str, str]) -> str:
    """A URI with headers, escaped."""
    parts = [f"{name}={_escape(value)}" for name, value in headers.items()]
    return f"{uri}?{'&'.join(parts)}" if parts else uri


def _unescaped(text: str) -> str:
    found = _ESCAPED.sub(lambda m: chr(int(m[1], 16)), text)
    if any(c < " " or c == "\x7f" for c in found):
        raise PeerError("a header in a URI holds a control character")
    return found


def _escape(text: str) -> str:
    return "".join(c if (c.isalnum() and c.isascii()) or c in "-_.!~*'()" else f"%{ord(c) & 255:02X}" for c in text)
