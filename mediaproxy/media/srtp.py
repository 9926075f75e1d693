"""SRTP and SRTCP (RFC 3711, RFC 7714) at the edge of the worker: opened before anything reads a packet, sealed after
all else has written it, in place, so that no copy of an opened packet is left behind.

libsrtp keeps the indexes of each key in the process. Where they stand is also noted in memory that outlasts it: a
worker that takes over begins where the one before it stopped, so that no index is used twice under one key (RFC 3711
section 9.1), and follows the peer's count of rollovers.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pylibsrtp import Policy, Session
from pylibsrtp._binding import ffi, lib  # the public calls copy every packet into objects that nobody can blank

from mediaproxy.media.rows import Rows

SUITES: Final = {
    "AES_CM_128_HMAC_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_CM_128_HMAC_SHA1_32": Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    "AEAD_AES_128_GCM": Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "AEAD_AES_256_GCM": Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}
WINDOW: Final = 1024
"""Packets behind the newest that are still taken, each once: 20 s."""
_TRAILER: Final = 160
"""Room that sealing may need (libsrtp's own bound)."""
_HOP: Final = 0x4000
_NOTE = np.dtype(
    [
        ("port", "<u4"),
        ("own", "<u8"),
        ("theirs", "<u8"),
        ("out_ssrc", "<u4"),
        ("in_ssrc", "<u4"),
        ("out", "<i8"),
        ("in", "<i8"),
        ("rtcp", "<u4"),
    ]
)
"""Of one leg: local port, which keys, and the last index each way (-1: none), and how many RTCP packets have left."""


def octets(capacity: int) -> int:
    """Octets of memory that hold the notes on `capacity` slots."""
    return int(capacity * _NOTE.itemsize)


@dataclass(slots=True)
class Leg:
    """Sessions of one slot. own, theirs: which keys, so that the same again change nothing; good: packets opened."""

    own: int
    theirs: int
    outward: Any
    inward: Any
    good: int = 0


class Keyring:
    """Slots that speak SRTP. rejected: int64[capacity], packets that could not be opened."""

    def __init__(self, capacity: int, memory: memoryview | None = None) -> None:
        if memory is None:
            memory = memoryview(bytearray(octets(capacity)))
        self._notes: NDArray[Any] = np.frombuffer(memory, _NOTE, capacity)
        self._former = {int(note["port"]): note.copy() for note in self._notes if note["port"]}
        """What the process before this one left, by local port."""
        self._legs: dict[int, Leg] = {}
        self._used: dict[int, dict[int, Any]] = {}
        """Every session of a slot by its key, for as long as its call lasts: a key that is taken up again goes on."""
        self._length = ffi.new("int *")
        self.rejected = np.zeros(capacity, np.int64)
        self._secure = np.zeros(capacity, np.bool_)

    def set(self, slot: int, port: int, suite: str, own: bytes, theirs: bytes) -> None:
        """Speak SRTP on a slot from now on, or no longer where `suite` is empty. Keys it has already go on."""
        if not suite:
            self.drop(slot)
            return
        mine, other = _print(suite, own), _print(suite, theirs)
        profile, note, known = SUITES[suite], self._notes[slot], self._legs.get(slot)
        if known is None:
            outward = self._session(slot, mine, profile, own, Policy.SSRC_ANY_OUTBOUND)
            inward = self._session(slot, other, profile, theirs, Policy.SSRC_ANY_INBOUND)
            self._begin(slot, port, (mine, other), outward, inward, _session(profile, theirs, Policy.SSRC_ANY_OUTBOUND))
            self._legs[slot] = Leg(mine, other, outward, inward)
        else:  # a key that stays goes on as it stands: begun anew it would use its indexes twice
            if known.own != mine:
                known.own, known.outward = mine, self._session(slot, mine, profile, own, Policy.SSRC_ANY_OUTBOUND)
                note["out"], note["out_ssrc"], note["rtcp"] = -1, 0, 0
            if known.theirs != other:
                known.theirs, known.inward = other, self._session(slot, other, profile, theirs, Policy.SSRC_ANY_INBOUND)
                note["in"], note["in_ssrc"] = -1, 0
                known.good = 0
        note["own"], note["theirs"] = mine, other
        self._secure[slot] = True

    def _begin(self, slot: int, port: int, keys: tuple[int, int], outward: Any, inward: Any, theirs: Any) -> None:
        """Take over what the process before this one noted of a port, for keys that are still the same."""
        former = self._former.pop(port, None)
        self._notes["port"][self._notes["port"] == port] = 0
        note = self._notes[slot]
        note["out"] = note["in"] = -1
        note["out_ssrc"] = note["in_ssrc"] = note["rtcp"] = 0
        note["port"] = port
        if former is None:
            return
        if int(former["own"]) == keys[0]:
            for name in ("out", "out_ssrc", "rtcp"):
                note[name] = former[name]
        if int(former["theirs"]) == keys[1]:
            for name in ("in", "in_ssrc"):
                note[name] = former[name]
        self._go_on(note, outward, inward, theirs)

    def _session(self, slot: int, mark: int, profile: int, key: bytes, kind: int) -> Any:
        used = self._used.setdefault(slot, {})
        if mark not in used:
            used[mark] = _session(profile, key, kind)
        return used[mark]

    def await_keys(self, slot: int) -> None:
        """Let nothing in or out of a slot until there are keys: its peer has still to show who it is."""
        self._legs.pop(slot, None)
        self._secure[slot] = True

    def drop(self, slot: int) -> None:
        """Speak no SRTP on a slot until keys are set again."""
        self._legs.pop(slot, None)
        self._secure[slot] = False

    def close(self, slot: int) -> None:
        """Forget the keys of a slot."""
        self.drop(slot)
        self._used.pop(slot, None)
        self._notes[slot]["port"] = 0

    def good(self, slot: int) -> int:
        """Packets that could be opened since the keys were set."""
        return self._legs[slot].good if slot in self._legs else 0

    def secure(self, slot: int) -> bool:
        """Whether a slot speaks SRTP."""
        return bool(self._secure[slot])

    def open(self, rows: Rows) -> None:
        """Open what has come; rows that cannot be opened, or have come before, are blanked and left out."""
        count = rows.count
        sealed = np.flatnonzero(self._secure[rows.slot[:count]])
        if not sealed.size:
            return
        keep = np.ones(count, np.bool_)
        for row in sealed:
            slot = int(rows.slot[row])
            leg, control = self._legs.get(slot), bool(rows.control[row])
            length = -1
            if leg is not None:
                function = lib.srtp_unprotect_rtcp if control else lib.srtp_unprotect
                length = self._process(function, leg.inward, rows, int(row))
            if leg is None or length < 0:
                self.rejected[slot] += 1
                rows.slab[row, : rows.length[row]] = 0
                keep[row] = False
                continue
            rows.slab[row, length : rows.length[row]] = 0
            rows.length[row] = length
            leg.good += 1
            if not control:
                self._note(self._notes[slot], "in", rows.slab[row])
        if not keep.all():
            rows.keep(np.flatnonzero(keep))

    def seal(self, rows: Rows) -> None:
        """Seal what goes out; a row that cannot be sealed is blanked and not sent."""
        secure = np.flatnonzero(self._secure[rows.slot[: rows.count]])
        if not secure.size:
            return
        keep = np.ones(rows.count, np.bool_)
        for row in secure:
            slot = int(rows.slot[row])
            leg, note = self._legs.get(slot), self._notes[slot]
            control = bool(rows.control[row])
            if leg is None:
                rows.slab[row, : rows.length[row]] = 0
                keep[row] = False
                continue
            if control:
                note["rtcp"] += 1
            else:
                self._note(note, "out", rows.slab[row])
            fits = int(rows.length[row]) + _TRAILER <= rows.slab.shape[1]
            function = lib.srtp_protect_rtcp if control else lib.srtp_protect
            length = self._process(function, leg.outward, rows, int(row)) if fits else -1
            if length < 0:
                rows.slab[row, : rows.length[row]] = 0
                keep[row] = False
            else:
                rows.length[row] = length
        if not keep.all():
            rows.keep(np.flatnonzero(keep))

    def _process(self, function: Any, session: Any, rows: Rows, row: int) -> int:
        """Run one of libsrtp's functions on a row; returns its new length, -1 where it failed."""
        at = ffi.from_buffer(rows.slab[row])
        self._length[0] = int(rows.length[row])
        status = function(session._srtp[0], at, self._length)
        return int(self._length[0]) if status == lib.srtp_err_status_ok else -1

    @staticmethod
    def _note(note: Any, way: str, packet: NDArray[np.uint8]) -> None:
        """Note the index of a packet (RFC 3711 section 3.3.1)."""
        sequence = int(packet[2]) << 8 | int(packet[3])
        ssrc = int.from_bytes(packet[8:12].tobytes(), "big")
        last = int(note[way])
        if last < 0 or int(note[f"{way}_ssrc"]) != ssrc:
            note[f"{way}_ssrc"], note[way] = ssrc, sequence
            return
        step = (sequence - last + 0x8000 & 0xFFFF) - 0x8000
        if step > 0:
            note[way] = last + step

    def _go_on(self, note: Any, outward: Any, inward: Any, theirs: Any) -> None:
        """Bring fresh sessions to where the former ones stood, with packets that are thrown away."""
        for index in _steps(int(note["out"])):
            _protect(outward, _packet(index, int(note["out_ssrc"])))
        report = struct.pack("!BBHI20x", 0x80, 200, 6, int(note["out_ssrc"]))
        for _ in range(int(note["rtcp"])):
            lib.srtp_protect_rtcp(outward._srtp[0], *_buffer(report))
        for index in _steps(int(note["in"])):
            data, length = _protect(theirs, _packet(index, int(note["in_ssrc"])))
            lib.srtp_unprotect(inward._srtp[0], data, length)


def _print(suite: str, key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(suite.encode() + key).digest()[:8], "little")


def _session(profile: int, key: bytes, kind: int) -> Any:
    policy = Policy(key=key, ssrc_type=kind, srtp_profile=profile)
    policy.window_size = WINDOW
    return Session(policy)


def _steps(last: int) -> list[int]:
    """Indexes that lead to `last`, near enough for each to be told from the one before it."""
    return [*range(0, last, _HOP), last] if last >= 0 else []


def _packet(index: int, ssrc: int) -> bytes:
    return struct.pack("!BBHII", 0x80, 0, index & 0xFFFF, 0, ssrc) + b"\0"


def _buffer(data: bytes) -> tuple[Any, Any]:
    made, length = ffi.new("char[]", len(data) + _TRAILER), ffi.new("int *")
    ffi.memmove(made, data, len(data))
    length[0] = len(data)
    return made, length


def _protect(session: Any, packet: bytes) -> tuple[Any, Any]:
    made, length = _buffer(packet)
    lib.srtp_protect(session._srtp[0], made, length)
    return made, length
