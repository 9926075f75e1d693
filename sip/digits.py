"""Keys that travel in signalling (INFO, KPML, NOTIFY): recognised, read, and blanked where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field

from sip import multipart
from sip.errors import PeerError
from sip.message import Message, Request

_TYPES = ("dtmf", "digit", "telephone-event", "kpml", "signal")
"""Any content type, package or event with one of these words in it is taken for keys, known or not."""
_NAMES = (b"signal", b"digit", b"d=")
"""How bodies name the key."""
_CODES = {ord(c): code for code, c in enumerate("0123456789*#ABCD")} | {ord(c): 12 + i for i, c in enumerate("abcd")}
_MOST = 32
"""Keys of one message (a KPML report may hold as many as were keyed since the last one, RFC 4730)."""


@dataclass(frozen=True, slots=True)
class Digits:
    """events: telephone-event codes (RFC 4733) in order; good: the body could be read, though it may hold no key."""

    events: tuple[int, ...] = field(repr=False)
    good: bool = True
    begun: bool = False
    """A press that goes on: the same message will come again at its end (NOTIFY with audio/telephone-event)."""


def holds_digits(message: Message) -> bool:
    """Whether a message, or any part of its body, may be a key."""
    kind = (message.get("Content-Type") or "").lower()
    package = (message.get("Info-Package") or "").lower()
    event = (message.get("Event") or "").lower() if isinstance(message, Request) and message.method == "NOTIFY" else ""
    if any(word in text for text in (kind, package, event) for word in _TYPES):
        return True
    if kind.startswith("multipart/"):
        try:
            parts = multipart.split(message.get("Content-Type") or "", message.body)
            return any(
                part.content_type.startswith("multipart/") or looks_like_keys(part.content_type, part.body)
                for part in parts
            )
        except PeerError:
            return True
    return looks_like_keys(kind, message.body)


def blank(message: Message) -> None:
    """Blank what may be a key in a message: its body, or those parts of it."""
    kind = message.get("Content-Type") or ""
    if not kind.lower().startswith("multipart/"):
        message.wipe()
        return
    try:
        parts = multipart.split(kind, message.body)
    except PeerError:
        message.wipe()
        return
    for part in parts:
        if part.body and looks_like_keys(part.content_type, part.body):
            at = message.body.find(part.body)
            message.body[at : at + len(part.body)] = bytes(len(part.body))
        part.body[:] = bytes(len(part.body))


def looks_like_keys(kind: str, body: bytearray) -> bool:
    """Whether a body, or one part of several, may be a key: by its type, its first words, or by holding no more."""
    kind = kind.lower()
    if any(word in kind for word in _TYPES):
        return True
    if kind == "application/sdp":
        return False
    keyed = sum(c in _CODES for c in body)
    if 0 < keyed <= _MOST and keyed + sum(c in b" \t\r\n,;" for c in body) == len(body):
        return True
    at = 0
    while at < len(body):
        if any(_begins(body, word, at) for word in _NAMES):
            return True
        following = body.find(b"\n", at)
        at = following + 1 if following >= 0 else len(body)
        while at < len(body) and body[at] in b" \t":
            at += 1
    return False


def _begins(body: bytearray, word: bytes, at: int = 0) -> bool:
    """Whether `body` begins with `word` in any case; looked at in place, since a slice would be a copy."""
    return len(body) >= at + len(word) and all(body[at + i] | 0x20 == c | 0x20 for i, c in enumerate(word))


def take(request: Request) -> Digits:
    """Read the keys of a request and blank its body.

    application/dtmf-relay: `Signal=5`; application/dtmf: the key alone; application/kpml-response+xml: the attribute
    `digits` (RFC 4730 section 5.4); audio/telephone-event: four octets (RFC 4733 section 2.3). Others are not good.
    """
    kind = request.content_type
    if "kpml" in kind:
        found = _kpml(request.body)
    elif kind == "audio/telephone-event":
        found = _octets(request.body)
    elif not request.body and request.method == "NOTIFY":
        found = Digits(())
    else:
        found = _text(request.body)
    request.wipe()
    return found


def _text(body: bytearray) -> Digits:
    start = 0
    while start < len(body) and not any(_begins(body, word, start) for word in _NAMES):
        following = body.find(b"\n", start)
        start = following + 1 if following >= 0 else len(body)
    start = body.find(b"=", start) + 1 if start < len(body) else 0
    while start < len(body) and body[start] in b" \t\r\n":
        start += 1
    end = start
    while end < len(body) and body[end] not in b" \t\r\n;":
        end += 1
    event = -1
    if end - start == 1:
        event = _CODES.get(body[start], -1)
    elif end - start == 2 and body[start] == ord("1") and body[start + 1] in b"012345":
        event = 10 + body[start + 1] - ord("0")  # some write the RFC 4733 code: 10 is *, 11 is #
    return Digits((event,)) if event >= 0 else Digits((), good=False)


def _kpml(body: bytearray) -> Digits:
    if body.find(b"kpml-response") < 0:
        return Digits((), good=False)
    at = body.find(b"digits")
    if at < 0:
        return Digits(())
    at += 6
    while at < len(body) and body[at] in b" \t\r\n=":
        at += 1
    if at >= len(body) or body[at] not in b"\"'":
        return Digits((), good=False)
    quote = body[at]
    events: list[int] = []
    for i in range(at + 1, min(len(body), at + 2 + _MOST)):
        if body[i] == quote:
            return Digits(tuple(events))
        if body[i] not in _CODES:
            return Digits((), good=False)
        events.append(_CODES[body[i]])
    return Digits((), good=False)


def _octets(body: bytearray) -> Digits:
    if len(body) != 4 or body[0] > 15:
        return Digits((), good=False)
    return Digits((body[0],), begun=not body[1] & 0x80)
