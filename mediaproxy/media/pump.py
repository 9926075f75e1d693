"""The pure-Python pump: a pair of UDP sockets a leg, read into the slab and written from it.

Nothing here waits: `drain` takes what has come, `send` gives what can go.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from dataclasses import dataclass, field

from mediaproxy.media.rows import ROWS, Rows
from mediaproxy.media.source import Address, SourceRule
from mediaproxy.media.wire.rtp import LARGEST

BURST = 16
"""Datagrams read from one socket in a tick, so that a flood on one port does not starve the others."""
_RECEIVE_BUFFER = 1 << 18


@dataclass(slots=True)
class Leg:
    """The sockets of one slot."""

    slot: int
    port: int
    rtp: socket.socket
    rtcp: socket.socket
    rule: SourceRule
    remote: Address | None = None
    remote_control: Address | None = None
    counters: dict[str, int] = field(default_factory=lambda: {"strangers": 0, "unsent": 0})


class PortPool:
    """Even ports of a range, in turn; a freed one rests so that late packets meet nobody."""

    def __init__(self, first: int, last: int, rest_seconds: float) -> None:
        self._free = deque(range(first, last, 2))
        self._resting: deque[tuple[float, int]] = deque()
        self._rest = rest_seconds

    def take(self, now: float) -> int | None:
        """A port, or None where all are in use or resting."""
        while self._resting and self._resting[0][0] <= now:
            self._free.append(self._resting.popleft()[1])
        return self._free.popleft() if self._free else None

    def take_this(self, port: int) -> None:
        """Mark `port` as used: a call of before a restart has it."""
        with contextlib.suppress(ValueError):
            self._free.remove(port)

    def give_back(self, port: int, now: float) -> None:
        """Free a port after its rest."""
        self._resting.append((now + self._rest, port))

    def __len__(self) -> int:
        return len(self._free)


class Pump:
    """The sockets of all slots of one worker."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._by_fd: dict[int, Leg] = {}
        self._legs: dict[int, Leg] = {}
        self._rows = Rows()
        self._views = [memoryview(row.data) for row in self._rows.slab]
        self._out_views: list[memoryview] = []
        self._scratch = memoryview(bytearray(LARGEST))
        self.strangers = 0
        self.unsent = 0

    def open(self, slot: int, host: str, port: int, rule: SourceRule) -> bool:
        """Bind RTP and RTCP for `slot`; False where the port is taken by someone else."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sockets: list[socket.socket] = []
        try:
            for offset in (0, 1):
                sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                sockets.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
                sock.bind((host, port + offset))
        except OSError:
            for sock in sockets:
                sock.close()
            return False
        leg = Leg(slot, port, sockets[0], sockets[1], rule)
        self._legs[slot] = leg
        for sock in sockets:
            self._by_fd[sock.fileno()] = leg
            self._epoll.register(sock, select.EPOLLIN)
        return True

    def update(self, slot: int, remote: Address | None, control_port: int) -> None:
        """Set where `slot` sends to; None while the peer wants nothing."""
        leg = self._legs[slot]
        if remote is not None:
            leg.rule.signalled(remote)
        leg.remote = remote
        leg.remote_control = (remote[0], control_port) if remote is not None and control_port else None

    def close(self, slot: int) -> None:
        """Close the sockets of `slot`."""
        leg = self._legs.pop(slot, None)
        if leg is not None:
            for sock in (leg.rtp, leg.rtcp):
                self._by_fd.pop(sock.fileno(), None)
                self._epoll.unregister(sock)
                sock.close()

    def drain(self) -> Rows:
        """Take what has come, without waiting. The rows are valid until the next call."""
        rows = self._rows
        rows.wipe()
        count = 0
        for fd, _ in self._epoll.poll(0):
            leg = self._by_fd.get(fd)
            if leg is None:
                continue
            sock = leg.rtp if fd == leg.rtp.fileno() else leg.rtcp
            for _ in range(BURST):
                if count >= ROWS:
                    break
                try:
                    size, source = sock.recvfrom_into(self._views[count])
                except OSError:  # nothing more, or an ICMP refusal of what was sent
                    break
                if sock is leg.rtcp:  # RTCP is made here, not passed; what it may carry goes no further
                    self._views[count][:size] = bytes(size)
                    continue
                if not leg.rule.accepts(source[:2]):
                    self._views[count][:size] = bytes(size)
                    leg.counters["strangers"] += 1
                    self.strangers += 1
                    continue
                rows.slot[count] = leg.slot
                rows.length[count] = size
                count += 1
        rows.count = count
        return rows

    def send(self, out: Rows) -> None:
        """Send every row; what the kernel will not take is dropped and counted."""
        if not self._out_views:
            self._out_views = [memoryview(row.data) for row in out.slab]
        for row in range(out.count):
            leg = self._legs.get(int(out.slot[row]))
            if leg is None:
                continue
            control = out.control[row]
            remote = leg.remote_control if control else leg.remote and (leg.rule.destination() or leg.remote)
            if remote is None:
                continue
            try:
                (leg.rtcp if control else leg.rtp).sendto(self._out_views[row][: out.length[row]], remote)
            except (OSError, ValueError, TypeError, OverflowError):  # whatever a peer gave as its address
                leg.counters["unsent"] += 1
                self.unsent += 1
