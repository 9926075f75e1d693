"""A small HTTPS client for what must not be kept: it sends a buffer as it lies and reads into one that is wiped.

httpx was measured to keep a copy of what it sends, `http.client` of what it receives (its reader's buffer and the
strings of its headers are never blanked). One connection a request: nothing stays behind in a pool. Redirects are not
followed; answers are HTTP/1.1 by length, in chunks or up to the connection's end (RFC 9112 section 6.3).
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from mediaproxy.room import Room

LARGEST_ANSWER: Final = 65_536
LARGEST_HEAD: Final = 16_384
HTTP: Final = "http/1.1"
_CLEANSE: Final = 2
"""SSL_OP_CLEANSE_PLAINTEXT (OpenSSL 3): what has been read is blanked in OpenSSL's own buffer; the ssl module has no
name for it."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r\n)")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_CODED = re.compile(rb"\r\ntransfer-encoding:[ \t]*(?!identity)[a-z]", re.IGNORECASE)
_CHUNK = re.compile(rb"0*([0-9A-Fa-f]{1,6})[ \t]*(?:;[^\r\n]{0,200})?\r\n")
_INTERIM: Final = 8
"""Interim answers (1xx) before the one that counts."""


class Unsent(Exception):
    """Nothing of the request has left: it can be repeated anywhere. The text is its cause, a word."""


class Unanswered(Exception):
    """The request may have been taken; no whole answer came."""


class Unwanted(Exception):
    """The server is one that must not be spoken to; nothing has been sent."""


@dataclass(slots=True)
class Answer:
    """body: to be wiped by whoever reads it; whole: False where it was too large to be kept; marked: whether it has
    the header that was asked for."""

    status: int
    body: bytearray
    whole: bool = True
    marked: bool = False


