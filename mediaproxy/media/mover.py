"""Datagrams between sockets and rows: the part of the pump that is worth compiling.

`Mover` here is plain Python; `_mover.pyx` does the same in C and is used where it could be built (not with
FLATTONE_PURE=1). Nothing waits: `drain` takes what has come, `send` gives what can go.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mediaproxy.media.rows import ROWS, Rows
from mediaproxy.media.source import Address
from mediaproxy.media.wire.rtp import LARGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

Judge = Callable[[int, bool, Address, bytes], bool | None]
"""(slot, control, source, datagram): is this the peer's? Asked once for each new source; None: it is not
for the engine, the judge has dealt with it, and wants to be asked again. The datagram is shown only of slots where it
decides (`Mover.shown`): elsewhere it may hold a key, and is not copied."""


class Mover:
    """Sockets of `capacity` slots, two a slot: RTP and, where `control`, RTCP.

    strangers, unsent: int64[capacity], datagrams of other sources, and those the kernel would not take; shown:
    bool[capacity], slots whose judge is shown the datagram.
    """

    def __init__(self, capacity: int, judge: Judge) -> None:
        self._judge = judge
        self._epoll = select.epoll()
        self._by_fd: dict[int, tuple[int, bool, socket.socket]] = {}
        self._sockets: dict[tuple[int, bool], socket.socket] = {}
        self._to: dict[tuple[int, bool], Address] = {}
        self._known: dict[tuple[int, bool], Any] = {}
        self._refused: dict[tuple[int, bool], Any] = {}
        self._views: list[memoryview] = []
        self._slab: NDArray[np.uint8] | None = None
        self._out: Sequence[memoryview] = ()
        self._out_slab: NDArray[np.uint8] | None = None
        self.strangers = np.zeros(capacity, np.int64)
        self.unsent = np.zeros(capacity, np.int64)
        self.shown = np.zeros(capacity, np.bool_)

    def add(self, slot: int, control: bool, fd: int, family: int) -> None:
        """Watch a bound socket; it stays the caller's to close."""
        sock = socket.socket(family, socket.SOCK_DGRAM, fileno=os.dup(fd))
        self._sockets[slot, control] = sock
        self._by_fd[sock.fileno()] = slot, control, sock
        self._epoll.register(sock, select.EPOLLIN)

    def remove(self, slot: int, control: bool) -> None:
        """Watch it no longer."""
        sock = self._sockets.pop((slot, control), None)
        if sock is not None:
            self._by_fd.pop(sock.fileno())
            self._epoll.unregister(sock)
            sock.close()
        for table in (self._to, self._known, self._refused):
            table.pop((slot, control), None)

    def forget(self, slot: int) -> None:
        """Ask the judge anew about every source of `slot`."""
        for control in (False, True):
            self._known.pop((slot, control), None)
            self._refused.pop((slot, control), None)

    def send_to(self, slot: int, control: bool, host: str, port: int) -> None:
        """Where rows of `slot` go; nowhere where that is no address."""
        self._to.pop((slot, control), None)
        sock = self._sockets[slot, control]
        try:
            socket.inet_pton(sock.family, host)
        except (OSError, ValueError):
            return
        if 0 < port < 65536:
            self._to[slot, control] = (host, port)

    def drain(self, rows: Rows, burst: int) -> None:
        """Fill `rows`, at most `burst` datagrams a socket."""
        if self._slab is not rows.slab:
            self._slab, self._views = rows.slab, [memoryview(row.data) for row in rows.slab]
        views, count = self._views, 0
        slots, lengths, controls = [], [], []
        # A socket is read once a turn: asking it again only to hear that it is empty costs more than epoll does.
        for _ in range(burst):
            ready = self._epoll.poll(0, ROWS - count) if count < ROWS else []
            if not ready:
                break
            for fd, _ in ready:
                slot, control, sock = self._by_fd[fd]
                try:
                    size, source = sock.recvfrom_into(views[count])
                except OSError:  # nothing there after all, or an ICMP refusal of what was sent
                    continue
                known = source == self._known.get((slot, control))
                believed = known or self._believed(slot, control, source, views[count][:size])
                if not believed:
                    self.strangers[slot] += believed is not None
                    views[count][:size] = bytes(size)
                else:
                    slots.append(slot)
                    lengths.append(size)
                    controls.append(control)
                    count += 1
        rows.slot[:count], rows.length[:count], rows.control[:count] = slots, lengths, controls
        rows.count = count

    def discard(self, burst: int) -> int:
        """Throw away what waits, at most `burst` datagrams a socket; returns how many there were."""
        found, scratch = 0, bytearray(LARGEST)
        for _ in range(burst):
            ready = self._epoll.poll(0, ROWS)
            if not ready:
                break
            for fd, _ in ready:
                try:
                    self._by_fd[fd][2].recv_into(scratch)
                    found += 1
                except OSError:
                    continue
        return found

    def _believed(self, slot: int, control: bool, source: Any, datagram: memoryview) -> bool | None:
        if source == self._refused.get((slot, control)):
            return False
        believed = self._judge(slot, control, source[:2], bytes(datagram) if self.shown[slot] else b"")
        if believed is not None:
            (self._known if believed else self._refused)[slot, control] = source
        return believed

    def send(self, rows: Rows) -> None:
        """Send every row that has somewhere to go; what the kernel will not take is dropped and counted."""
        if self._out_slab is not rows.slab:
            self._out_slab, self._out = rows.slab, [memoryview(row.data) for row in rows.slab]
        count, sockets, to = rows.count, self._sockets, self._to
        where = zip(rows.slot[:count].tolist(), rows.control[:count].tolist(), strict=True)
        for row, (end, length) in enumerate(zip(where, rows.length[:count].tolist(), strict=True)):
            remote = to.get(end)
            if remote is not None:
                try:
                    sockets[end].sendto(self._out[row][:length], remote)
                except OSError:
                    self.unsent[end[0]] += 1
