"""Formats whose audio is not G.711: what `mediaproxy.media.transcode` needs of each, by its name in SDP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mediaproxy.media.codec import g722, opus

Pcm = NDArray[np.int16]


class Encoder(Protocol):
    """One stream outwards."""

    def encode(self, pcm: Pcm) -> bytes | None:
        """A packet of int16[n] at 8 kHz; None where it cannot be one."""


class Decoder(Protocol):
    """One stream inwards."""

    def decode(self, packet: bytes) -> Pcm | None:
        """int16[n] at 8 kHz; None where it cannot be read."""

    def recover(self, packet: bytes, size: int) -> Pcm | None:
        """int16[size] of the packet before this one, which is lost; None where this one says nothing of it."""


class Coded(NamedTuple):
    """ticks: of its RTP clock for each sample at 8 kHz; encoder: made of format parameters (RFC 7587 section 6.1)."""

    ticks: int
    encoder: Callable[[dict[str, int]], Encoder]
    decoder: Callable[[], Decoder]


def _opus(parameters: dict[str, int]) -> Encoder:
    return opus.Encoder(parameters.get("maxaveragebitrate", opus.BITRATE))


CODED: Final = {
    opus.ENCODING: Coded(opus.CLOCK // 8000, _opus, opus.Decoder),
    g722.ENCODING: Coded(g722.CLOCK // 8000, lambda parameters: g722.Encoder(), g722.Decoder),
}
