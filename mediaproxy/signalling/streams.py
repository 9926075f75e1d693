"""SIP over TCP, TLS and WebSocket: connections taken and made, kept, used again for what goes the other way, and
pinged."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from mediaproxy import log
from mediaproxy.config import Config
from mediaproxy.signalling import certificates
from mediaproxy.signalling.websocket import WebSocket
from sip.errors import PeerError
from sip.framing import PING, PONG, Framer
from sip.hop import TLS, WSS, Hop
from sip.transaction import Outgoing

CONNECTIONS = 2000
"""Connections at once, in all."""
A_HOST = 200
"""Connections at once of one address."""
BROWSERS = 2000
"""The same of browsers: a whole site may come from one address."""
NAMELESS = 30.0
"""Seconds in which a browser has to register."""
BROWSER_PING, BROWSER_GONE = 20.0, 70.0
"""Seconds between two pings of a browser, and of silence after which it is gone (RFC 5626 section 4.4.1)."""
CONNECT = 4.0
"""Seconds to set one up."""
PING_EVERY = 60.0
UNSENT_BYTES = 1 << 20
"""A peer that reads no more than this behind is cut off."""
_READ = 1 << 14
_WAITING = 200
"""Messages that wait for a connection to be set up."""


@dataclass(slots=True)
class Opening:
    """A connection that is being set up, and what waits for it."""

    waiting: list[Outgoing] = field(default_factory=list)


class Stream(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, owner: Streams, side: str, transport: str, made: bool) -> None:
        self._owner, self._side, self._transport, self._made = owner, side, transport, made
        self._framer = Framer()
        self._buffer = bytearray(_READ)
        self.hop = Hop("", 0, transport)
        self.wire: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport
        host, port = transport.get_extra_info("peername")[:2]
        names = certificates.names(transport.get_extra_info("ssl_object"))
        self.hop = Hop(host, port, self._transport, self._owner.number(), ",".join(names))
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)
        if not self._owner.enter(self, self._side, self._made):
            transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        data = self._buffer[:nbytes]
        self._buffer[:nbytes] = bytes(nbytes)
        try:
            found = self._framer.receive(data)
        except PeerError:
            self._owner.malformed += 1
            self.close()
            return
        finally:
            data[:] = bytes(nbytes)  # an INFO may hold a key
        for message in found:
            if message == PING:
                self.write(PONG)
            else:
                self._owner.take(message, self._side, self.hop)

    def write(self, data: bytes) -> None:
        """Send octets."""
        if self.wire is None:
            return
        if self.wire.get_write_buffer_size() > UNSENT_BYTES:
            self.wire.abort()
            return
        self.wire.write(data)

    def close(self) -> None:
        """End the connection."""
        if self.wire is not None:
            self.wire.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._framer.wipe()
        self.wire = None
        self._owner.leave(self, self._side)


class Streams:
    """All connections of the process.

    take: is given each message; admit: whether somebody may talk; unsent: is told what could not be sent.
    connection: where a browser is now whose connection of before has ended; lost: is told of every connection of a
    browser that ends; going: of the flow of one whose page goes away.
    """

    def __init__(
        self,
        config: Config,
        take: Callable[[bytearray, str, Hop], None],
        admit: Callable[[str, Hop], bool],
        unsent: Callable[[Outgoing], None],
    ) -> None:
        self.take, self._admit, self._unsent = take, admit, unsent
        self.connection: Callable[[Hop], int] = lambda hop: 0
        self.lost: Callable[[int], None] = lambda connection: None
        self.going: Callable[[str], None] = lambda flow: None
        self._config = config
        self._browsers: dict[int, WebSocket] = {}
        self._tls = {side: certificates.Tls(tls) for side in ("trunk", "agent") if (tls := config.side(side).tls)}
        self._by_number: dict[int, Stream | WebSocket] = {}
        self._by_place: dict[tuple[str, str, str, int], Stream] = {}
        self._opening: dict[tuple[str, str, str, int], Opening] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._servers: list[asyncio.Server] = []
        self._hosts: dict[str, int] = {}
        self._numbers = 0
        self.strangers = self.malformed = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def number(self) -> int:
        """The number of a new connection."""
        self._numbers += 1
        return self._numbers

    async def listen(self, side: str, transport: str, sock: socket.socket) -> None:
        """Take connections on a listening socket."""
        loop = asyncio.get_running_loop()
        if transport == WSS:
            await self._listen_to_browsers(side, sock)
            return
        context = self._tls[side].server if transport == TLS else None
        extra = {"ssl_handshake_timeout": CONNECT} if context is not None else {}
        self._servers.append(
            await loop.create_server(
                lambda: Stream(self, side, transport, made=False), sock=sock, ssl=context, backlog=512, **extra
            )  # type: ignore[call-overload]
        )

    async def _listen_to_browsers(self, side: str, sock: socket.socket) -> None:
        settings = self._config.side(side).websocket
        assert settings is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(settings.certificate, settings.key)
        self._contexts[side] = context
        server = await asyncio.get_running_loop().create_server(
            lambda: WebSocket(self, side, lambda origin: not settings.origins or origin in settings.origins),
            sock=sock, ssl=context, backlog=512, ssl_handshake_timeout=CONNECT,
        )  # fmt: skip
        self._servers.append(server)

    def name(self, connection: int, flow: str) -> None:
        """Say whose a browser's connection is; empty: nobody's any more."""
        browser = self._browsers.get(connection)
        if browser is not None:
            browser.hop = browser.hop._replace(name=flow)

    def forget_names(self) -> None:
        """Of browsers whose registration is over."""
        for browser in self._browsers.values():
            if browser.hop.name and not self.connection(browser.hop):
                browser.hop = browser.hop._replace(name="")
                browser.began = asyncio.get_running_loop().time()

    def hang_up(self, connection: int) -> None:
        """Close a connection."""
        stream = self._by_number.get(connection)
        if stream is not None:
            stream.close()

    def reload(self) -> None:
        """Read certificates again."""
        for side, tls in self._tls.items():
            try:
                tls.reload()
            except (OSError, ssl.SSLError, ValueError) as error:
                log.get().error("certificate-not-reloaded", side=side, error=type(error).__name__)
        for side, context in self._contexts.items():
            settings = self._config.side(side).websocket
            try:
                if settings is not None:
                    context.load_cert_chain(settings.certificate, settings.key)
            except (OSError, ssl.SSLError) as error:
                log.get().error("certificate-not-reloaded", side=side, error=type(error).__name__)

    def enter(self, stream: Stream | WebSocket, side: str, made: bool) -> bool:
        """Keep a new connection; False where it may not be. A browser may come from anywhere: it has to register."""
        host = stream.hop.host
        browser = isinstance(stream, WebSocket)
        most, a_host = (BROWSERS, BROWSERS) if browser else (CONNECTIONS, A_HOST)
        kept = len(self._browsers) if browser else len(self._by_number) - len(self._browsers)
        counted = _counted(stream)
        full = kept >= most or self._hosts.get(counted, 0) >= a_host
        if full or not (made or browser or self._admit(side, stream.hop)):
            self.strangers += 1
            return False
        self._hosts[counted] = self._hosts.get(counted, 0) + 1
        self._by_number[stream.hop.connection] = stream
        if isinstance(stream, WebSocket):
            self._browsers[stream.hop.connection] = stream
        else:
            self._by_place[side, stream.hop.transport, host, stream.hop.port] = stream
        return True

    def leave(self, stream: Stream | WebSocket, side: str) -> None:
        """Forget a connection."""
        hop = stream.hop
        if self._by_number.pop(hop.connection, None) is None:
            return
        counted = _counted(stream)
        self._hosts[counted] -= 1
        if not self._hosts[counted]:
            del self._hosts[counted]
        place = (side, hop.transport, hop.host, hop.port)
        if self._by_place.get(place) is stream:
            del self._by_place[place]
        if self._browsers.pop(hop.connection, None) is not None:
            self.lost(hop.connection)

    def send(self, outgoing: Outgoing) -> None:
        """Send over the connection that is named, over one that goes there, or over a new one."""
        to = outgoing.to
        place = (outgoing.side, to.transport, to.host, to.port)
        stream = self._by_number.get(to.connection)
        if to.transport == WSS:  # nobody can call a browser: it calls; and behind its address may be another's
            stream = stream or self._by_number.get(self.connection(to))
            if stream is None:
                self._unsent(outgoing)
                return
        stream = stream or self._by_place.get(place)
        if stream is not None:
            stream.write(outgoing.data)
            return
        opening = self._opening.get(place)
        if opening is None:
            opening = self._opening[place] = Opening()
            task = asyncio.get_running_loop().create_task(self._open(place, to, opening))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(opening.waiting) < _WAITING:
            opening.waiting.append(outgoing)
        else:
            self._unsent(outgoing)

    async def _open(self, place: tuple[str, str, str, int], to: Hop, opening: Opening) -> None:
        side, transport, host, port = place
        own = self._config.side(side)
        local = own.sip_listen.rpartition(":")[0].strip("[]")
        tls = self._tls.get(side) if transport == TLS else None
        extra = {"ssl": tls.client, "server_hostname": to.name.partition(",")[0] or host} if tls is not None else {}
        loop = asyncio.get_running_loop()
        try:
            made = loop.create_connection(
                lambda: Stream(self, side, transport, made=True), host, port, local_addr=(local, 0), **extra
            )  # type: ignore[call-overload]
            _, stream = await asyncio.wait_for(made, CONNECT)
        except (OSError, ssl.SSLError, TimeoutError, ValueError) as error:
            log.get().warning("not-connected", side=side, error=type(error).__name__)
            del self._opening[place]
            for outgoing in opening.waiting:
                self._unsent(outgoing)
            return
        del self._opening[place]
        for outgoing in opening.waiting:
            stream.write(outgoing.data)

    async def ping(self) -> None:
        """Keep what has been opened from here open (RFC 5626 section 3.5.1)."""
        while True:
            await asyncio.sleep(PING_EVERY)
            for stream in list(self._by_number.values()):
                if isinstance(stream, Stream):
                    stream.write(PING)

    async def ping_browsers(self) -> None:
        """Keep browsers' connections open, and close those that are gone or have not registered."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(BROWSER_PING / 4)
            now = loop.time()
            for browser in list(self._browsers.values()):
                silent = now - browser.heard
                if silent > BROWSER_GONE or (not browser.hop.name and now - browser.began > NAMELESS):
                    browser.close()
                elif silent > BROWSER_PING:
                    browser.ping()


def _counted(stream: Stream | WebSocket) -> str:
    """By what a host's connections are counted: its browsers apart, of which a whole site may come from one address."""
    host: str = stream.hop.host
    return f"browsers of {host}" if isinstance(stream, WebSocket) else host
