"""HTTPS with the standard library, whose client sends a buffer as it lies (httpx was measured to keep a copy of what
it sends; `http.client` keeps none). One connection a request: nothing stays behind in a pool. Redirects are not
followed."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

LARGEST_ANSWER: Final = 65_536
HTTP: Final = "http/1.1"


class Unsent(Exception):
    """Nothing of the request has left: it can be repeated anywhere. The text is its cause, a word."""


class Unanswered(Exception):
    """The request may have been taken; no whole answer came."""


class Unwanted(Exception):
    """The server is one that must not be spoken to; nothing has been sent."""


@dataclass(slots=True)
class Answer:
    """body: to be wiped by whoever reads it; `whole`: False where it was too large to be kept."""

    status: int
    headers: http.client.HTTPMessage
    body: bytearray
    whole: bool = True


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
            self.abort()

    def abort(self) -> None:
        """End what is under way, now, and whatever would follow."""
        self.aborted = True
        self.cut()

    def cut(self) -> None:
        """End what is under way."""
        with self._lock:
            if self._socket is not None:
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return


class Client:
    """Posts to one server. ca_file: whose certificates are believed (default: the system's); certificate and key: this
    side's own; protocols: further ones to offer (ALPN), on which the server is not spoken to if it takes one."""

    def __init__(
        self, url: str, ca_file: str = "", certificate: str = "", key: str = "", connect_seconds: float = 3.0,
        protocols: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._files = ca_file, certificate, key
        self._connect_seconds, self._protocols = connect_seconds, protocols
        self._context: tuple[tuple[float, ...], ssl.SSLContext] | None = None

    def post(
        self, headers: Mapping[str, str], body: memoryview | bytes, deadline: float, exchange: Exchange | None = None
    ) -> Answer:
        """Send `body` and wait for the answer until `deadline` on the monotonic clock. Raises Unsent, Unanswered,
        Unwanted."""
        exchange = exchange or Exchange()
        sock = self._connect(deadline, exchange)
        late = threading.Timer(_left(deadline), exchange.cut)  # an octet now and then keeps every single wait short
        late.daemon = True
        late.start()
        connection = http.client.HTTPConnection(self._host, self._port)
        connection.sock = sock
        sent = False
        try:
            connection.putrequest("POST", self._path)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Connection", "close")
            if exchange.aborted:
                raise Unsent("aborted")
            sent = True
            connection.endheaders()
            connection.send(body)
            return _read(connection, sock, deadline)
        except TimeoutError:
            raise Unanswered("timeout") from None
        except (OSError, http.client.HTTPException, ValueError):  # ValueError: a header that cannot be sent, or was not
            raise (Unanswered("cut") if sent else Unsent("header")) from None
        finally:
            late.cancel()
            exchange.hold(None)
            connection.close()

    def _connect(self, deadline: float, exchange: Exchange) -> ssl.SSLSocket:
        plain: socket.socket | None = None
        try:
            patience = min(deadline, time.monotonic() + self._connect_seconds)
            plain = socket.create_connection((self._host, self._port), _left(patience))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            exchange.hold(plain)
            plain.settimeout(_left(patience))
            sock = self._fresh_context().wrap_socket(plain, server_hostname=self._host)
        except (OSError, ValueError) as error:
            exchange.hold(None)
            if plain is not None:
                plain.close()
            cause = "certificate" if isinstance(error, ssl.SSLCertVerificationError) else "tls" if plain else "connect"
            raise Unsent(cause) from None
        if sock.selected_alpn_protocol() in self._protocols:
            exchange.hold(None)
            sock.close()
            raise Unwanted
        exchange.hold(sock)
        sock.settimeout(_left(deadline))
        return sock

    def _fresh_context(self) -> ssl.SSLContext:
        """The TLS context, made again when one of its files has changed. Raises OSError, also of what is in them."""
        stamps = tuple(Path(name).stat().st_mtime for name in self._files if name)
        if self._context is None or self._context[0] != stamps:
            ca_file, certificate, key = self._files
            context = ssl.create_default_context(cafile=ca_file or None)
            context.set_alpn_protocols([HTTP, *self._protocols])
            if certificate:
                context.load_cert_chain(certificate, key)
            self._context = stamps, context
        return self._context[1]


def _left(deadline: float) -> float:
    """Seconds until then; never none, which would mean not to wait at all."""
    return max(deadline - time.monotonic(), 0.001)


def _read(connection: http.client.HTTPConnection, sock: socket.socket, deadline: float) -> Answer:
    response = connection.getresponse()
    answer, size = bytearray(LARGEST_ANSWER + 1), 0
    while size < len(answer) and (got := response.readinto(memoryview(answer)[size:])):
        size += got
        if time.monotonic() > deadline:
            answer[:] = bytes(len(answer))
            raise TimeoutError
    if size <= LARGEST_ANSWER:
        if response.length:  # fewer octets than were announced
            answer[:] = bytes(len(answer))
            raise http.client.IncompleteRead(b"")
        del answer[size:]
    return Answer(response.status, response.headers, answer, size <= LARGEST_ANSWER)
