"""Whose RTP is believed, and when a port may be used again."""

import socket

import pytest

from mediaproxy.media.ports import PortPool
from mediaproxy.media.pump import Pump
from mediaproxy.media.rows import Rows
from mediaproxy.media.source import SourceRule

SIGNALLED, MOVED, NEAR, FAR = ("192.0.2.1", 4000), ("192.0.2.1", 4002), ("192.0.2.9", 4000), ("203.0.113.9", 4000)


@pytest.mark.parametrize(
    ("rule", "believed"),
    [("strict", {SIGNALLED}), ("address", {SIGNALLED, MOVED}), ("network", {SIGNALLED, MOVED, NEAR})],
)
def test_only_the_peers_own_packets_are_believed(rule: str, believed: set[tuple[str, int]]) -> None:
    made = SourceRule(rule, "192.0.2.0/24" if rule == "network" else "")
    assert not any(made.accepts(source) for source in (SIGNALLED, FAR))  # nothing before an SDP has said where
    made.signalled(SIGNALLED)
    for _ in range(2):
        assert {source for source in (SIGNALLED, MOVED, NEAR, FAR) if made.accepts(source)} == believed


def test_learning_takes_the_first_and_only_that_one_until_the_next_sdp() -> None:
    made = SourceRule("learn")
    made.signalled(SIGNALLED)
    assert made.accepts(FAR)
    assert made.destination() == FAR
    assert not made.accepts(SIGNALLED)
    made.signalled(MOVED)
    assert made.accepts(MOVED)
    assert not made.accepts(FAR)


def test_what_the_old_address_still_sends_after_a_new_sdp_is_not_learned() -> None:
    made = SourceRule("learn")
    made.signalled(SIGNALLED)
    assert made.accepts(SIGNALLED)
    made.signalled(FAR)
    assert not made.accepts(SIGNALLED)  # on its way when the SDP came
    assert made.accepts(FAR)
    assert made.destination() == FAR


def test_an_address_is_the_same_however_it_is_written() -> None:
    made = SourceRule("strict")
    made.signalled(("2001:DB8:0::1", 4000))
    assert made.accepts(("2001:db8::1", 4000))


def test_a_freed_port_rests_before_it_is_used_again() -> None:
    pool = PortPool(20000, 20003, 5.0)
    assert [pool.take(0.0), pool.take(0.0), pool.take(0.0)] == [20000, 20002, None]
    pool.give_back(20000, 1.0)
    assert pool.take(5.9) is None
    assert pool.take(6.0) == 20000


def test_a_port_of_somebody_elses_is_not_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        pump = Pump(2)
        assert not pump.open(0, "127.0.0.1", port, SourceRule("address"))
        assert not pump.open(0, "127.0.0.1", port - 1, SourceRule("address"))


def test_an_absurd_destination_stops_nothing() -> None:
    pump = Pump(2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1] & ~1
    if not pump.open(0, "127.0.0.1", port, SourceRule("address")):
        pytest.fail("a port that was free a moment ago is taken")
    rows = pump.drain()
    for remote in (("\0", 4000), ("127.0.0.1", 65536), ("127.0.0.1", -1), ("", 0)):
        pump.update(0, remote, 70000)
        rows.put(0, b"x" * 20)
        rows.put(0, b"x" * 20, control=True)
        pump.send(rows)
        rows.count = 0
    assert pump.unsent.sum() == 0
    pump.close(0)


def test_what_is_sent_has_its_sides_class_of_service() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free,
    ):
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(2)
        ear.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] & ~1
        free.close()
        pump = Pump(2)
        assert pump.open(0, "127.0.0.1", port, SourceRule("address"), dscp=46)
        pump.update(0, ear.getsockname(), 9)
        rows = Rows()
        rows.put(0, b"x" * 20)
        pump.send(rows)
        _, ancillary, _, _ = ear.recvmsg(100, 100)
        pump.close(0)
    assert [data[0] >> 2 for level, kind, data in ancillary if kind == socket.IP_TOS] == [46]


def test_who_was_learned_but_speaks_no_srtp_is_forgotten() -> None:
    made = SourceRule("learn")
    made.signalled(SIGNALLED)
    assert made.accepts(FAR)
    assert made.forget()
    assert made.accepts(SIGNALLED)
    assert not made.accepts(FAR)
