"""Keys that travel in signalling (INFO, KPML, NOTIFY): recognised, read, and blanked where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field

from sip.message import Request

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


def holds_digits(request: Request) -> bool:
    """Whether the body may be a key."""
    kind = (request.get("Content-Type") or "").lower()
    package = (request.get("Info-Package") or "").lower()
    event = (request.get("Event") or "").lower() if request.method == "NOTIFY" else ""
    if any(word in text for text in (kind, package, event) for word in _TYPES):
        return True
    return any(_begins(request.body, word) for word in _NAMES)


def _begins(body: bytearray, word: bytes) -> bool:
    """Whether `body` begins with `word` in any case; looked at in place, since a slice would be a copy."""
    return len(body) >= len(word) and all(body[i] | 0x20 == c | 0x20 for i, c in enumerate(word))


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
    start = body.find(b"=") + 1 if any(_begins(body, word) for word in _NAMES) else 0
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
    if body.find(b"<kpml-response") < 0:
        return Digits((), good=False)
    at = body.find(b"digits=")
    if at < 0 or at + 8 > len(body):
        return Digits(())
    quote = body[at + 7]
    events: list[int] = []
    for i in range(at + 8, min(len(body), at + 9 + _MOST)):
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
