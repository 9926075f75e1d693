"""SIP messages: parsed without loss, in the order and spelling in which they came (RFC 3261 section 7).

The body is a buffer of its own, so that one that holds a digit can be blanked before anything keeps the message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, cast

from sip import limits
from sip.errors import PeerError
from sip.headers import params as p
from sip.headers.address import Address
from sip.headers.via import Via
from sip.uri import Uri

_COMPACT = {
    "i": "call-id", "m": "contact", "e": "content-encoding", "l": "content-length", "c": "content-type", "f": "from",
    "s": "subject", "k": "supported", "t": "to", "v": "via", "o": "event", "r": "refer-to", "b": "referred-by",
    "u": "allow-events", "x": "session-expires", "y": "identity", "d": "request-disposition", "j": "reject-contact",
    "a": "accept-contact",
}  # fmt: skip
"""IANA's compact forms."""
_FOLD = re.compile(r"[ \t]*\n[ \t]+")
_TOKEN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~")
_SINGLE = frozenset({"call-id", "cseq", "from", "to", "max-forwards", "content-length", "content-type"})
"""Headers that may stand once only."""

_METHODS = frozenset({"INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "INFO", "PRACK", "UPDATE", "REFER", "NOTIFY"})
"""Those that are known to be tokens."""
REASONS = {
    100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 202: "Accepted", 400: "Bad Request",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable", 408: "Request Timeout",
    413: "Request Entity Too Large", 415: "Unsupported Media Type", 416: "Unsupported URI Scheme",
    420: "Bad Extension", 421: "Extension Required", 422: "Session Interval Too Small", 469: "Bad Info Package",
    480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected",
    483: "Too Many Hops", 485: "Ambiguous", 487: "Request Terminated", 488: "Not Acceptable Here", 489: "Bad Event",
    491: "Request Pending", 500: "Server Internal Error", 501: "Not Implemented", 503: "Service Unavailable",
    504: "Server Time-out", 505: "Version Not Supported", 513: "Message Too Large", 603: "Decline",
}  # fmt: skip
_KNOWN: dict[str, str] = {}
"""Spellings of header names met so far; bounded, since peers choose them."""


def canonical(name: str) -> str:
    """Lower-case, long form."""
    found = _KNOWN.get(name)
    if found is None:
        lower = name.lower()
        found = _COMPACT.get(lower, lower)
        if len(_KNOWN) < limits.SPELLINGS:
            _KNOWN[name] = found
    return found


@dataclass(slots=True)
class Message:
    """Headers in order, as (name, value), and the body."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray, repr=False)
    _read: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What has been parsed already, by header, until that header is changed."""
    _index: dict[str, list[str]] | None = field(default=None, init=False, repr=False, compare=False)
    """Of a message from the wire, the lines of each header by canonical name; whoever changes one goes by a method."""

    def start_line(self) -> str:
        """The first line, without its end."""
        raise NotImplementedError

    def get(self, name: str) -> str | None:
        """The first value of header `name` (long form), or None."""
        wanted = name.lower()
        if self._index is not None:
            found = self._index.get(wanted)
            return found[0] if found else None
        for key, value in self.headers:
            if canonical(key) == wanted:
                return value
        return None

    def require(self, name: str) -> str:
        """The value of header `name`. Raises PeerError where it is missing."""
        value = self.get(name)
        if not value:
            raise PeerError(f"{name} is missing")
        return value

    def lines(self, name: str) -> list[str]:
        """All values of header `name`, a line each."""
        wanted = name.lower()
        if self._index is not None:
            return list(self._index.get(wanted, ()))
        return [value for key, value in self.headers if canonical(key) == wanted]

    def every(self, name: str) -> list[str]:
        """All values of header `name`, comma lists taken apart."""
        lines = self.lines(name)
        if len(lines) == 1 and "," not in lines[0]:
            return [lines[0]] if lines[0] else []
        return [value for line in lines for value in p.split(line, ",") if value]

    def tokens(self, name: str) -> frozenset[str]:
        """The values of a header that lists tokens (Supported, Require), in lower case, without parameters."""
        return frozenset(v.partition(";")[0].strip().lower() for line in self.lines(name) for v in line.split(",") if v)

    def remove(self, *names: str) -> None:
        """Take out every header of these names."""
        gone = {name.lower() for name in names}
        for name in gone:
            self._read.pop(name, None)
            if self._index is not None:
                self._index.pop(name, None)
        self.headers = [(key, value) for key, value in self.headers if canonical(key) not in gone]

    def set(self, name: str, value: str) -> None:
        """Put one header in the place of all of that name, at the end."""
        self.remove(name)
        self.headers.append((name, value))
        if self._index is not None:
            self._index[canonical(name)] = [value]

    @property
    def call_id(self) -> str:
        return self.require("Call-ID")

    @property
    def from_(self) -> Address:
        address = self._read.get("from")
        if address is None:
            address = self._read["from"] = Address.parse(self.require("From"))
        return cast(Address, address)

    @property
    def to(self) -> Address:
        address = self._read.get("to")
        if address is None:
            address = self._read["to"] = Address.parse(self.require("To"))
        return cast(Address, address)

    @property
    def cseq(self) -> tuple[int, str]:
        """Number and method."""
        found = self._read.get("cseq")
        if found is None:
            parts = self.require("CSeq").split()
            number = p.number(parts[0], 2**31 - 1) if len(parts) == 2 else None
            if number is None:
                raise PeerError("CSeq cannot be read")
            found = self._read["cseq"] = number, parts[1]
        return cast(tuple[int, str], found)

    @property
    def via(self) -> Via:
        """The topmost Via."""
        via = self._read.get("via")
        if via is None:
            first = self.get("Via")
            if not first:
                raise PeerError("Via is missing")
            via = self._read["via"] = Via.parse(p.split(first, ",")[0] if "," in first else first)
        return cast(Via, via)

    def stamp(self, via: Via) -> None:
        """Put `via` in the place of the topmost one."""
        for i, (name, value) in enumerate(self.headers):
            if canonical(name) == "via":
                rest = p.split(value, ",")[1:] if "," in value else []
                self.headers[i] = (name, ", ".join([str(via), *rest]))
                if self._index is not None:
                    self._index["via"][0] = self.headers[i][1]
                break
        self._read["via"] = via

    @property
    def content_type(self) -> str:
        """type/subtype in lower case, without parameters; nothing where there is no body."""
        return (self.get("Content-Type") or "").partition(";")[0].strip().lower() if self.body else ""

    def put_body(self, content_type: str, body: bytes | bytearray) -> None:
        """Set body and Content-Type together."""
        self.remove("Content-Type", "Content-Length")
        self.body = bytearray(body)
        if body:
            self.set("Content-Type", content_type)

    def wipe(self) -> None:
        """Blank the body."""
        self.body[:] = bytes(len(self.body))

    def encode(self) -> bytes:
        """The message as it goes out, Content-Length set."""
        lines = [f"{name}: {value}" for name, value in self.headers if canonical(name) != "content-length"]
        text = "\r\n".join([self.start_line(), *lines, f"Content-Length: {len(self.body)}\r\n\r\n"])
        return text.encode("utf-8", "surrogateescape") + self.body


@dataclass(slots=True)
class Request(Message):
    """A request."""

    method: str = ""
    uri: str = ""

    def start_line(self) -> str:
        return f"{self.method} {self.uri} SIP/2.0"

    def response(self, status: int, reason: str = "", tag: str = "") -> Response:
        """A response to this request (RFC 3261 section 8.2.6), with `tag` in To where it has none."""
        to = str(self.to.tagged(tag)) if tag and not self.to.tag else self.require("To")
        headers = [("Via", value) for value in self.lines("Via")]
        headers += [("From", self.require("From")), ("To", to)]
        headers += [("Call-ID", self.call_id), ("CSeq", self.require("CSeq"))]
        return Response(headers, bytearray(), status=status, reason=reason or REASONS.get(status, "Unknown"))


@dataclass(slots=True)
class Response(Message):
    """A response."""

    status: int = 0
    reason: str = ""

    def start_line(self) -> str:
        return f"SIP/2.0 {self.status} {self.reason}"


def parse(data: bytes | bytearray) -> Request | Response:
    """Parse one datagram. Raises PeerError, with a status that fits where it was a request.

    The body is copied once, into `body`; octets beyond Content-Length are dropped, fewer are an error (RFC 3261
    section 18.3).
    """
    if len(data) > limits.MESSAGE_BYTES:
        raise PeerError("message is too large", 513)
    head_end, body_start = head(data)
    text = data[:head_end].decode("utf-8", "surrogateescape").lstrip("\r\n").replace("\r\n", "\n").removesuffix("\r")
    if "\r" in text or ("\0" in text and "\0" in text.replace("\\\0", "")):
        raise PeerError("a line holds a control character")  # also in folded lines: what one peer takes for an end
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub(" ", text)
    first, *lines = text.split("\n")
    message = _start(first)
    message._index = _headers(lines, message.headers)
    _check(message, message._index)
    length = message.get("Content-Length")
    body_end = len(data)
    if length is not None:
        size = p.number(length, limits.MESSAGE_BYTES)
        if size is None:
            raise PeerError("Content-Length cannot be read")
        body_end = body_start + size
        if body_end > len(data):
            raise PeerError("body is shorter than Content-Length")
    with memoryview(data) as view:
        message.body = bytearray(view[body_start:body_end])
    return message


def head(data: bytes | bytearray) -> tuple[int, int]:
    """Where the headers end and the body starts. Raises PeerError."""
    at = data.find(b"\r\n\r\n", 0, limits.HEADER_BYTES + 4)
    other = data.find(b"\n\n", 0, at if at >= 0 else limits.HEADER_BYTES + 2)
    if other >= 0:
        return other, other + 2
    if at >= 0:
        return at, at + 4
    if len(data) > limits.HEADER_BYTES:
        raise PeerError("headers are too large", 513)
    raise PeerError("headers do not end")


def _start(line: str) -> Request | Response:
    first, _, rest = line.partition(" ")
    if first.upper() == "SIP/2.0":
        code, _, reason = rest.partition(" ")
        if not (len(code) == 3 and code.isascii() and code.isdecimal() and 100 <= int(code) <= 699):
            raise PeerError("status line cannot be read")
        return Response(status=int(code), reason=reason)
    uri, _, version = rest.rpartition(" ")
    if not first or not (first in _METHODS or set(first) <= _TOKEN) or not uri or " " in uri.strip():
        raise PeerError("request line cannot be read")
    if version.upper() != "SIP/2.0":
        raise PeerError("SIP version is not 2.0", 505)
    return Request(method=first, uri=uri.strip())


def _headers(lines: list[str], headers: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Fill `headers`; returns their values by canonical name."""
    if len(lines) > limits.HEADERS:
        raise PeerError("too many headers", 513)
    index: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        key = _KNOWN.get(name)
        if key is None or not colon:
            name = name.rstrip(" \t")
            if not colon or not name or not set(name) <= _TOKEN:
                raise PeerError("a header line cannot be read")
            key = canonical(name)
        value = value.strip()
        headers.append((name, value))
        if key in index:
            index[key].append(value)
        else:
            index[key] = [value]
    return index


def _check(message: Request | Response, index: dict[str, list[str]]) -> None:
    """What every message needs (RFC 3261 section 8.1.1)."""
    for name in _SINGLE:
        if len(index.get(name, ())) > 1:
            raise PeerError(f"{name} stands twice")
    vias = index.get("via", [])
    if sum(1 + value.count(",") for value in vias) > limits.VIAS:
        raise PeerError("too many Vias", 483)
    for value in vias:
        if "," in value:
            _ = [Via.parse(one) for one in p.split(value, ",")]
    _ = message.via, message.from_, message.to, message.call_id
    _, method = message.cseq
    if isinstance(message, Request):
        if method != message.method:
            raise PeerError("CSeq names another method")
        _check_uri(message.uri)


def _check_uri(text: str) -> None:
    """What the request line holds; another scheme than sip is judged by who has to route it."""
    try:
        Uri.parse(text)
    except PeerError as error:
        if error.status != 416:
            raise
