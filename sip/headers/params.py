"""Parameters (`;name=value`) and comma lists, with regard to quotes and angle brackets (RFC 3261 section 25.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sip.errors import PeerError

_CUTS = {separator: re.compile(rf'"(?:[^"\\]|\\.)*"|<[^>]*>|({separator})|["<]', re.DOTALL) for separator in (",", ";")}
"""What is passed over whole, the separator, and a quote or bracket that does not end."""


def split(text: str, separator: str) -> list[str]:
    """Split `text` at `separator` outside quotes and angle brackets. Raises PeerError where a quote does not end."""
    if '"' not in text and "<" not in text:
        return [part.strip() for part in text.split(separator)]
    parts, start = [], 0
    for match in _CUTS[separator].finditer(text):
        if match[1]:
            parts.append(text[start : match.start()].strip())
            start = match.end()
        elif len(match[0]) == 1:
            raise PeerError("a quote or bracket in a header does not end")
    parts.append(text[start:].strip())
    return parts


def number(text: str, limit: int) -> int | None:
    """The decimal number in `text`, or None where it is none or larger than `limit`."""
    text = text.strip()
    if not (0 < len(text) <= 10 and text.isascii() and text.isdecimal()):
        return None
    value = int(text)
    return value if value <= limit else None


def parse(parts: list[str]) -> dict[str, str | None]:
    """Return parameters by lower-case name; None for one without a value."""
    found: dict[str, str | None] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if name:
            found[name] = value.strip() if equals else None
    return found


def render(params: Mapping[str, str | None]) -> str:
    """The text of `params`, each with its semicolon."""
    return "".join([f";{name}" if value is None else f";{name}={value}" for name, value in params.items()])
