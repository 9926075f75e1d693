"""Bodies of several parts (RFC 2046 section 5.1, RFC 5621): the session description taken out, the rest kept."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sip import limits
from sip.errors import PeerError

_BOUNDARY = re.compile(r";\s*boundary\s*=\s*(?:\"([^\"]{1,70})\"|([^\s;\"]{1,70}))", re.IGNORECASE)


@dataclass(slots=True)
class Part:
    """headers as they came, without the empty line after them."""

    headers: bytes
    body: bytearray

    @property
    def content_type(self) -> str:
        """type/subtype in lower case; text/plain where none is said (RFC 2046 section 5.2)."""
        for line in self.headers.split(b"\n"):
            name, _, value = line.partition(b":")
            if name.strip().lower() in (b"content-type", b"c"):
                return value.partition(b";")[0].strip().lower().decode("latin-1")
        return "text/plain"


def split(content_type: str, body: bytes | bytearray) -> list[Part]:
    """The parts of `body`. Raises PeerError (400)."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise PeerError("multipart body has no boundary")
    mark = b"--" + (match[1] or match[2]).encode("utf-8", "surrogateescape")
    pieces = re.split(rb"(?:^|\r?\n)" + re.escape(mark) + rb"(--)?[ \t]*(?=\r?\n|$)", bytes(body))
    parts: list[Part] = []
    for i in range(2, len(pieces), 2):
        if pieces[i - 1] == b"--":  # the closing line
            break
        text = re.sub(rb"\A\r?\n", b"", pieces[i], count=1)
        if text[:1] in (b"\r", b"\n"):
            headers, content = b"", re.sub(rb"\A\r?\n", b"", text, count=1)
        else:
            headers, *rest = re.split(rb"\r?\n\r?\n", text, maxsplit=1)
            content = rest[0] if rest else b""
        parts.append(Part(headers, bytearray(content)))
        if len(parts) > limits.PARTS:
            raise PeerError("multipart body has too many parts", 413)
    if not parts:
        raise PeerError("multipart body has no parts")
    return parts


def join(content_type: str, parts: list[Part]) -> bytes:
    """The body of `parts` with the boundary that `content_type` names."""
    match = _BOUNDARY.search(content_type)
    assert match is not None
    mark = b"--" + (match[1] or match[2]).encode("utf-8", "surrogateescape")
    out = bytearray()
    for part in parts:
        out += mark + b"\r\n" + part.headers + (b"\r\n" if part.headers else b"") + b"\r\n" + part.body + b"\r\n"
    return bytes(out + mark + b"--\r\n")
