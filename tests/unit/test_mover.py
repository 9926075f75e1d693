"""Both movers keep one contract: the compiled one and the plain one."""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mediaproxy.media import filter, mover
from mediaproxy.media.rows import Rows
from mediaproxy.media.source import Address

MOVERS = {"pure": mover.Mover}
try:
    from mediaproxy.media._mover import Mover as Compiled

    MOVERS["compiled"] = Compiled
except ImportError:
    Compiled = None  # type: ignore[assignment, misc]


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


class Site:
    """A mover with two slots; `heard` are the sources it asked about."""

    def __init__(self, kind: str, family: int) -> None:
        self.asked: list[tuple[int, bool, Address]] = []
        self.refused: set[int] = set()
        self.mover = MOVERS[kind](4, self.judge)
        self.host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self.sockets = {}
        for slot in (1, 2):
            for control in (False, True):
                sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                sock.bind((self.host, 0))
                self.sockets[slot, control] = sock
                self.mover.add(slot, control, sock.fileno(), family)
        self.peers = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
        for peer in self.peers:
            peer.bind((self.host, 0))
            peer.settimeout(1)
        self.rows = Rows()

    def judge(self, slot: int, control: bool, source: Address, datagram: bytes) -> bool:
        self.asked.append((slot, control, source))
        return source[1] not in self.refused

    def to(self, slot: int, data: bytes, peer: int = 0, control: bool = False) -> None:
        self.peers[peer].sendto(data, self.sockets[slot, control].getsockname()[:2])

    def drain(self, burst: int = 8) -> list[tuple[int, bytes, bool]]:
        time.sleep(0.01)
        self.rows.wipe()
        self.mover.drain(self.rows, burst)
        rows = self.rows
        return [
            (int(rows.slot[i]), rows.slab[i, : rows.length[i]].tobytes(), bool(rows.control[i]))
            for i in range(rows.count)
        ]

    def close(self) -> None:
        for (slot, control), sock in self.sockets.items():
            self.mover.remove(slot, control)
            sock.close()
        for peer in self.peers:
            peer.close()


@pytest.fixture(params=list(MOVERS))
def site(request: pytest.FixtureRequest, family: int):
    made = Site(request.param, family)
    yield made
    made.close()


def test_there_is_a_compiled_mover_where_there_is_a_compiler() -> None:
    """A build that quietly failed would leave half of these tests out."""
    if (
        os.environ.get("FLATTONE_PURE") != "1"
        and subprocess.run(["which", "cc"], capture_output=True, check=False).returncode == 0
    ):
        assert "compiled" in MOVERS


def test_datagrams_come_with_their_slot_and_kind_in_order(site: Site) -> None:
    for i in range(3):
        site.to(1, b"one%d" % i)
        site.to(2, b"two%d" % i, peer=1)
    site.to(2, b"report", control=True)
    got = site.drain()
    assert [data for slot, data, _ in got if slot == 1] == [b"one0", b"one1", b"one2"]
    assert [data for slot, data, control in got if slot == 2 and not control] == [b"two0", b"two1", b"two2"]
    assert (2, b"report", True) in got
    assert site.drain() == []


def test_a_source_is_asked_about_once(site: Site) -> None:
    for _ in range(5):
        site.to(1, b"x")
    assert len(site.drain()) == 5
    assert site.asked == [(1, False, site.peers[0].getsockname()[:2])]
    site.mover.forget(1)
    site.to(1, b"x")
    site.drain()
    assert len(site.asked) == 2


def test_strangers_are_counted_and_blanked(site: Site) -> None:
    site.refused.add(site.peers[1].getsockname()[1])
    for _ in range(7):
        site.to(1, b"secret", peer=1)
    assert site.drain() == []
    assert site.mover.strangers[1] == 7
    assert len(site.asked) == 1
    assert not site.rows.slab.any()


