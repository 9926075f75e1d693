"""Parameters (`;name=value`) and comma lists, with regard to quotes and angle brackets (RFC 3261 section 25.1)."""

from __future__ import annotations

from sip.errors import PeerError


def split(text: str, separator: str) -> list[str]:
    """Split `text` at `separator` outside quotes and angle brackets. Raises PeerError where a quote does not end."""
    parts, start, quoted, angled, skip = [], 0, False, False, False
    for i, c in enumerate(text):
        if skip:
            skip = False
        elif quoted:
            skip = c == "\\"
            quoted = c != '"'
        elif c == '"':
            quoted = True
        elif c == "<":
            angled = True
        elif c == ">":
            angled = False
        elif c == separator and not angled:
            parts.append(text[start:i].strip())
            start = i + 1
    if quoted or angled:
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
        if name.strip():
            found[name.strip().lower()] = value.strip() if equals else None
    return found


def render(params: dict[str, str | None]) -> str:
    """The text of `params`, each with its semicolon."""
    return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in params.items())