class Exchange:
    """Requests on their way, which another thread may end."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self.aborted = False

    def hold(self, sock: socket.socket | None) -> None:
        with self._lock:
            self._socket = sock
        if self.aborted:
            self.cut()

    def abort(self) -> None:
        """End what is under way, now, and whatever would follow."""
        self.aborted = True
        self.cut()

    def cut(self) -> None:
        """End what is under way."""
        with self._lock:
            if self._socket is not None:
                try:  # as a plain socket: SSLSocket.shutdown takes TLS off first, and what is sent then is readable
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                except OSError:
                    return


class Client:
    """Asks one server. ca_file: whose certificates are believed (default: the system's); certificate and key: this
    side's own; protocols: further ones to offer (ALPN), on which the server is not spoken to if it takes one; marker: a
    header to look for in answers."""

    def __init__(
        self, url: str, ca_file: str = "", certificate: str = "", key: str = "", connect_seconds: float = 3.0,
        protocols: tuple[str, ...] = (), marker: str = "",
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 443
        host = f"[{self._host}]" if ":" in self._host else self._host
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._target = f"{path} HTTP/1.1\r\nHost: {host}{f':{parts.port}' if parts.port else ''}\r\n"
        self._files = ca_file, certificate, key
        self._connect_seconds, self._protocols = connect_seconds, protocols
        self._marker = f"\r\n{marker.lower()}:".encode() if marker else b""
        self._context: tuple[tuple[float, ...], ssl.SSLContext] | None = None

    def post(
        self, headers: Mapping[str, str], body: memoryview | bytes, deadline: float, exchange: Exchange | None = None
    ) -> Answer:
        """Send `body` and wait for the answer until `deadline` on the monotonic clock. Raises Unsent, Unanswered,
        Unwanted."""
        return self._ask("POST", headers, body, deadline, exchange or Exchange())

    def get(self, headers: Mapping[str, str], deadline: float) -> Answer:
        """Ask for what is at the address, likewise."""
        return self._ask("GET", headers, b"", deadline, Exchange())

    def _ask(
        self, method: str, headers: Mapping[str, str], body: memoryview | bytes, deadline: float, exchange: Exchange
    ) -> Answer:
        head = self._head(method, headers, len(body))
        sock = self._connect(deadline, exchange)
        late = threading.Timer(_left(deadline), exchange.cut)  # an octet now and then keeps every single wait short
        late.daemon = True
        late.start()
        try:
            if exchange.aborted:
                raise Unsent("aborted")
            sock.sendall(head)
            sock.sendall(body)
            return self._read(sock, deadline)
        except TimeoutError:
            raise Unanswered("timeout") from None
        except (OSError, ValueError):
            raise Unanswered("timeout" if time.monotonic() >= deadline else "cut") from None
        finally:
            late.cancel()
            exchange.hold(None)
            sock.close()

    def _head(self, method: str, headers: Mapping[str, str], size: int) -> bytes:
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        length = f"Content-Length: {size}\r\n" if method == "POST" else ""
        text = "".join([f"{method} {self._target}", *lines, length, "Connection: close\r\n\r\n"])
        if not text.isascii() or any(not line[:-2].isprintable() for line in lines):
            raise Unsent("header")
        return text.encode()

    def _connect(self, deadline: float, exchange: Exchange) -> ssl.SSLSocket:
        patience = min(deadline, time.monotonic() + self._connect_seconds)
        plain = self._reach(patience)
        exchange.hold(plain)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(_left(patience))
            sock = self._fresh_context().wrap_socket(plain, server_hostname=self._host)
        except (OSError, ValueError) as error:
            exchange.hold(None)
            plain.close()
            raise Unsent("certificate" if isinstance(error, ssl.SSLCertVerificationError) else "tls") from None
        if sock.selected_alpn_protocol() in self._protocols:
            exchange.hold(None)
            sock.close()
            raise Unwanted
        exchange.hold(sock)
        sock.settimeout(_left(deadline))
        return sock

    def _reach(self, patience: float) -> socket.socket:
        """A connection to one of the host's addresses, within one time for all of them."""
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise Unsent("name") from None
        for *_, address in found:
            if time.monotonic() >= patience:
                break
            try:
                return socket.create_connection((str(address[0]), int(address[1])), _left(patience))
            except OSError:
                continue
        raise Unsent("connect")

    def _fresh_context(self) -> ssl.SSLContext:
        """The TLS context, made again when one of its files has changed. Raises OSError, also of what is in them."""
        stamps = tuple(Path(name).stat().st_mtime for name in self._files if name)
        if self._context is None or self._context[0] != stamps:
            ca_file, certificate, key = self._files
            context = ssl.create_default_context(cafile=ca_file or None)
            context.set_alpn_protocols([HTTP, *self._protocols])
            context.options |= _CLEANSE
            if certificate:
                context.load_cert_chain(certificate, key)
            self._context = stamps, context
        return self._context[1]

    def _read(self, sock: ssl.SSLSocket, deadline: float) -> Answer:
        """The answer. Raises OSError, ValueError where it is none."""
        room = Room(LARGEST_HEAD + 2 * LARGEST_ANSWER)
        try:
            raw, size, ended, enough = room.view, 0, False, 0
            while True:
                if ended or size >= enough or bytes(raw[max(size - 4, 0) : size]) == b"\r\n\r\n":
                    answer = self._parse(raw[:size], ended)
                    if answer is not None:
                        return answer
                    enough = size + size // 16  # of an answer in very small pieces not every one is looked at
                if ended or size == len(raw):
                    raise ValueError("no answer")
                if time.monotonic() > deadline:
                    raise TimeoutError
                got = sock.recv_into(raw[size:])
                size, ended = size + got, not got
                if ended and time.monotonic() > deadline:  # it is this side that has ended it
                    raise TimeoutError
        finally:
            room.close()

    def _parse(self, raw: memoryview, ended: bool) -> Answer | None:
        """The answer in what has come; None while it is not whole. ended: no more will come. Raises ValueError."""
        rest = raw
        for _ in range(_INTERIM):
            end = re.search(rb"\r\n\r\n", rest[:LARGEST_HEAD])
            if end is None:
                if len(rest) >= LARGEST_HEAD:
                    raise ValueError("no head")
                return None
            head, rest = rest[: end.end() - 2], rest[end.end() :]
            status = _STATUS.match(head)
            if status is None:
                raise ValueError("no status")
            code = int(status[1])
            if code >= 200:
                break
        else:
            raise ValueError("no answer")
        marked = bool(self._marker) and re.search(re.escape(self._marker), head, re.IGNORECASE) is not None
        length = _LENGTH.search(head)
        body: bytearray | None
        if code in (204, 304):
            body = bytearray()
        elif _CHUNKED.search(head):
            body = _unchunk(rest)
        elif length is not None and not _CODED.search(head):
            body = bytearray(rest[: int(length[1])]) if len(rest) >= int(length[1]) else None
        else:
            body = bytearray(rest) if ended else None
        if body is None and len(rest) > LARGEST_ANSWER:
            return Answer(code, bytearray(), False, marked)
        if body is not None and len(body) > LARGEST_ANSWER:
            body[:] = bytes(len(body))
            return Answer(code, bytearray(), False, marked)
        return None if body is None else Answer(code, body, True, marked)


def _unchunk(rest: memoryview) -> bytearray | None:
    """The body in chunks; None while it is not whole. Raises ValueError."""
    at, body_size = 0, 0
    spans = []
    while True:
        chunk = _CHUNK.match(rest[at:])
        if chunk is None:
            if len(rest) - at > 250:
                raise ValueError("no chunk")
            return None
        size, start = int(chunk[1], 16), at + chunk.end()
        if not size:
            break
        if start + size + 2 > len(rest):
            return None
        spans.append((start, start + size))
        body_size += size
        at = start + size + 2
    body = bytearray(body_size)
    to = 0
    for start, stop in spans:
        body[to : to + stop - start] = rest[start:stop]
        to += stop - start
    return body


def _left(deadline: float) -> float:
    """Seconds until then; never none, which would mean not to wait at all."""
    return max(deadline - time.monotonic(), 0.001)
