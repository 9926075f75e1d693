"""Legs that speak another codec than G.711, at the edge of the worker: what comes is G.711 before anything reads it,
what goes is coded after all else has written it. The engine, its mask and the recorder know G.711 only, so a leg is
masked the same whatever it speaks.

One packet in is one packet out; inside, a coded leg has the payload types of `RECEIVE`. What was lost on the way stays
a gap: nothing is made up here, so nothing of a tone is said twice. The one exception is what the peer itself has
repeated in its next packet (Opus FEC), and that is the agent's voice, or the caller's before the mask.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711
from mediaproxy import log
from mediaproxy.media.codec.coded import CODED, Decoder, Encoder
from mediaproxy.media.rows import Rows
from mediaproxy.media.wire import rtp

_PCMU, _PCMA, _EVENT, _NONE = 0, 8, 101, 127
RECEIVE: Final = {_PCMU: "PCMU/8000", _PCMA: "PCMA/8000", _EVENT: "telephone-event/8000"}
SEND: Final = {encoding: payload_type for payload_type, encoding in RECEIVE.items()}
"""What a coded leg speaks as far as the engine knows."""
_LAWS: Final = (_PCMU, _PCMA)
_PAYLOAD_TYPE: Final = 0x7F
_LONGEST: Final = 960
"""Samples at 8 kHz of a packet: 120 ms."""
_SENDER_REPORT: Final = 200


@dataclass(frozen=True, slots=True)
class Coding:
    """How a leg speaks. encoding: as in SDP; audio: payload types in which it comes and goes; events: those of
    telephone-events on the same clock, -1 for none; law: what comes is made to (dsp.g711), as the other leg takes it;
    parameters: format parameters of the peer."""

    encoding: str
    audio: tuple[int, int]
    events: tuple[int, int] = (-1, -1)
    law: int = g711.PCMU
    parameters: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class _Leg:
    coding: Coding
    ticks: int
    encoder: Encoder
    decoder: Decoder
    stamp: int | None = None
    """The last timestamp that came, and where that is on a clock that does not wrap."""
    here: int = 0
    sequence: int = -1
    end: int = 0
    """Where the last packet ended, at 8 kHz."""


@dataclass(slots=True)
class Transcoder:
    """Slots of a worker. failed: packets each that could not be read or written."""

    capacity: int
    failed: NDArray[np.int64] = field(init=False)
    _legs: dict[int, _Leg] = field(default_factory=dict)
    _on: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.failed = np.zeros(self.capacity, np.int64)
        self._on = np.zeros(self.capacity, np.bool_)

    def set(self, slot: int, coding: Coding | None) -> None:
        """Speak so on a slot from now on; None: G.711, which needs nothing. What is spoken already goes on."""
        if coding is None:
            self.close(slot)
            return
        known = self._legs.get(slot)
        if known is not None and known.coding == coding:
            return
        made = CODED[coding.encoding]
        fresh = _Leg(coding, made.ticks, made.encoder(dict(coding.parameters)), made.decoder())
        if known is not None:
            fresh.stamp, fresh.here, fresh.sequence, fresh.end = known.stamp, known.here, known.sequence, known.end
        self._legs[slot] = fresh
        self._on[slot] = True

    def close(self, slot: int) -> None:
        """Forget a slot's streams."""
        self._legs.pop(slot, None)
        self._on[slot] = False

    # What comes

    def open(self, rows: Rows) -> None:
        """Decode what has come, in place; rows that cannot be read are blanked and left out."""
        if not self._legs:
            return
        count = rows.count
        chosen = np.flatnonzero(self._on[rows.slot[:count]] & ~rows.control[:count])
        if not chosen.size:
            return
        head = rtp.parse(rows.slab[chosen], rows.length[chosen])
        lost, keep, order = [], np.ones(count, np.bool_), np.arange(count, dtype=np.float64)
        for i, row in enumerate(chosen.tolist()):
            slot = int(rows.slot[row])
            leg = self._legs[slot]
            start, end = int(head.start[i]), int(head.end[i])
            kind = int(head.payload_type[i])
            sequence = int(head.sequence[i])
            if not head.ok[i]:
                continue  # the engine counts it
            if kind not in (leg.coding.audio[0], leg.coding.events[0]):
                self._name(rows.slab[row], _NONE)
                continue
            self._place(leg, int(head.timestamp[i]))
            if kind == leg.coding.events[0]:
                self._event_in(rows, row, leg, start, end)
                continue
            packet = rows.slab[row, start:end].tobytes()
            try:
                before = self._recovered(leg, packet, sequence)
                pcm = leg.decoder.decode(packet)
            except Exception as error:  # a codec's bug is one leg's trouble
                before = pcm = None
                leg.decoder = CODED[leg.coding.encoding].decoder()
                self._tell(slot, error)
            if pcm is None or len(pcm) > _LONGEST:
                self.failed[slot] += 1
                keep[row] = False
                continue
            if before is not None:
                at = rows.claim(1)
                if at.start < at.stop:
                    lost.append((row, at.start))
                    stamp = leg.here // leg.ticks - len(before)
                    self._copy_head(rows, row, at.start, sequence - 1, stamp)
                    self._name(rows.slab[at.start], _LAWS[leg.coding.law])
                    self._put(rows, at.start, leg, before)
            self._put(rows, row, leg, pcm)
            self._name(rows.slab[row], _LAWS[leg.coding.law])
            rows.slab[row, 0] &= 0xC0  # no padding, extension or contributors are left
            rows.slab[row, 4:8] = _word(leg.here // leg.ticks)
            leg.sequence, leg.end = sequence, leg.here // leg.ticks + len(pcm)
        self._settle(rows, keep, order, lost)

    def _place(self, leg: _Leg, stamp: int) -> None:
        """Follow the peer's clock without its wraps."""
        if leg.stamp is None:
            leg.here = stamp
        else:
            leg.here += (stamp - leg.stamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        leg.stamp = stamp

    def _recovered(self, leg: _Leg, packet: bytes, sequence: int) -> NDArray[np.int16] | None:
        """What the packet before, which never came, held: where exactly one is missing and this one tells of it."""
        size = leg.here // leg.ticks - leg.end
        if leg.sequence < 0 or sequence != leg.sequence + 2 & 0xFFFF or not 0 < size <= _LONGEST // 2:
            return None
        return leg.decoder.recover(packet, size)

    @staticmethod
    def _put(rows: Rows, row: int, leg: _Leg, pcm: NDArray[np.int16]) -> None:
        octets = g711.ENCODE[leg.coding.law][pcm.view(np.uint16)]
        end = rtp.HEADER + len(octets)
        rows.slab[row, rtp.HEADER : end] = octets
        rows.slab[row, end : max(int(rows.length[row]), end)] = 0
        rows.length[row] = end

    @staticmethod
    def _name(line: NDArray[np.uint8], payload_type: int) -> None:
        line[1] = int(line[1]) & ~_PAYLOAD_TYPE | payload_type

    @staticmethod
    def _copy_head(rows: Rows, source: int, row: int, sequence: int, stamp: int) -> None:
        rows.slab[row, : rtp.HEADER] = rows.slab[source, : rtp.HEADER]
        rows.slab[row, 0] &= 0xC0
        rows.slab[row, 1] &= _PAYLOAD_TYPE
        rows.slab[row, 2:4] = sequence >> 8 & 0xFF, sequence & 0xFF
        rows.slab[row, 4:8] = _word(stamp)
        rows.slot[row], rows.control[row], rows.length[row] = rows.slot[source], False, rtp.HEADER

    @staticmethod
    def _settle(rows: Rows, keep: NDArray[np.bool_], order: NDArray[np.float64], lost: list[tuple[int, int]]) -> None:
        """Put what was recovered before what it was recovered from, and take out what could not be read."""
        if not lost and keep.all():
            return
        place = np.concatenate([order, [source - 0.5 for source, _ in lost]])
        good = np.concatenate([keep, np.ones(len(lost), np.bool_)])
        rows.keep(np.argsort(place, kind="stable")[good[np.argsort(place, kind="stable")]])

    def _event_in(self, rows: Rows, row: int, leg: _Leg, start: int, end: int) -> None:
        """A telephone-event on the codec's clock, as one on the audio's."""
        self._name(rows.slab[row], _EVENT)
        rows.slab[row, 4:8] = _word(leg.here // leg.ticks)
        if end - start >= 4 and leg.ticks > 1:
            self._scale(rows.slab[row, start + 2 : start + 4], 1, leg.ticks)

    # What goes

    def seal(self, rows: Rows) -> None:
        """Code what goes out, in place; a row that cannot be coded is blanked and not sent."""
        if not self._legs:
            return
        count = rows.count
        chosen = np.flatnonzero(self._on[rows.slot[:count]])
        keep = np.ones(count, np.bool_)
        for row in chosen.tolist():
            slot = int(rows.slot[row])
            leg = self._legs[slot]
            line, length = rows.slab[row], int(rows.length[row])
            if rows.control[row]:
                if leg.ticks > 1 and length >= 20 and line[1] == _SENDER_REPORT:
                    line[16:20] = _word(_number(line[16:20]) * leg.ticks)
                continue
            kind = int(line[1]) & _PAYLOAD_TYPE
            start = rtp.HEADER + 4 * (int(line[0]) & 15)
            line[4:8] = _word(_number(line[4:8]) * leg.ticks)
            if kind == _EVENT and leg.coding.events[1] >= 0:
                self._name(line, leg.coding.events[1])
                if length >= start + 4 and leg.ticks > 1:
                    self._scale(line[start + 2 : start + 4], leg.ticks, 1)
                continue
            coded = None
            if kind in _LAWS and start < length:
                self._name(line, leg.coding.audio[1])
                try:
                    coded = leg.encoder.encode(g711.DECODE_INT16[_LAWS.index(kind)][line[start:length]])
                except Exception as error:
                    leg.encoder = CODED[leg.coding.encoding].encoder(dict(leg.coding.parameters))
                    self._tell(slot, error)
            if coded is None or start + len(coded) > line.size:
                self.failed[slot] += 1
                line[:length] = 0
                keep[row] = False
                continue
            end = start + len(coded)
            line[start:end] = np.frombuffer(coded, np.uint8)
            line[end : max(length, end)] = 0
            rows.length[row] = end
        if not keep.all():
            rows.keep(np.flatnonzero(keep))

    def _tell(self, slot: int, error: Exception) -> None:
        """Log the first failure of a leg; the others are counted."""
        if not self.failed[slot]:
            log.get().error("codec-failed", exc_info=error)

    @staticmethod
    def _scale(duration: NDArray[np.uint8], times: int, by: int) -> None:
        ticks = min((int(duration[0]) << 8 | int(duration[1])) * times // by, 0xFFFF)
        duration[0], duration[1] = ticks >> 8, ticks & 0xFF


def _number(octets: NDArray[np.uint8]) -> int:
    return int.from_bytes(octets.tobytes(), "big")


def _word(number: int) -> NDArray[np.uint8]:
    return np.frombuffer((number & 0xFFFFFFFF).to_bytes(4, "big"), np.uint8)
