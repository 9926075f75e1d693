"""RTP in packet captures: streams told from other UDP by how their numbers go on, G.711 laid out by timestamp,
telephone-events found as such. What is not G.711 cannot be heard, and is told of."""

from __future__ import annotations

import hashlib
import heapq
import struct
from collections import Counter
from io import BufferedReader
from typing import Final, NamedTuple

import numpy as np

from dsp import g711
from mediaproxy.scan import pcap
from mediaproxy.scan.judge import RATE, Channel, Mark

G711: Final = {0: g711.PCMU, 8: g711.PCMA}
SILENT: Final = frozenset({13, 19})
"""Comfort noise (RFC 3389): nothing to hear."""
LONGEST_NOISE: Final = 32
"""Octets of comfort noise: a level and a few coefficients."""
SURE: Final = 4
"""Packets whose numbers follow on each other, before a flow is taken for RTP."""
LATE: Final = 128
"""Packets held back for those that come out of order; further back is a sender that counts anew, as after a restart
(RFC 3550 appendix A.1 has 100 for the same)."""
GAP: Final = 10 * RATE
"""A jump of the timestamp by more is a new clock: the stream goes on where it is."""
MOST: Final = 4096
"""Streams in one capture."""
OPEN: Final = 64
"""Streams that are heard at a time: each holds a megabyte."""
LONGEST_FILL: Final = 5 * RATE


class _Packet(NamedTuple):
    number: int
    stamp: int
    kind: int
    payload: bytes


class Stream:
    """One RTP stream: a flow and an SSRC."""

    def __init__(self, seed: int | None) -> None:
        self.channel = Channel(seed)
        self.samples = 0
        self.marks: list[Mark] = []
        """Telephone-events."""
        self.unheard: Counter[int] = Counter()
        """Packets by payload type that no audio could be got from."""
        self.packets = self.cut = self.like_g711 = 0
        self._sequence = self._newest = 0
        """Of the latest packet, its number as it was sent, and counted on over wraps and restarts."""
        self._run = 0
        self._waiting: list[_Packet] = []
        self._next: int | None = None
        self._taken = -LATE - 1
        self.seen = 0
        """The number of its last packet in the capture."""
        self._event: tuple[int, int] | None = None

    @property
    def is_rtp(self) -> bool:
        return self._run >= SURE

    def push(self, payload: bytes, whole: bool) -> None:
        """Take a datagram that looks like RTP (RFC 3550 section 5.1)."""
        sequence, stamp = struct.unpack_from("!HI", payload, 2)
        begin = 12 + 4 * (payload[0] & 15)
        if payload[0] & 0x10 and len(payload) >= begin + 4:
            begin += 4 + 4 * int.from_bytes(payload[begin + 2 : begin + 4])
        end = len(payload) - (payload[-1] if payload[0] & 0x20 and payload[-1] <= len(payload) - begin else 0)
        ahead = (sequence - self._sequence + 0x8000 & 0xFFFF) - 0x8000 if self.packets else 0
        if not self.is_rtp and self.packets:
            self._run = self._run + 1 if ahead in (0, 1, 2) else 0
        number = self._newest + (ahead if ahead >= -LATE else 1)
        if number > self._newest or not self.packets:
            self._newest, self._sequence = number, sequence
        self.packets += 1
        self.cut += not whole
        size = end - begin
        self.like_g711 += payload[1] & 0x7F in G711 and size >= 80 and size % 40 == 0
        heapq.heappush(self._waiting, _Packet(number, stamp, payload[1] & 0x7F, payload[begin:end]))
        if self.is_rtp and len(self._waiting) > LATE:
            self._take(heapq.heappop(self._waiting))
        elif len(self._waiting) > LATE:
            heapq.heappop(self._waiting)

    def finish(self) -> None:
        """There is no more."""
        while self.is_rtp and self._waiting:
            self._take(heapq.heappop(self._waiting))
        self.channel.finish()

    def _take(self, packet: _Packet) -> None:
        if packet.number <= self._taken:
            return  # a copy
        self._taken = packet.number
        if packet.kind in G711:
            self._audio(packet)
        elif packet.kind >= 96 and _is_event(packet.payload):
            self._key(packet)
        elif packet.payload and (packet.kind not in SILENT or len(packet.payload) > LONGEST_NOISE):
            self.unheard[packet.kind] += 1

    def _audio(self, packet: _Packet) -> None:
        octets = np.frombuffer(packet.payload, np.uint8)
        if self._next is not None:
            ahead = (packet.stamp - self._next + 0x80000000 & 0xFFFFFFFF) - 0x80000000
            if 0 < ahead < GAP:  # lost, or not sent; back in time is a new clock: it goes on where it is
                self._give(np.zeros(min(ahead, LONGEST_FILL), np.float32))
        self._next = packet.stamp + len(packet.payload) & 0xFFFFFFFF
        self._give(g711.decode(octets, G711[packet.kind]))

    def _give(self, samples: g711.Samples) -> None:
        self.samples += len(samples)
        self.channel.push(samples)

    def _key(self, packet: _Packet) -> None:
        """A telephone-event (RFC 4733 section 2.3): one key for each timestamp."""
        code, volume, duration = packet.payload[0], packet.payload[1] & 0x3F, int.from_bytes(packet.payload[2:4])
        if code > 15:
            return
        press = packet.stamp, packet.kind
        if press == self._event and self.marks:
            last = self.marks[-1]
            self.marks[-1] = last._replace(end=max(last.end, last.start + duration))
        else:
            self.marks.append(Mark("telephone-event", self.samples, self.samples + duration, -float(volume), 10.0))
        self._event = press


