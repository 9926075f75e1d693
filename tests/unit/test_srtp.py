"""SRTP at the worker's edge: both ways, against replay and rollover, and across a worker's death."""

import struct

import numpy as np
import pytest
from pylibsrtp import Error, Policy, Session

from mediaproxy.media import srtp
from mediaproxy.media.rows import Rows
from mediaproxy.media.srtp import SUITES, Keyring
from sip.sdes import SUITES as OFFERED

OWN, THEIRS = bytes(range(44)), bytes(range(100, 144))


def packet(sequence: int, ssrc: int = 7, payload: bytes = b"\x55" * 160) -> bytes:
    return struct.pack("!BBHII", 0x80, 0, sequence & 0xFFFF, 160 * sequence & 0xFFFFFFFF, ssrc) + payload


class Peer:
    """The far end, through libsrtp's own public calls."""

    def __init__(self, suite: str) -> None:
        size = OFFERED[suite]
        self.out = Session(Policy(THEIRS[:size], Policy.SSRC_ANY_OUTBOUND, srtp_profile=SUITES[suite]))
        self.into = Session(Policy(OWN[:size], Policy.SSRC_ANY_INBOUND, srtp_profile=SUITES[suite]))


def ring(suite: str, memory: memoryview | None = None) -> Keyring:
    keyring = Keyring(4, memory)
    keyring.set(1, 20000, suite, OWN[: OFFERED[suite]], THEIRS[: OFFERED[suite]])
    return keyring


def opened(keyring: Keyring, *data: bytes, control: bool = False) -> list[bytes]:
    rows = Rows()
    for one in data:
        rows.put(1, one, control)
    keyring.open(rows)
    return [rows.slab[i, : rows.length[i]].tobytes() for i in range(rows.count)]


def sealed(keyring: Keyring, *data: bytes, control: bool = False) -> list[bytes]:
    rows = Rows()
    for one in data:
        rows.put(1, one, control)
    keyring.seal(rows)
    return [rows.slab[i, : rows.length[i]].tobytes() for i in range(rows.count)]


@pytest.mark.parametrize("suite", SUITES)
def test_what_a_peer_sends_is_opened_and_what_goes_to_it_is_sealed(suite: str) -> None:
    peer, keyring = Peer(suite), ring(suite)
    assert opened(keyring, *(peer.out.protect(packet(i)) for i in range(3))) == [packet(i) for i in range(3)]
    sent = sealed(keyring, packet(9, 8))
    assert sent[0][12:172] != packet(9, 8)[12:]
    assert peer.into.unprotect(sent[0]) == packet(9, 8)
    report = struct.pack("!BBHI20x", 0x80, 200, 6, 7)
    assert opened(keyring, peer.out.protect_rtcp(report), control=True) == [report]
    assert peer.into.unprotect_rtcp(sealed(keyring, report, control=True)[0]) == report


def test_what_is_altered_plain_or_sent_again_is_left_out_and_blanked() -> None:
    peer, keyring = Peer("AES_CM_128_HMAC_SHA1_80"), ring("AES_CM_128_HMAC_SHA1_80")
    good = peer.out.protect(packet(1))
    rows = Rows()
    for data in (packet(2), good, good, good[:-1] + bytes([good[-1] ^ 1])):
        rows.put(1, data)
    rows.put(2, packet(5))  # another leg, in the clear
    keyring.open(rows)
    assert [int(s) for s in rows.slot[: rows.count]] == [1, 2]
    assert not rows.slab[2:5].any()
    assert keyring.rejected.tolist() == [0, 3, 0, 0]


def test_the_same_keys_again_go_on_and_others_begin_anew() -> None:
    peer, keyring = Peer("AES_CM_128_HMAC_SHA1_80"), ring("AES_CM_128_HMAC_SHA1_80")
    first = peer.out.protect(packet(1))
    assert opened(keyring, first)
    keyring.set(1, 20000, "AES_CM_128_HMAC_SHA1_80", OWN[:30], THEIRS[:30])
    assert not opened(keyring, first)  # still known
    keyring.set(1, 20000, "AES_CM_128_HMAC_SHA1_80", OWN[:30], THEIRS[1:31])
    assert not opened(keyring, peer.out.protect(packet(2)))
    keyring.set(1, 20000, "", b"", b"")
    assert opened(keyring, packet(3)) == [packet(3)]


