"""An answer to a request that could not be read, made of the few lines it needs (RFC 3261 section 8.2)."""

from __future__ import annotations

from sip.errors import PeerError
from sip.message import Response, head

_LONGEST_CSEQ = 64


def answer_unread(data: bytes | bytearray, status: int) -> Response | None:
    """The refusal of the request in `data`, or None where it does not say to whom. No octet of a body is looked at."""
    try:
        end, _ = head(data)
    except PeerError:
        return None
    return refusal(bytes(data[:end]), status)


def refusal(text: bytes, status: int) -> Response | None:
    """An answer to a request whose text cannot be used, made of the few lines it needs; None where they are missing."""
    names = (b"via", b"v", b"from", b"f", b"to", b"t", b"call-id", b"i", b"cseq")
    wanted: dict[bytes, list[bytes]] = {name: [] for name in names}
    lines = text.replace(b"\r\n", b"\n").split(b"\n")
    if lines[0].upper().startswith((b"SIP/", b"ACK ")):
        return None
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if colon and name.strip().lower() in wanted:
            wanted[name.strip().lower()].append(value.strip())
    answer = Response([], bytearray(), status, "Bad Request" if status == 400 else "Refused")
    for proper, short in (("Via", "v"), ("From", "f"), ("To", "t"), ("Call-ID", "i"), ("CSeq", "")):
        values = wanted[proper.lower().encode()] + wanted.get(short.encode(), [])
        if len(values) < 1 or (proper == "CSeq" and len(values[0]) > _LONGEST_CSEQ):
            return None
        answer.headers += [
            (proper, value.decode("utf-8", "surrogateescape")) for value in (values if proper == "Via" else values[:1])
        ]
    try:
        _ = answer.via
    except PeerError:
        return None
    return answer
