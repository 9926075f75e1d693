"""Browsers' legs at the worker's edge: nobody is let in without the password and the certificate of the description."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from aioice import stun
from pylibsrtp import Policy, Session

from mediaproxy.media import doors, srtp
from mediaproxy.media.doors import Doors, Peer
from mediaproxy.media.dtls import Association, Certificate
from mediaproxy.media.rows import Rows
from mediaproxy.media.source import Address
from mediaproxy.media.srtp import Keyring

ICE = ("ours", "p" * 24)
BROWSER, STRANGER = ("192.0.2.7", 50_000), ("198.51.100.9", 4000)
SLOT, PORT = 3, 20_000
RTP = b"\x80\x00\x00\x01\x00\x00\x00\xa0\x00\x00\x00\x07" + bytes(range(160))


def ask(ufrag: str = "ours:theirs", password: str = ICE[1], use: bool = True, **more: object) -> bytes:
    """A binding request as a browser sends it."""
    attributes: dict[str, object] = {"USERNAME": ufrag, "PRIORITY": 1, "ICE-CONTROLLING": 7} | more
    if use:
        attributes["USE-CANDIDATE"] = None
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes=attributes)
    request.add_message_integrity(password.encode())
    return bytes(request)


class Site:
    """One door, and a browser that speaks to it. sent: what the door has sent; to: where media goes."""

    def __init__(self, memory: memoryview | None = None, kept: memoryview | None = None) -> None:
        self.sent: list[tuple[bytes, Address]] = []
        self.to: Address | None = None
        self.keyring = Keyring(8, kept)
        self.doors = Doors(8, self.keyring, self._reply, self._move, memory)
        self.own = Certificate()
        self.now = 0.0

    def _reply(self, slot: int, data: bytes, to: Address) -> None:
        self.sent.append((data, to))

    def _move(self, slot: int, to: Address) -> None:
        self.to = to

    def peer(self, fingerprint: str = "", active: bool = False, ufrag: str = "theirs") -> Peer:
        return Peer(ICE, ufrag, ("sha-256", fingerprint or self.own.fingerprint), active)

    def arrives(self, data: bytes, source: Address = BROWSER) -> bool | None:
        return self.doors.arrives(SLOT, source, data, self.now)

    def shake(self, association: Association) -> None:
        """Hand datagrams to and fro until nobody has anything to say."""
        for _ in range(20):
            for datagram in association.outgoing:
                self.arrives(datagram)
            association.outgoing.clear()
            self.doors.tick(self.now)
            answers = [data for data, _ in self.sent if data[0] >= 20]
            self.sent.clear()
            for datagram in answers:
                association.receive(datagram, self.now)
            if not association.outgoing and not answers:
                return

    def opened(self, own: Certificate | None = None, peer: Peer | None = None) -> Association:
        """A door whose peer has begun and ended the handshake."""
        self.doors.open(SLOT, PORT, ICE)
        self.doors.update(SLOT, PORT, peer or self.peer(), self.now)
        self.arrives(ask())
        association = Association(own or self.own, True, ("sha-256", self.doors.certificate.fingerprint), self.now)
        self.shake(association)
        return association

    def outward(self) -> int:
        """Rows that would leave by the door."""
        rows = Rows()
        rows.put(SLOT, RTP)
        self.keyring.seal(rows)
        return rows.count

    def inward(self, data: bytes, source: Address = BROWSER) -> bytes:
        """What the engine would see of a datagram; nothing where it does not."""
        if self.arrives(data, source) is not True:
            return b""
        rows = Rows()
        rows.put(SLOT, data)
        self.doors.take(rows, self.now)
        self.keyring.open(rows)
        return rows.slab[0, : rows.length[0]].tobytes() if rows.count else b""


def sealed(association: Association, data: bytes = RTP) -> bytes:
    keys = association.keys
    assert keys is not None
    policy = Policy(key=keys.own, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=srtp.SUITES[keys.suite])
    return bytes(Session(policy).protect(data))


def test_media_flows_once_the_peer_has_shown_its_certificate() -> None:
    site = Site()
    association = site.opened()
    assert association.keys is not None
    assert site.to == BROWSER
    assert site.inward(sealed(association)) == RTP
    assert site.outward() == 1


def test_the_handshake_is_begun_here_where_the_peer_waits_for_it() -> None:
    site = Site()
    site.doors.open(SLOT, PORT, ICE)
    site.doors.update(SLOT, PORT, site.peer(active=True), 0)
    site.doors.tick(0)
    assert site.sent == []  # nobody has shown where it is
    site.arrives(ask())
    association = Association(site.own, False, ("sha-256", site.doors.certificate.fingerprint), 0)
    site.sent.clear()
    site.doors.tick(0.1)
    site.now = 0.1
    for data, to in list(site.sent):
        assert to == BROWSER
        association.receive(data, 0)
    site.sent.clear()
    site.shake(association)
    assert site.inward(sealed(association)) == RTP


def test_nothing_goes_in_or_out_before_the_handshake_is_verified() -> None:
    site = Site()
    site.doors.open(SLOT, PORT, ICE)
    assert site.outward() == 0
    site.arrives(ask())
    assert site.outward() == 0
    assert site.inward(RTP) == b""
    site.doors.update(SLOT, PORT, site.peer(), 0)
    assert (site.outward(), site.inward(RTP)) == (0, b"")
    association = Association(site.own, True, ("sha-256", site.doors.certificate.fingerprint), 0)
    for datagram in association.outgoing:
        site.arrives(datagram)
    assert (site.outward(), site.inward(RTP)) == (0, b"")


def test_a_certificate_that_is_not_that_of_the_description_is_nobody() -> None:
    site = Site()
    association = site.opened(own=Certificate(), peer=site.peer())
    assert association.keys is not None  # it believes that all is well
    assert (site.outward(), site.inward(sealed(association))) == (0, b"")
    assert site.doors.refused[SLOT] >= 1


@pytest.mark.parametrize(
    "data",
    [ask("ours:somebody"), ask("other:theirs"), ask("ours"), ask(password="x" * 24), ask()[:-8], b"\x00\x01" + bytes(18),
     bytes(20), b"\x00\x01\x00\x04" + bytes(20), b"\x00\x01" + bytes(2000), b"", b"\x00"],
    ids=["other peer", "other leg", "no peer", "wrong password", "cut", "bare", "empty", "garbled", "long", "nothing", "one octet"],
)  # fmt: skip
def test_who_does_not_know_the_password_gets_no_answer(data: bytes) -> None:
    site = Site()
    site.doors.open(SLOT, PORT, ICE)
    site.doors.update(SLOT, PORT, site.peer(), 0)
    assert site.arrives(data, STRANGER) is None
    assert site.sent == []
    assert site.to is None
    assert site.doors.refused[SLOT] == 1


def test_a_strangers_handshake_and_media_are_not_looked_at() -> None:
    site = Site()
    association = site.opened()
    other = Association(Certificate(), True, ("sha-256", site.doors.certificate.fingerprint), 0)
    site.sent.clear()
    for datagram in other.outgoing:
        assert site.arrives(datagram, STRANGER) is None
    assert site.sent == []
    assert site.inward(sealed(association, RTP), STRANGER) == b""
    assert site.doors.refused[SLOT] == 2


def test_a_flood_of_strangers_leaves_the_peer_where_it_is() -> None:
    site = Site()
    association = site.opened()
    site.sent.clear()
    rng = np.random.default_rng(3)
    for i in range(3000):
        data = ask(password="y" * 24) if i % 3 else rng.bytes(int(rng.integers(1, 300)))
        assert site.arrives(data, ("198.51.100.9", 1024 + i % 5000)) is None
    assert site.sent == []
    assert site.doors.refused[SLOT] == 3000
    assert site.inward(sealed(association)) == RTP


def test_a_repeated_packet_is_taken_once() -> None:
    site = Site()
    packet = sealed(site.opened())
    assert site.inward(packet) == RTP
    assert site.inward(packet) == b""


def test_the_pair_that_the_browser_nominates_is_where_media_goes() -> None:
    site = Site()
    site.opened()
    there = ("203.0.113.5", 999)
    site.arrives(ask(use=False), there)
    assert site.to == BROWSER
    site.arrives(ask(), there)
    assert site.to == there
    answer = stun.parse_message(site.sent[-1][0])
    assert answer.message_class == stun.Class.RESPONSE
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == there
    assert answer.check_message_integrity(ICE[1].encode())


def test_who_is_controlled_like_this_box_is_told_so() -> None:
    site = Site()
    site.doors.open(SLOT, PORT, ICE)
    site.arrives(ask(**{"ICE-CONTROLLED": 5}))
    answer = stun.parse_message(site.sent[-1][0])
    assert answer.error_code == 487
    assert site.to is None


def test_a_browser_that_begins_ice_anew_keeps_its_keys() -> None:
    site = Site()
    association = site.opened()
    fresh = ("again", "q" * 24)
    site.doors.update(SLOT, PORT, Peer(fresh, "newer", ("sha-256", site.own.fingerprint)), 0)
    there = ("203.0.113.5", 999)
    site.arrives(ask("again:newer", fresh[1]), there)
    assert site.to == there
    assert site.inward(sealed(association), there) == RTP


def test_a_new_worker_goes_on_without_a_handshake_and_with_the_same_certificate() -> None:
    memory, kept = bytearray(doors.octets(8)), bytearray(srtp.octets(8))
    before = Site(memoryview(memory), memoryview(kept))
    association = before.opened()
    keys = association.keys
    assert keys is not None
    out = Session(Policy(key=keys.own, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=srtp.SUITES[keys.suite]))
    first = bytes(out.protect(RTP))
    assert before.inward(first) == RTP
    after = Site(memoryview(memory), memoryview(kept))
    assert after.doors.certificate.fingerprint == before.doors.certificate.fingerprint
    after.doors.open(SLOT, PORT, ICE, again=True)
    assert after.outward() == 0
    after.doors.update(SLOT, PORT, before.peer(), 0)
    assert after.to == BROWSER
    assert after.outward() == 1
    assert after.inward(first) == b""  # it has come before
    second = bytearray(RTP)
    second[3] = 2
    assert after.inward(bytes(out.protect(bytes(second)))) == bytes(second)


def test_a_new_worker_takes_nobody_else_for_the_peer_of_before() -> None:
    memory = bytearray(doors.octets(8))
    Site(memoryview(memory)).opened()
    after = Site(memoryview(memory))
    after.doors.open(SLOT, PORT, ICE)
    after.doors.update(SLOT, PORT, after.peer(Certificate().fingerprint), 0)
    assert after.outward() == 0


def test_keys_are_wiped_with_the_leg() -> None:
    memory = bytearray(doors.octets(8))
    site = Site(memoryview(memory))
    association = site.opened()
    assert association.keys is not None
    assert association.keys.own in memory
    site.doors.close(SLOT)
    assert association.keys.own not in memory
    assert association.keys.theirs not in memory


def test_a_lost_datagram_of_the_handshake_is_sent_again() -> None:
    site = Site()
    site.doors.open(SLOT, PORT, ICE)
    site.doors.update(SLOT, PORT, site.peer(), 0)
    site.arrives(ask())
    site.sent.clear()
    association = Association(site.own, True, ("sha-256", site.doors.certificate.fingerprint), 0)
    for datagram in association.outgoing:
        site.arrives(datagram)
    lost, site.sent = site.sent, []
    assert lost
    import time

    deadline = time.monotonic() + 5  # OpenSSL has a clock of its own
    while not site.sent:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        site.now += 0.1
        site.doors.tick(site.now)


def test_garbage_raises_nothing() -> None:
    rng = np.random.default_rng(9)
    site = Site()
    site.doors.open(SLOT, PORT, ICE)
    site.doors.update(SLOT, PORT, site.peer(), 0)
    site.arrives(ask())
    for _ in range(3000):
        first = int(rng.integers(0, 200))
        site.arrives(bytes([first]) + rng.bytes(int(rng.integers(0, 400))))
        site.doors.tick(site.now)
    genuine = ask()
    for _ in range(2000):
        data = bytearray(genuine)
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        site.arrives(bytes(data))
    rows = Rows()
    for _ in range(50):
        rows.put(SLOT, secrets.token_bytes(60))
    site.doors.take(rows, 0)
    site.keyring.open(rows)
    assert rows.count == 0


def test_rtcp_shares_the_port() -> None:
    site = Site()
    site.opened()
    rows = Rows()
    rows.put(SLOT, b"\x80\xc8" + bytes(26))
    rows.put(SLOT, RTP)
    site.doors.take(rows, 0)
    assert rows.control[:2].tolist() == [True, False]
    site.doors.mux(rows)
    assert rows.control[:2].tolist() == [False, False]


def test_a_browser_of_which_nothing_comes_any_more_is_gone() -> None:
    site = Site()
    association = site.opened()
    assert not site.doors.gone(SLOT, doors.CONSENT_SECONDS)
    site.now = 20.0
    site.arrives(ask())
    assert not site.doors.gone(SLOT, 20.0 + doors.CONSENT_SECONDS)
    site.now = 45.0
    site.arrives(ask(password="x" * 24), STRANGER)
    assert site.doors.gone(SLOT, 51.0)
    assert site.inward(sealed(association)) == RTP
    assert not site.doors.gone(SLOT, 70.0)
    never = Site()
    never.doors.open(SLOT, PORT, ICE)
    assert not never.doors.gone(SLOT, 1000.0)


def test_what_a_former_process_left_is_wiped_where_nobody_takes_it_up() -> None:
    """Of a call that is not opened again: when its port is another's, or after a minute. Of one that is opened again
    in another slot: with its leg."""
    memory, kept = memoryview(bytearray(doors.octets(8))), memoryview(bytearray(srtp.octets(8)))
    keys = Site(memory, kept).opened().keys
    assert keys is not None
    left = bytes(memory)
    assert keys.own in left
    fresh = Site(memory)
    fresh.doors.open(SLOT + 1, PORT, ICE)
    assert keys.own not in bytes(memory)
    memory[:] = left
    idle = Site(memory)
    idle.doors.tick(1.0)
    assert keys.own in bytes(memory)
    idle.doors.tick(70.0)
    assert keys.own not in bytes(memory)
    memory[:] = left
    again = Site(memory)
    again.own = idle.own
    again.doors.open(SLOT + 1, PORT, ICE, again=True)
    again.doors.close(SLOT + 1)
    again.doors.tick(1.0)
    again.doors.tick(70.0)
    assert keys.own not in bytes(memory)
