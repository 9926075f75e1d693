"""Names of files as text: they may be any octets, and a terminal or a report must not be steered by them."""

from __future__ import annotations

import re


def shown(path: str) -> str:
    """A path as it is told: octets of a name that are no UTF-8 as escapes (a backslash is doubled, so that no two names
    are told alike), and a URL without the credentials in it."""
    if "://" in path:
        bare = re.sub(r"://[^/@]*@", "://", path)
        return re.sub(r"\?[^:]*", "?", bare) if "http" in bare.partition("://")[0] else bare
    return path.replace("\\", "\\\\").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def unshown(text: str) -> str:
    """The path again, of a local file."""

    def octet(found: re.Match[str]) -> str:
        return "\\" if found[0] == "\\\\" else chr(0xDC00 + int(found[1], 16))

    return re.sub(r"\\\\|\\x([0-9a-f]{2})", octet, text)


def printable(text: str) -> str:
    """The same on one line of a terminal, which it cannot steer: newlines and the like as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
