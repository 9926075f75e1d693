"""The far end of `flattone trace`: whoever has opened the socket and said whom to watch is shown that call's messages
as they pass, by allow-list. Nothing is kept for anybody who is not there."""

from __future__ import annotations

import asyncio
import contextlib
import pwd
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from mediaproxy.ipc.step import Step, Wish
from sip.b2bua.core import Core
from sip.errors import PeerError
from sip.hop import Hop
from sip.message import Message, Request, parse
from sip.shown import shown
from sip.uri import Uri

WATCHERS = 8
CALL_IDS = 10_000
"""Dialogs that one watcher has seen, so that it also sees what comes after their end."""
UNSENT_BYTES = 1 << 20
LINE_BYTES = 512


@dataclass(slots=True)
class _Watcher:
    wish: str
    writer: asyncio.StreamWriter
    call_ids: set[str] = field(default_factory=set)


class Ladder:
    """Everyone who watches."""

    def __init__(self, core: Core, told: Callable[[str, str, str], None]) -> None:
        """told: hears of each watcher's coming and going: trace or trace-ended, the user, a call's id or nothing."""
        self._core, self._told = core, told
        self._watchers: list[_Watcher] = []
        self._encoder = msgspec.json.Encoder()

    @property
    def watched(self) -> bool:
        """Whether anybody is there: without, nothing is done for anyone."""
        return bool(self._watchers)

    async def listen(self, sock: socket.socket) -> None:
        """Let watchers in."""
        await asyncio.start_unix_server(self._enter, sock=sock, limit=LINE_BYTES)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 5.0)
            wish = msgspec.json.decode(line, type=Wish)
        except (msgspec.DecodeError, TimeoutError, ValueError, OSError):
            writer.close()
            return
        if len(self._watchers) >= WATCHERS or not wish.watch:
            writer.close()
            return
        watcher = _Watcher(wish.watch, writer)
        who, call = _user(writer), self._call(wish.watch)
        self._told("trace", who, call)
        self._watchers.append(watcher)
        writer.write(b"{}\n")  # from now on
        with contextlib.suppress(OSError, ValueError):
            await reader.read(1)  # until it leaves
        self._watchers.remove(watcher)
        writer.close()
        self._told("trace-ended", who, call)

    def _call(self, wish: str) -> str:
        """The id of the call that is meant, where it is a call that is up."""
        return next((c.id for key, c in self._core.by_call_id.items() if wish in (key, c.id, c.number)), "")

    def show(self, data: bytes | bytearray, side: str, way: str, hop: Hop) -> None:
        """Show a message to whoever watches its call."""
        try:
            message = parse(data)
        except PeerError:
            return
        call = self._core.by_call_id.get(message.call_id)
        names = {message.call_id}
        if call is not None:
            names |= {call.id, *call.call_ids, call.caller, call.called, call.number, call.correlation}
        else:
            names |= _numbers(message)
        step: bytes | None = None
        for watcher in self._watchers:
            everything = watcher.wish == "*" and (call is not None or message.cseq[1] != "OPTIONS")
            if not (everything or watcher.wish in names or message.call_id in watcher.call_ids):
                continue
            if watcher.wish != "*" and len(watcher.call_ids) < CALL_IDS:
                watcher.call_ids.update({message.call_id, *(call.call_ids if call is not None else ())})
            if step is None:
                own = self._core.site.at(side, hop.transport)
                made = Step(
                    time.time(), call.id if call is not None else "", side, way, hop.transport,
                    (hop.host, hop.port), own, shown(message),
                )  # fmt: skip
                step = self._encoder.encode(made) + b"\n"
            if watcher.writer.transport.get_write_buffer_size() < UNSENT_BYTES:
                watcher.writer.write(step)
        message.wipe()


def _user(writer: asyncio.StreamWriter) -> str:
    """Who is at the other end, as the kernel says (unix(7), SO_PEERCRED)."""
    sock = writer.get_extra_info("socket")
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _numbers(message: Message) -> set[str]:
    """The numbers that a message of no call names."""
    texts = [message.from_.uri, message.to.uri] + ([message.uri] if isinstance(message, Request) else [])
    found: set[str] = set()
    for text in texts:
        with contextlib.suppress(PeerError):
            found.add(Uri.parse(text).number)
    return found - {""}