def _is_event(payload: bytes) -> bool:
    """Whether it is one telephone-event: four octets, the reserved bit clear, a duration (RFC 4733 section 2.3)."""
    return len(payload) == 4 and not payload[1] & 0x40 and payload[0] <= 63


def _looks(payload: bytes) -> bool:
    """Version 2, room for the header, and no RTCP (RFC 5761 section 4)."""
    return len(payload) >= 12 and payload[0] >> 6 == 2 and not 72 <= payload[1] & 0x7F <= 76


class Capture:
    """The RTP streams of a capture; `read` looks through all of it."""

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self._open: dict[tuple[object, ...], Stream] = {}
        self.streams: list[Stream] = []
        """Those that are RTP, in the order in which they were told to be."""
        self.reason = ""
        self._lone = 0

    def read(self, file: BufferedReader) -> None:
        """Look through the capture; `reason` says where it could not be read to its end."""
        unread: Counter[str] = Counter()
        try:
            for number, datagram in enumerate(pcap.datagrams(file, unread)):
                if _looks(datagram.payload):
                    self._push(number, datagram)
        except pcap.Damaged as error:
            self.reason = str(error)
        for stream in self._open.values():
            self._finish(stream)
        unheard: Counter[int] = Counter()
        for stream in self.streams:
            unheard += stream.unheard
        cut = sum(stream.cut for stream in self.streams)
        told = [f"{count} {what}" for what, count in sorted(unread.items()) if count]
        if self._lone:
            told.append(f"{self._lone} packet(s) that look like G.711 and belong to no stream")
        if told and not self.reason:
            self.reason = "; ".join(told)
        if unheard and not self.reason:
            kinds = ", ".join(map(str, sorted(unheard)))
            self.reason = f"{sum(unheard.values())} packet(s) of payload type {kinds} cannot be heard"
        if cut and not self.reason:
            self.reason = f"{cut} packet(s) were captured in part"

    def _push(self, number: int, datagram: pcap.Datagram) -> None:
        name = (*datagram.flow, datagram.payload[8:12])
        stream = self._open.get(name)
        if stream is None:
            if len(self._open) >= OPEN:
                self._close_one()
            stream = self._open[name] = Stream(self._seed_of(name))
        stream.seen = number
        known = stream.is_rtp
        stream.push(datagram.payload, datagram.whole)
        if stream.is_rtp and not known:
            if len(self.streams) < MOST:
                self.streams.append(stream)
            else:
                self.reason = f"more than {MOST} RTP streams: the others were not looked at"

    def _close_one(self) -> None:
        """The one that nothing has come of for longest is over; what is no RTP goes first."""
        name = min(self._open, key=lambda name: (self._open[name].is_rtp, self._open[name].seen))
        self._finish(self._open.pop(name))

    def _finish(self, stream: Stream) -> None:
        stream.finish()
        if not stream.is_rtp:
            self._lone += stream.like_g711

    def _seed_of(self, name: tuple[object, ...]) -> int | None:
        if self._seed is None:
            return None
        digest = hashlib.sha256(repr(name).encode()).digest()
        return self._seed ^ int.from_bytes(digest[:4])
