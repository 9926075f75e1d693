"""From, To, Contact, Route and Record-Route: name-addr with parameters (RFC 3261 section 20.10)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from sip.errors import PeerError
from sip.headers import params as p

_PLAIN = re.compile(r'([^"<>,;:]*)<([A-Za-z][^<>"\s]*:[^<>"\s]*)>((?:;[^;,"<>\s]*)*)')
"""What nearly all addresses look like: nothing in it is quoted."""
_SPACE = re.compile(r"\s")
_TOKENS = re.compile(r"[A-Za-z0-9.!%*_+`'~ \t-]*")


class Address(NamedTuple):
    """ "display" <uri>;params. The URI stays text: From and To may hold any scheme."""

    uri: str
    display: str = ""
    params: Mapping[str, str | None] = MappingProxyType({})

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse one address. Raises PeerError."""
        plain = _PLAIN.fullmatch(text)
        if plain is not None:
            tail = plain[3]
            return cls(plain[2], plain[1].strip(), p.parse(tail.split(";")[1:]) if tail else MappingProxyType({}))
        head, *rest = p.split(text, ";")
        display, bracket, tail = head.partition("<") if not head.startswith('"') else _quoted(head)
        if bracket:
            uri, closed, after = tail.partition(">")
            if not closed or after.strip():
                raise PeerError("an address header cannot be read")
        else:
            uri, display = head, ""
        uri = uri.strip()
        if ":" not in uri or _SPACE.search(uri):
            raise PeerError("an address header holds no URI")
        return cls(uri, display.strip(), p.parse(rest))

    def __str__(self) -> str:
        display = f"{self.display} " if self.display else ""
        if display and not display.startswith('"') and not _TOKENS.fullmatch(display):
            display = '"' + self.display.replace("\\", "\\\\").replace('"', '\\"') + '" '  # RFC 4475 section 3.1.2.15
        return f"{display}<{self.uri}>{p.render(self.params)}"

    @property
    def tag(self) -> str:
        """The tag, or nothing."""
        return self.params.get("tag") or ""

    def tagged(self, tag: str) -> Address:
        """The same address with another tag, or none if `tag` is empty."""
        rest = {name: value for name, value in self.params.items() if name != "tag"}
        if tag:
            rest["tag"] = tag
        return Address(self.uri, self.display, rest)


def _quoted(head: str) -> tuple[str, str, str]:
    end = 1
    while end < len(head) and head[end] != '"':
        end += 2 if head[end] == "\\" else 1
    rest = head[end + 1 :].lstrip()
    return head[: end + 1], rest[:1] if rest.startswith("<") else "", rest[1:]
