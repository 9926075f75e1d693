"""Names of files as text: they may be any octets, and a terminal or a report must not be steered by them."""

from __future__ import annotations


def shown(path: str) -> str:
    """A path as it is told: octets of a name that are no UTF-8 as escapes, so that any form of text can hold it."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """The same on one line of a terminal, which it cannot steer: newlines and the like as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
