"""Lines chained by SHA-256: each holds the hash of the one before and its own, so that a change, a gap or a line too
many shows. Whoever can write the file could make the whole chain anew: that only shows against hashes kept elsewhere.

    {"seq":7,...,"previous":"HEX","hash":"HEX"}     HEX of hash = SHA-256 of the line up to and without `,"hash"`
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

FIRST: Final = 64 * "0"
"""What stands before the first line."""
_SPLIT: Final = b',"hash":"'
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Link:
    """A place in a chain: how many lines there are up to it, and the last one's hash."""

    seq: int = 0
    hash: str = FIRST


class _Line(msgspec.Struct):
    seq: int
    previous: str
    hash: str


class Broken(ValueError):
    """A line is not what was written; the text says how."""


def append(link: Link, entry: Mapping[str, object]) -> tuple[bytes, Link]:
    """(the line for `entry` with its newline, the chain's new end). Keys seq, previous and hash are the chain's."""
    body = msgspec.json.encode({"seq": link.seq + 1, **entry, "previous": link.hash})[:-1]
    digest = hashlib.sha256(body).hexdigest()
    return body + _SPLIT + digest.encode() + b'"}\n', Link(link.seq + 1, digest)


def read(line: bytes) -> tuple[Link, Link]:
    """(what the line says is before it, what it is). Raises Broken where it is not as it was written."""
    body, split, rest = line.rstrip(b"\n").rpartition(_SPLIT)
    try:
        found = msgspec.json.decode(line, type=_Line)
    except (ValueError, RecursionError):
        raise Broken("is no line of a chain") from None
    if not split or rest != found.hash.encode() + b'"}' or not _HEX.fullmatch(found.hash):
        raise Broken("is no line of a chain")
    if hashlib.sha256(body).hexdigest() != found.hash:
        raise Broken("was altered")
    return Link(found.seq - 1, found.previous), Link(found.seq, found.hash)


def anchor(name: str, link: Link) -> str:
    """The end of the chain `name`, as a line of text to be kept elsewhere."""
    return f"flattone-{name} seq={link.seq} hash={link.hash}"


_ANCHOR: Final = re.compile(rf"flattone-(\S+) seq=(\d{{1,15}}) hash=({_HEX.pattern})")


def anchors(text: str) -> dict[str, list[Link]]:
    """Every anchor in a text, like a log of syslog's, by the name of its chain."""
    found: dict[str, list[Link]] = {}
    for name, seq, digest in _ANCHOR.findall(text):
        found.setdefault(name, []).append(Link(int(seq), digest))
    return found
