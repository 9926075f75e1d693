"""SIP over WebSocket (RFC 7118): one message a WebSocket message, for browsers that register as phones."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from sip.framing import PING, PONG
from sip.hop import WSS, Hop
from sip.limits import MESSAGE_BYTES

_GRACE: Final = 2.0
"""Seconds from closing to ending."""
UNSENT_BYTES: Final = 1 << 20
"""A browser that reads no more than this behind is cut off."""


class Owner(Protocol):
    """Who keeps the connections."""

    def number(self) -> int: ...
    def enter(self, stream: WebSocket, side: str, made: bool) -> bool: ...
    def leave(self, stream: WebSocket, side: str) -> None: ...
    def take(self, message: bytearray, side: str, source: Hop) -> None: ...
    def going(self, flow: str) -> None: ...


class WebSocket(asyncio.Protocol):
    """One connection. allowed: whether pages of an origin may connect; heard: when anything came, on the loop's
    clock."""

    def __init__(self, owner: Owner, side: str, allowed: Callable[[str], bool]) -> None:
        self._owner, self._side, self._allowed = owner, side, allowed
        self._ws = WSConnection(ConnectionType.SERVER)
        self._open = False
        self._message = bytearray()
        self.hop = Hop("", 0, WSS)
        self.wire: asyncio.Transport | None = None
        self.began = self.heard = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport
        host, port = transport.get_extra_info("peername")[:2]
        self.hop = Hop(host, port, WSS, self._owner.number())
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._owner.enter(self, self._side, made=False):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self.heard = asyncio.get_running_loop().time()
        try:
            self._ws.receive_data(data)
            for event in self._ws.events():
                if self.wire is None or self.wire.is_closing():
                    return
                self._event(event)
        except (RemoteProtocolError, LocalProtocolError, ValueError):
            self.close()

    def _event(self, event: Event) -> None:
        if isinstance(event, Request):
            self._greet(event)
        elif isinstance(event, TextMessage | BytesMessage):
            self._part(event)
        elif isinstance(event, Ping):
            self._put(event.response())
        elif isinstance(event, CloseConnection):
            if event.code == CloseReason.GOING_AWAY and self.hop.name:  # its page is closed or loaded anew
                self._owner.going(self.hop.name)
            self._put(event.response())
            self.close()

    def _greet(self, request: Request) -> None:
        """RFC 7118 section 4: the subprotocol is `sip`, or there is nothing to talk about."""
        origin = next(
            (value.decode("latin-1") for name, value in request.extra_headers if name.lower() == b"origin"), ""
        )
        if "sip" not in request.subprotocols:
            self._put(RejectConnection(status_code=400))
        elif not self._allowed(origin):
            self._put(RejectConnection(status_code=403))
        else:
            self._open = True
            self._put(AcceptConnection(subprotocol="sip"))
            return
        self.close()

    def _part(self, event: TextMessage | BytesMessage) -> None:
        data = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
        if not self._open or len(self._message) + len(data) > MESSAGE_BYTES:
            self.close()
            return
        self._message += data
        if event.message_finished:
            message, self._message = self._message, bytearray()
            if message == PING:
                self.write(PONG)
            elif message.strip(b"\r\n"):
                self._owner.take(message, self._side, self.hop)

    def _put(self, event: Event) -> None:
        if self.wire is None:
            return
        if self.wire.get_write_buffer_size() > UNSENT_BYTES:
            self.wire.abort()
            return
        self.wire.write(self._ws.send(event))

    def write(self, data: bytes) -> None:
        """Send a message."""
        if self.wire is None or not self._open:
            return
        try:
            self._put(TextMessage(data.decode("utf-8")))
        except UnicodeDecodeError:
            self._put(BytesMessage(data))
        except LocalProtocolError:  # it is closing
            return

    def ping(self) -> None:
        """Ask whether it is still there (RFC 7118 section 6)."""
        if self._open:
            try:
                self._put(Ping())
            except LocalProtocolError:
                return

    def close(self) -> None:
        """End the connection: what is on its way has a moment to leave."""
        if self.wire is not None and not self.wire.is_closing():
            self.wire.close()
            asyncio.get_running_loop().call_later(_GRACE, self.wire.abort)

    def connection_lost(self, error: Exception | None) -> None:
        self.wire = None
        self._owner.leave(self, self._side)
