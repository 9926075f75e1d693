"""Keys that travel in signalling (SIP INFO): recognised, read, and blanked where they lie."""

from __future__ import annotations

from dataclasses import dataclass

from sip.message import Request

_TYPES = ("dtmf", "digit", "telephone-event", "kpml", "signal")
"""Any content type with one of these words in it is taken for keys, known or not: what could be a key stays here."""
_NAMES = (b"signal", b"digit", b"d=")
"""How bodies name the key."""
_CODES = {ord(c): code for code, c in enumerate("0123456789*#ABCD")} | {ord(c): 12 + i for i, c in enumerate("abcd")}


@dataclass(frozen=True, slots=True)
class Digits:
    """What an INFO held: `event` is the telephone-event code (RFC 4733) or -1 where it could not be read."""

    event: int

    def __repr__(self) -> str:
        return "Digits(...)"


def holds_digits(request: Request) -> bool:
    """Whether the body may be a key."""
    kind = (request.get("Content-Type") or "").lower()
    package = (request.get("Info-Package") or "").lower()
    if any(word in kind or word in package for word in _TYPES):
        return True
    return any(_begins(request.body, word) for word in _NAMES)


def _begins(body: bytearray, word: bytes) -> bool:
    """Whether `body` begins with `word` in any case; looked at in place, since a slice would be a copy."""
    return len(body) >= len(word) and all(body[i] | 0x20 == c | 0x20 for i, c in enumerate(word))


def take(request: Request) -> Digits:
    """Read the key of an INFO and blank its body.

    application/dtmf-relay: `Signal=5`; application/dtmf: the key alone. Other shapes give an event of -1.
    """
    body = request.body
    start = body.find(b"=") + 1 if any(_begins(body, word) for word in _NAMES) else 0
    while start < len(body) and body[start] in b" \t\r\n":
        start += 1
    event = -1
    if start < len(body):
        end = start
        while end < len(body) and body[end] not in b" \t\r\n;":
            end += 1
        if end - start == 1:
            event = _CODES.get(body[start], -1)
        elif end - start == 2 and body[start] == ord("1") and body[start + 1] in b"012345":
            event = 10 + body[start + 1] - ord("0")  # some write the RFC 4733 code: 10 is *, 11 is #
    request.wipe()
    return Digits(event)
