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
        """type/subtype in lower case, however it is folded and spaced; text/plain where none is said (RFC 2046 section
        5.2)."""
        for line in re.sub(rb"\r?\n[ \t]+", b" ", self.headers).split(b"\n"):
            name, _, value = line.partition(b":")
            if name.strip().lower() in (b"content-type", b"c"):
                return re.sub(rb'[\s"]', b"", value.partition(b";")[0]).lower().decode("latin-1")
        return "text/plain"

    @property
    def opaque(self) -> bool:
        """Whether something may be inside that only another reader would find: parts of its own, or a description."""
        return self.content_type.startswith("multipart/") or self.body.lstrip()[:3] == b"v=0"


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


def join(content_type: str, parts: list[Part]) -> tuple[str, bytes]:
    """(Content-Type, body) of `parts`, with a boundary of this box's own: readers differ on odd ones."""
    number = 0
    while any(b"flattone-%d" % number in part.body for part in parts):
        number += 1
    mark = b"--flattone-%d" % number
    out = bytearray()
    for part in parts:
        out += mark + b"\r\n" + part.headers + (b"\r\n" if part.headers else b"") + b"\r\n" + part.body + b"\r\n"
    kind = content_type.partition(";")[0].strip()
    return f"{kind};boundary=flattone-{number}", bytes(out + mark + b"--\r\n")