def test_no_more_than_a_burst_is_read_of_one_socket(site: Site) -> None:
    for i in range(10):
        site.to(1, b"%d" % i)
    site.to(2, b"other")
    got = site.drain(burst=4)
    assert [data for slot, data, _ in got if slot == 1] == [b"0", b"1", b"2", b"3"]
    assert (2, b"other", False) in got
    assert len(site.drain(burst=100)) == 6


def test_rows_go_where_they_are_to(site: Site) -> None:
    site.mover.send_to(1, False, site.host, site.peers[0].getsockname()[1])
    site.mover.send_to(1, True, site.host, site.peers[1].getsockname()[1])
    out = Rows()
    out.put(1, b"audio")
    out.put(1, b"control", control=True)
    out.put(2, b"nowhere to go")
    site.mover.send(out)
    assert site.peers[0].recv(100) == b"audio"
    data, source = site.peers[1].recvfrom(100)
    assert (data, source[1]) == (b"control", site.sockets[1, True].getsockname()[1])
    assert site.mover.unsent.sum() == 0


@pytest.mark.parametrize(
    ("host", "port"), [("\0", 4000), ("", 0), ("no address", 5), ("127.0.0.1", 65536), ("::1", -1)]
)
def test_an_absurd_destination_means_nowhere(site: Site, host: str, port: int) -> None:
    site.mover.send_to(1, False, site.host, site.peers[0].getsockname()[1])
    site.mover.send_to(1, False, host, port)
    out = Rows()
    out.put(1, b"x")
    site.mover.send(out)
    site.peers[0].settimeout(0.05)
    with pytest.raises(TimeoutError):
        site.peers[0].recv(10)


def test_a_datagram_as_long_as_a_row_is_cut_and_told_by_its_length(site: Site) -> None:
    site.to(1, b"y" * 5000)
    ((_, data, _),) = site.drain()
    assert len(data) == site.rows.slab.shape[1]


def test_what_has_piled_up_can_be_thrown_away(site: Site) -> None:
    for _ in range(30):
        site.to(1, b"old")
        site.to(2, b"old")
    time.sleep(0.02)
    assert site.mover.discard(1000) == 60
    site.to(1, b"new")
    assert site.drain() == [(1, b"new", False)]


def test_a_removed_socket_is_read_no_more(site: Site) -> None:
    site.mover.remove(1, False)
    site.to(1, b"late")
    site.to(2, b"other")
    assert site.drain() == [(2, b"other", False)]


def test_the_kernel_turns_strangers_away_and_counts_them(family: int) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sock,
        socket.socket(family, socket.SOCK_DGRAM) as peer,
        socket.socket(family, socket.SOCK_DGRAM) as stranger,
    ):
        for one in (sock, peer, stranger):
            one.bind((host, 0))
        sock.settimeout(0.05)
        at = sock.getsockname()[:2]
        assert filter.accept_only(sock, host, peer.getsockname()[1])
        for _ in range(5):
            stranger.sendto(b"no", at)
        peer.sendto(b"yes", at)
        assert sock.recv(10) == b"yes"
        with pytest.raises(TimeoutError):
            sock.recv(10)
        assert filter.drops(sock) == 5
        assert filter.accept_only(sock, host, None)  # any port of that host
        stranger.sendto(b"now", at)
        assert sock.recv(10) == b"now"
        filter.accept_all(sock)
        stranger.sendto(b"too", at)
        assert sock.recv(10) == b"too"


@pytest.mark.parametrize("pure", ["1", "0"])
def test_version_says_which_pump_runs(pure: str) -> None:
    environment = os.environ | {"FLATTONE_PURE": pure}
    done = subprocess.run(
        [sys.executable, "-m", "mediaproxy", "version"], env=environment, capture_output=True, text=True, check=True
    )
    expected = "pure" if pure == "1" or "compiled" not in MOVERS else "compiled"
    assert f"pump {expected}" in done.stdout
    assert np.__version__ in done.stdout
