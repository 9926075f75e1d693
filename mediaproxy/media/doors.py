"""Browsers' legs: ICE, DTLS and SRTP on one port (RFC 7983), told apart by the first octet.

A source that has shown that it knows the leg's password is let in; what it then says is worth nothing until the DTLS
handshake has shown that it holds the certificate of its SDP. From there on it is a leg like any other with SRTP: the
keys go to the keyring, and media takes the same way.

Keys, and where they go to, are also noted in memory that outlasts the process: a worker that takes over goes on without
a handshake, which no browser would make anew.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from mediaproxy.media.rows import Rows
from mediaproxy.media.source import Address
from mediaproxy.media.srtp import SUITES, Keyring

if TYPE_CHECKING:  # loaded with the first browser: a worker that starts anew is back sooner without
    from mediaproxy.media.dtls import Association, Certificate
    from mediaproxy.media.ice import Ice

_STUN, _DTLS, _RTP = range(4), range(20, 64), range(128, 192)
"""First octets (RFC 7983 section 7)."""
_CONTROL: Final = range(192, 224)
"""Second octets of RTCP beside RTP (RFC 5761 section 4)."""
_PEM: Final = 4096
"""Octets for the certificate at the head of the memory."""
_KEY: Final = 44
_NOTE = np.dtype(
    [("port", "<u4"), ("suite", "<u4"), ("peer", "V32"), ("own", f"V{_KEY}"), ("theirs", f"V{_KEY}"),
     ("host", "S46"), ("at", "<u4")]
)  # fmt: skip
"""Of one leg: local port, suite (from 1), whom it is keyed with, key and salt each way, and where it sends."""
_NAMES: Final = tuple(SUITES)
_TRIES: Final = 5
_FORMER_SECONDS: Final = 60.0
"""For so long the calls of a process before this one can be opened again."""
CONSENT_SECONDS: Final = 30.0
"""A peer that has not even checked for so long is gone (RFC 7675 section 5.1)."""


def octets(capacity: int) -> int:
    """Octets of memory that hold the certificate and the notes on `capacity` slots."""
    return _PEM + int(capacity * _NOTE.itemsize)


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom a leg is to speak to. ice: this box's ufrag and password; ufrag, fingerprint (hash, value): the peer's,
    empty while it has told nothing; active: this box begins the handshake."""

    ice: tuple[str, str] = field(repr=False)
    ufrag: str = ""
    fingerprint: tuple[str, str] = ("", "")
    active: bool = False


@dataclass(slots=True)
class _Door:
    port: int
    peer: Peer
    ice: Ice
    former: Ice | None = None
    """Before the peer began anew: it may still ask by the old credentials."""
    association: Association | None = None
    tries: int = 0
    """Associations that may still be begun."""
    keyed: bool = False
    to: Address | None = None
    """Where its media goes."""
    known: Address | None = None
    """Whose datagrams come as rows: the last source that was let in."""


