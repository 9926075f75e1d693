"""What the caller is told between fields: recorded prompts, in place of what the agent says meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import g711
from mediaproxy import wav
from mediaproxy.media.egress import DROP, Egress
from mediaproxy.media.rows import Rows
from mediaproxy.media.wire import rtp

Samples = NDArray[np.float32]
Index = NDArray[np.intp]

GAP: Final = 1600
"""Samples of silence between two prompts: 200 ms."""
UNSPOKEN: Final = 0.06
"""Seconds without a packet of the agent's that could carry a prompt, until it gets a stream of its own: two packets of
20 ms may be late."""
_CODECS: Final = (g711.PCMU, g711.PCMA)
BEHIND: Final = 0.5
"""Of how much of what the agent hears a prompt is."""


def load(sets: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Samples]]:
    """float32[n] at 8 kHz of every prompt of every set. Raises WavError."""
    return {name: {key: wav.read(file)[0][0] for key, file in prompts.items()} for name, prompts in sets.items()}


def join(prompts: Mapping[str, Samples], names: tuple[str, ...]) -> Samples | None:
    """The prompts of these names one after the other; None where the set has none of them."""
    found = [part for name in names if name in prompts for part in (prompts[name], np.zeros(GAP, np.float32))]
    return np.concatenate(found[:-1]) if found else None


@dataclass(slots=True)
class _Playing:
    audio: Samples
    to_agent: bool
    numbers: tuple[int, int, int]
    """SSRC, sequence number and timestamp of a stream of its own."""
    due: float
    """When the next packet of that stream is due, unless one of the agent's carries the prompt until then."""
    said: int = 0
    heard: int = 0


class Prompts:
    """What plays, by trunk slot."""

    def __init__(self) -> None:
        self._playing: dict[int, _Playing] = {}
        self._riding: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._playing)

    def play(self, slot: int, audio: Samples, to_agent: bool, numbers: tuple[int, int, int], now: float) -> None:
        """Begin. numbers: SSRC, sequence number and timestamp to begin a stream with, if one is needed."""
        self._playing[slot] = _Playing(audio, to_agent, numbers, now + UNSPOKEN)
        if slot in self._riding:
            self._playing[slot].due = float("inf")

    def ride_only(self, slot: int, only: bool) -> None:
        """Whether prompts of `slot` may have no stream of their own: under SRTP a second source would have to have its
        index kept as well, or a new worker would use one twice (RFC 3711 section 9.1)."""
        (self._riding.add if only else self._riding.discard)(slot)
        if only and slot in self._playing:
            self._playing[slot].due = float("inf")

    def stop(self, slot: int) -> None:
        """End what plays, if anything does."""
        self._playing.pop(slot, None)

    def unspoken(self, now: float) -> list[int]:
        """Slots whose prompt no packet of the agent's has carried for too long."""
        return [slot for slot, playing in self._playing.items() if playing.due <= now]

    def ride(
        self, slab: NDArray[np.uint8], to: Index, codec: NDArray[np.intp], spans: NDArray[np.int64], now: float
    ) -> None:
        """Where a prompt plays, let the agent's packets carry it: their numbers stay as they are.

        slab: uint8[n, size], packets on their way to slots `to`; codec: int[n], anything else where they are no audio;
        spans: int[n, 2], where their payload is.
        """
        for i in self._among(to):
            if codec[i] in _CODECS:
                start, end = (int(place) for place in spans[i])
                patience = float("inf") if int(to[i]) in self._riding else max(UNSPOKEN, 2.5 * (end - start) / 8000)
                slab[i, start:end] = g711.encode(self._say(int(to[i]), end - start, now + patience), int(codec[i]))

    def alone(self, out: Rows, egress: Egress, to: int, size: int, now: float) -> tuple[int, int, int, int] | None:
        """Send the next `size` samples in a stream of the prompt's own: (row, slot, timestamp, codec) of the packet."""
        playing, slot = self._playing[to], np.array([to])
        ssrc, sequence, timestamp = playing.numbers
        playing.numbers = ssrc, sequence + 1 & 0xFFFF, timestamp + size & 0xFFFFFFFF
        said = self._say(to, size, max(playing.due + size / 8000, now))  # after a stall nobody wants all of it at once
        codec = next((codec for codec in _CODECS if egress.payload_type(slot, codec)[0] != DROP), None)
        at = out.claim(1) if codec is not None else slice(0, 0)
        if codec is None or at.stop == at.start:
            return None
        numbers = (np.array([sequence], np.uint16), np.array([timestamp], np.uint32), np.array([ssrc], np.uint32))
        rtp.write(out.slab[at], egress.payload_type(slot, codec), *numbers)
        out.slab[at, rtp.HEADER : rtp.HEADER + size] = g711.encode(said, codec)
        out.slot[at], out.length[at], out.control[at] = to, rtp.HEADER + size, False
        return at.start, to, timestamp, codec

    def overlay(self, slots: Index, octets: NDArray[np.uint8], codec: Index, silent: NDArray[np.bool_]) -> None:
        """Let the agent hear what plays, where the route says so, over `octets`, uint8[n, size], masked already."""
        for i in self._among(slots):
            playing = self._playing[int(slots[i])]
            if playing.to_agent and not silent[i]:
                part = _part(playing.audio, playing.heard, octets.shape[1])
                playing.heard += octets.shape[1]
                octets[i] = g711.encode(g711.decode(octets[i], int(codec[i])) + part * BEHIND, int(codec[i]))

    def _among(self, slots: Index) -> Index:
        """Which of `slots`, by place, anything plays in."""
        return np.flatnonzero(np.isin(slots, list(self._playing)))

    def _say(self, slot: int, size: int, due: float) -> Samples:
        """float32[size], the next of the prompt, silence after its end."""
        playing = self._playing[slot]
        part = _part(playing.audio, playing.said, size)
        playing.said += size
        playing.due = due
        if playing.said >= len(playing.audio):
            self.stop(slot)
        return part


def _part(audio: Samples, at: int, size: int) -> Samples:
    part = audio[at : at + size]
    return part if len(part) == size else np.pad(part, (0, size - len(part)))