@pytest.mark.parametrize("count", [1, 40_000, 65_600, 140_000])
def test_a_new_worker_goes_on_where_the_old_one_stopped(count: int) -> None:
    """After so many packets each way, with the 16-bit sequence wrapped or not."""
    suite = "AES_CM_128_HMAC_SHA1_80"
    memory = memoryview(bytearray(srtp.octets(4)))
    peer, keyring = Peer(suite), ring(suite, memory)
    report = struct.pack("!BBHI20x", 0x80, 200, 6, 8)
    last_report = sealed(keyring, report, report, control=True)[-1]
    step, last_in, last_out = 1 if count < 1000 else 500, b"", b""
    for sequence in [*range(0, count, step), count]:
        last_in = peer.out.protect(packet(sequence))
        assert opened(keyring, last_in)
        last_out = sealed(keyring, packet(sequence, 8))[0]
        peer.into.unprotect(last_out)
    again = ring(suite, memory)
    assert not opened(again, last_in)  # a replay across the restart
    assert opened(again, peer.out.protect(packet(count + 1))) == [packet(count + 1)]
    following = sealed(again, packet(count + 1, 8))[0]
    assert peer.into.unprotect(following) == packet(count + 1, 8)
    assert not sealed(again, packet(count, 8))  # the index has been used
    next_report = sealed(again, report, control=True)[0]
    assert next_report[28:32] > last_report[28:32]  # E flag and SRTCP index


def test_with_other_keys_nothing_of_the_former_worker_is_taken_over() -> None:
    suite = "AES_CM_128_HMAC_SHA1_80"
    memory = memoryview(bytearray(srtp.octets(4)))
    peer, keyring = Peer(suite), ring(suite, memory)
    sealed(keyring, *(packet(i, 8) for i in range(5)))
    again = Keyring(4, memory)
    again.set(1, 20000, suite, OWN[1:31], THEIRS[:30])
    with pytest.raises(Error):
        peer.into.unprotect(sealed(again, packet(6, 8))[0])
    assert np.all(again.rejected == 0)


def test_a_packet_too_large_to_seal_is_not_sent() -> None:
    keyring = ring("AES_CM_128_HMAC_SHA1_80")
    assert sealed(keyring, packet(1, payload=bytes(1950)), packet(2))[0][2:4] == b"\0\2"


def test_a_new_key_of_the_peer_leaves_the_own_one_where_it_was() -> None:
    """A re-INVITE with other keys of the peer's: to begin its own key anew would use indexes twice."""
    suite = "AES_CM_128_HMAC_SHA1_80"
    peer, keyring = Peer(suite), ring(suite)
    report = struct.pack("!BBHI20x", 0x80, 200, 6, 8)
    for sequence in range(0, 66_000, 400):
        peer.into.unprotect(sealed(keyring, packet(sequence, 8))[0])
    before = sealed(keyring, report, control=True)[0]
    keyring.set(1, 20000, suite, OWN[:30], THEIRS[5:35])
    assert peer.into.unprotect(sealed(keyring, packet(66_001, 8))[0]) == packet(66_001, 8)
    assert sealed(keyring, report, control=True)[0] != before
    other = Session(Policy(THEIRS[5:35], Policy.SSRC_ANY_OUTBOUND))
    assert opened(keyring, other.protect(packet(1))) == [packet(1)]


def test_a_key_that_is_taken_up_again_goes_on_where_it_was() -> None:
    """SRTP, plain, and SRTP again with the same key: an index that was used is not used again."""
    suite = "AES_CM_128_HMAC_SHA1_80"
    peer, keyring = Peer(suite), ring(suite)
    for sequence in range(0, 66_000, 400):
        peer.into.unprotect(sealed(keyring, packet(sequence, 8))[0])
    keyring.set(1, 20000, "", b"", b"")
    assert sealed(keyring, packet(5, 8)) == [packet(5, 8)]
    keyring.set(1, 20000, suite, OWN[:30], THEIRS[:30])
    assert peer.into.unprotect(sealed(keyring, packet(66_001, 8))[0]) == packet(66_001, 8)
    keyring.close(1)
    keyring.set(1, 20002, suite, OWN[:30], THEIRS[:30])
    assert opened(keyring, peer.out.protect(packet(1))) == [packet(1)]