class Doors:
    """Slots of a worker that are browsers'.

    reply: sends a datagram from a slot's port; move: says where a slot's media goes from now on.
    refused: int64[capacity], datagrams that deserved no answer, and handshakes that failed.
    """

    def __init__(
        self,
        capacity: int,
        keyring: Keyring,
        reply: Callable[[int, bytes, Address], None],
        move: Callable[[int, Address], None],
        memory: memoryview | None = None,
    ) -> None:
        if memory is None:
            memory = memoryview(bytearray(octets(capacity)))
        self._keyring, self._reply, self._move = keyring, reply, move
        self._pem = memory[:_PEM]
        self._certificate: Certificate | None = None
        self._notes: NDArray[Any] = np.frombuffer(memory[_PEM:], _NOTE, capacity)
        self._former = {int(note["port"]): i for i, note in enumerate(self._notes) if note["port"]}
        self._former_notes = self._notes.copy()
        """What the process before this one left: which note, by local port; and the notes."""
        self._forget_at = 0.0
        self._doors: dict[int, _Door] = {}
        self._on = np.zeros(capacity, np.bool_)
        self.refused = np.zeros(capacity, np.int64)
        self._heard = np.zeros(capacity)
        """When a peer has shown last that it is there."""

    @property
    def certificate(self) -> Certificate:
        """This box's own, made or found in the memory when it is first asked for."""
        if self._certificate is None:
            self._certificate = _certificate(self._pem)
        return self._certificate

    def __contains__(self, slot: int) -> bool:
        return slot in self._doors

    def open(self, slot: int, port: int, ice: tuple[str, str], again: bool = False) -> None:
        """Make a slot a browser's: nothing goes in or out before its peer is known. again: its call was here before
        this process; of any other that had the port nothing is left."""
        from mediaproxy.media.ice import Ice

        self._doors[slot] = _Door(port, Peer(ice), Ice(*ice))
        self._on[slot] = True
        self._heard[slot] = np.inf  # nobody was there yet
        self._keyring.await_keys(slot)
        if not again:
            self._forget(port)

    def update(self, slot: int, port: int, peer: Peer, now: float) -> None:
        """Set whom a slot speaks to. The same peer goes on as it is; another one has to show itself first."""
        door = self._doors.get(slot)
        if door is None:
            self.open(slot, port, peer.ice)
            door = self._doors[slot]
        if peer.ice != door.peer.ice:
            door.former, door.ice = door.ice, type(door.ice)(*peer.ice)
        door.ice.peer = peer.ufrag
        if peer.fingerprint != door.peer.fingerprint and peer.fingerprint[1]:
            door.keyed, door.association = False, None
            self._keyring.await_keys(slot)
            former = self._forget(port)
            door.tries = _TRIES
            if former is not None and former["peer"].tobytes() == _print(peer):
                self._go_on(slot, door, former, now)
        door.peer = peer

    def _forget(self, port: int) -> Any:
        """Take what the process before this one left of a port, out of the memory too; None where that is nothing."""
        which = self._former.pop(port, None)
        if which is None:
            return None
        note = self._former_notes[which].copy()
        self._former_notes[which] = np.zeros((), _NOTE)
        if self._notes[which]["port"] == port:
            self._notes[which] = np.zeros((), _NOTE)
        return note

    def close(self, slot: int) -> None:
        """Make it a browser's no longer; its keys are wiped."""
        door = self._doors.pop(slot, None)
        self._on[slot] = False
        if door is not None:
            self._keyring.drop(slot)
            self._notes[slot] = np.zeros((), _NOTE)

    # What comes

    def arrives(self, slot: int, source: Address, data: bytes, now: float) -> bool | None:
        """Whether a datagram of a source that is not the known one is media; the rest is dealt with here."""
        door = self._doors[slot]
        first = data[0] if data else 255
        if first in _STUN:
            self._ask(slot, door, data, source, now)
        elif source not in door.ice.sources and (door.former is None or source not in door.former.sources):
            self.refused[slot] += 1
        elif first in _DTLS:
            self._shake(slot, door, data, source, now)
        elif first in _RTP and door.keyed:
            door.known = source
            return True
        else:
            self.refused[slot] += 1
        return None

    def take(self, rows: Rows, now: float) -> None:
        """Of what has come from known sources, deal with all that is not media, and mark RTCP."""
        count = rows.count
        chosen = np.flatnonzero(self._on[rows.slot[:count]])
        if not chosen.size:
            return
        keep = np.ones(count, np.bool_)
        self._heard[rows.slot[chosen]] = now
        for row in chosen.tolist():
            slot, length = int(rows.slot[row]), int(rows.length[row])
            first, second = int(rows.slab[row, 0]), int(rows.slab[row, 1])
            if first in _RTP and length > 1:
                rows.control[row] = second in _CONTROL
                continue
            keep[row] = False
            source = self._doors[slot].known
            if source is not None:
                self.arrives(slot, source, rows.slab[row, :length].tobytes(), now)
        if not keep.all():
            rows.keep(np.flatnonzero(keep))

    def gone(self, slot: int, now: float) -> bool:
        """Whether a slot's browser was there and is no more."""
        return bool(self._on[slot] and now - self._heard[slot] > CONSENT_SECONDS)

    def _ask(self, slot: int, door: _Door, data: bytes, source: Address, now: float) -> None:
        for ice in (door.ice, door.former):
            answer = ice.receive(data, source) if ice is not None else None
            if ice is not None and answer is not None:
                self._heard[slot] = now
                self._reply(slot, answer, source)
                if ice is door.ice and ice.nominated is not None and ice.nominated != door.to:
                    self._turn(slot, door, ice.nominated)
                return
        self.refused[slot] += 1

    def _turn(self, slot: int, door: _Door, to: Address) -> None:
        """Media goes there from now on."""
        door.to = to
        self._move(slot, to)
        if door.keyed:
            self._notes[slot]["host"], self._notes[slot]["at"] = to[0].encode(), to[1]

    # The handshake

    def _shake(self, slot: int, door: _Door, data: bytes, source: Address, now: float) -> None:
        if door.peer.fingerprint[1] and not door.keyed and not door.peer.active:
            self._begin(door, now)
        if door.association is None:  # before it is known whom to expect, or with keys of before a restart
            return
        door.association.receive(data, now)
        self._after(slot, door, source)

    def tick(self, now: float) -> None:
        """Begin handshakes that are to be begun here, repeat what was lost."""
        if self._former:
            self._forget_at = self._forget_at or now + _FORMER_SECONDS
            for port in list(self._former) if now > self._forget_at else ():
                self._forget(port)
        for slot, door in self._doors.items():
            if door.keyed or not door.peer.fingerprint[1]:
                continue
            if door.peer.active and door.to is not None:
                self._begin(door, now)
            if door.association is not None and door.association.waiting:
                door.association.tick(now)
                self._after(slot, door, door.to)

    def _begin(self, door: _Door, now: float) -> None:
        """Make the association that there is none of yet; another one, a few times, where it has failed: whoever can
        forge a datagram of the peer's could else silence it."""
        if door.tries and (door.association is None or door.association.failed):
            from mediaproxy.media.dtls import Association

            door.tries -= 1
            door.association = Association(self.certificate, door.peer.active, door.peer.fingerprint, now)

    def _after(self, slot: int, door: _Door, to: Address | None) -> None:
        association = door.association
        assert association is not None
        for datagram in association.outgoing:
            if to is not None:
                self._reply(slot, datagram, to)
        association.outgoing.clear()
        if association.failed:
            self.refused[slot] += 1
        elif association.keys is not None and not door.keyed:
            door.keyed = True
            keys = association.keys
            self._keyring.set(slot, door.port, keys.suite, keys.own, keys.theirs)
            note = self._notes[slot]
            note["port"], note["suite"], note["peer"] = door.port, 1 + _NAMES.index(keys.suite), _print(door.peer)
            note["own"], note["theirs"] = keys.own.ljust(_KEY, b"\0"), keys.theirs.ljust(_KEY, b"\0")
            if door.to is not None:
                note["host"], note["at"] = door.to[0].encode(), door.to[1]

    def _go_on(self, slot: int, door: _Door, former: Any, now: float) -> None:
        """Take up keys of before this process."""
        suite = _NAMES[int(former["suite"]) - 1]
        size = _SIZES[suite]
        own, theirs = former["own"].tobytes()[:size], former["theirs"].tobytes()[:size]
        door.keyed = True
        self._keyring.set(slot, door.port, suite, own, theirs)
        self._notes[slot] = former
        if former["at"]:
            to = (former["host"].decode(), int(former["at"]))
            door.ice.sources[to] = None
            door.ice.nominated = to
            self._heard[slot] = now
            self._turn(slot, door, to)

    # What goes

    def mux(self, rows: Rows) -> None:
        """RTCP of browsers leaves by the port of RTP."""
        count = rows.count
        rows.control[:count] &= ~self._on[rows.slot[:count]]


_SIZES: Final = {
    "AES_CM_128_HMAC_SHA1_80": 30, "AES_CM_128_HMAC_SHA1_32": 30, "AEAD_AES_128_GCM": 28, "AEAD_AES_256_GCM": 44,
}  # fmt: skip


def _print(peer: Peer) -> bytes:
    return hashlib.sha256(" ".join(peer.fingerprint).encode()).digest()


def _certificate(memory: memoryview) -> Certificate:
    """The one in the memory; a new one is left there."""
    from mediaproxy.media.dtls import Certificate

    (size,) = struct.unpack("<I", memory[:4])
    if 0 < size <= _PEM - 4:
        return Certificate(bytes(memory[4 : 4 + size]))
    made = Certificate()
    memory[4 : 4 + len(made.pem)] = made.pem
    memory[:4] = struct.pack("<I", len(made.pem))
    return made
