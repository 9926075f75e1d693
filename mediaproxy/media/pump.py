"""The pump: a pair of UDP sockets a leg, read into rows and written from them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mediaproxy.media import filter, mover
from mediaproxy.media.rows import Rows
from mediaproxy.media.source import Address, SourceRule

Mover = mover.Mover
COMPILED = False
if os.environ.get("FLATTONE_PURE") != "1":
    try:
        from mediaproxy.media._mover import Mover

        COMPILED = True
    except ImportError:  # no compiler at installation: slower, and the same in all else
        pass

BURST = 6
"""Datagrams read from one socket in a tick: 1,200 a second, twelve times what 10 ms packets bring. Each is a round of
the engine's for that leg alone, so that more from one peer would be at the cost of everybody."""
EVERYTHING = 1024
"""More datagrams than a socket's buffer holds."""
_RECEIVE_BUFFER = 1 << 18


@dataclass(slots=True)
class Leg:
    """The sockets of one slot."""

    port: int
    sockets: tuple[socket.socket, socket.socket]
    rule: SourceRule
    remote: Address | None = None


class Pump:
    """The sockets of all slots of one worker. `make`: the compiled mover, or the plain one."""

    def __init__(self, capacity: int, make: type[mover.Mover] = Mover) -> None:
        self._mover = make(capacity, self._believe)
        self._legs: dict[int, Leg] = {}
        self._rows = Rows()
        self.judge: Callable[[int, Address, bytes], bool | None] = lambda slot, source, datagram: None
        """Of slots that are browsers': whether a datagram is media of theirs, None where it is something else."""
        self.stale = 0
        """Datagrams thrown away after a stall."""

    def open(self, slot: int, host: str, port: int, rule: SourceRule, dscp: int = 0, interface: str = "") -> bool:
        """Bind RTP and RTCP for `slot`; False where the port is taken by someone else.

        dscp: class of what is sent (RFC 2474); interface: only by that one. Raises OSError where no port would do: no
        more descriptors, no such address.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sockets: list[socket.socket] = []
        try:
            for offset in (0, 1):
                sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                sockets.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
                else:
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
                if interface:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
                sock.bind((host, port + offset))
            for control, sock in enumerate(sockets):
                self._mover.add(slot, bool(control), sock.fileno(), family)
        except OSError as error:
            for control, sock in enumerate(sockets):
                self._mover.remove(slot, bool(control))
                sock.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        self._legs[slot] = Leg(port, (sockets[0], sockets[1]), rule)
        return True

    def update(self, slot: int, remote: Address | None, control_port: int) -> None:
        """Set where `slot` sends to; None while the peer wants nothing."""
        leg = self._legs[slot]
        leg.remote = remote
        self._mover.forget(slot)
        filter.accept_all(leg.sockets[0])
        if remote is None:
            self._mover.send_to(slot, False, "", 0)
            self._mover.send_to(slot, True, "", 0)
            return
        leg.rule.signalled(remote)
        self._mover.send_to(slot, False, *(leg.rule.destination() or remote))
        self._mover.send_to(slot, True, remote[0], control_port)

    def show(self, slot: int, on: bool) -> None:
        """Let `judge` say what is the peer's of `slot`, or no longer."""
        if bool(self._mover.shown[slot]) != on:
            self._mover.shown[slot] = on
            self.update(slot, None, 0)

    def move(self, slot: int, to: Address) -> None:
        """Send media of `slot` there."""
        self._mover.send_to(slot, False, *to)

    def reply(self, slot: int, data: bytes, to: Address) -> None:
        """Send a datagram from the port of `slot`; it may be lost."""
        with contextlib.suppress(OSError):
            self._legs[slot].sockets[0].sendto(data, to)

    def _believe(self, slot: int, control: bool, source: Address, datagram: bytes) -> bool | None:
        """Whether a source that has not been seen before is the peer's."""
        if self._mover.shown[slot]:
            return False if control else self.judge(slot, source, datagram)
        leg = self._legs[slot]
        if control:  # its port says little: RFC 3605 lets it be anywhere
            return leg.rule.is_host(source[0])
        believed = leg.rule.accepts(source)
        if believed:
            if leg.remote is not None:
                self._mover.send_to(slot, False, *(leg.rule.destination() or leg.remote))
            only = leg.rule.settled(source)
            if only is not None:
                filter.accept_only(leg.sockets[0], *only)
        return believed

    def relearn(self, slot: int) -> None:
        """Forget who was believed by having spoken first."""
        leg = self._legs.get(slot)
        if leg is not None and leg.rule.forget():
            self._mover.forget(slot)
            filter.accept_all(leg.sockets[0])

    def kernel_drops(self, slot: int) -> int:
        """Datagrams to `slot` that the kernel has dropped: strangers', once the peer is known, or for want of room."""
        return sum(filter.drops(sock) for sock in self._legs[slot].sockets)

    def close(self, slot: int) -> None:
        """Close the sockets of `slot`."""
        leg = self._legs.pop(slot, None)
        self._mover.shown[slot] = False
        if leg is not None:
            for control, sock in enumerate(leg.sockets):
                self._mover.remove(slot, bool(control))
                sock.close()

    def drain(self) -> Rows:
        """Take what has come, without waiting. The rows are valid until the next call."""
        self._rows.wipe()
        self._mover.drain(self._rows, BURST)
        return self._rows

    def discard(self) -> int:
        """Throw away what has piled up; returns how many datagrams it was."""
        found = self._mover.discard(EVERYTHING)
        self.stale += found
        return found

    def send(self, out: Rows) -> None:
        """Send every row; what the kernel will not take is dropped and counted."""
        self._mover.send(out)

    def wipe(self) -> None:
        """Blank what was last read."""
        self._rows.wipe()

    def forget_counts(self, slot: int) -> None:
        """Begin to count anew for a new leg."""
        self._mover.strangers[slot] = self._mover.unsent[slot] = 0

    @property
    def strangers(self) -> NDArray[np.int64]:
        """int64[capacity], datagrams from others than the peer."""
        return self._mover.strangers

    @property
    def unsent(self) -> NDArray[np.int64]:
        """int64[capacity], datagrams that the kernel would not take."""
        return self._mover.unsent
