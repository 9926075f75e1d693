"""G.722 (ITU-T G.722, RFC 3551 section 4.5.2): 16 kHz in 64 kbit/s, through PyAV, with narrowband audio at this side.

Its RTP clock is 8 kHz by an old mistake that everybody keeps, so an octet is a sample of the audio here.

PyAV is loaded with the first leg that needs it: a worker that starts anew is back sooner without.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ENCODING: Final = "G722/8000"
CLOCK: Final = 8000
_UNIT: Final = 80
"""Samples that are coded at once."""
_TAPS: Final = 48
_AHEAD: Final = np.sinc((np.arange(_TAPS) - (_TAPS - 1) / 2) / 2) * np.kaiser(_TAPS, 7.0) / 2
"""Half-band low-pass at 16 kHz, -6 dB at 4 kHz, more than 60 dB down from 4.6 kHz; 1.5 ms of delay."""
_FILTER: Final = (_AHEAD / _AHEAD.sum()).astype(np.float32)


class Encoder:
    """One stream."""

    def __init__(self) -> None:
        import av

        self._frame = av.AudioFrame.from_ndarray
        self._codec: Any = av.CodecContext.create("g722", "w")
        self._codec.sample_rate, self._codec.layout, self._codec.format = 16_000, "mono", "s16"
        self._codec.options = {"frame_size": str(2 * _UNIT)}
        self._codec.open()
        self._past = np.zeros(_TAPS - 1, np.float32)

    def encode(self, pcm: NDArray[np.int16]) -> bytes | None:
        """uint8[n] of int16[n] at 8 kHz; None where n is no multiple of 10 ms."""
        if not len(pcm) or len(pcm) % _UNIT:
            return None
        wide = np.zeros(2 * len(pcm), np.float32)
        wide[::2] = pcm
        line = np.concatenate([self._past, wide])
        self._past = line[-(_TAPS - 1) :]
        out = np.clip(np.rint(2 * np.convolve(line, _FILTER, "valid")), -32768, 32767).astype(np.int16)
        frame = self._frame(out[None, :], format="s16", layout="mono")
        frame.sample_rate = 16_000
        return b"".join(bytes(packet) for packet in self._codec.encode(frame)) or None


class Decoder:
    """One stream."""

    def __init__(self) -> None:
        import av

        self._packet, self._error = av.Packet, av.FFmpegError
        self._codec: Any = av.CodecContext.create("g722", "r")
        self._codec.sample_rate, self._codec.layout = 16_000, "mono"
        self._past = np.zeros(_TAPS - 1, np.float32)

    def decode(self, packet: bytes) -> NDArray[np.int16] | None:
        """int16[n] at 8 kHz of uint8[n]; None of nothing."""
        try:
            frames = self._codec.decode(self._packet(packet)) if packet else []  # FFmpeg takes nothing for the end
        except self._error:
            return None
        if not frames:
            return None
        wide = np.concatenate([frame.to_ndarray().ravel() for frame in frames]).astype(np.float32)
        line = np.concatenate([self._past, wide])
        self._past = line[-(_TAPS - 1) :]
        out = np.convolve(line, _FILTER, "valid")[::2]
        return np.clip(np.rint(out), -32768, 32767).astype(np.int16)

    def recover(self, packet: bytes, size: int) -> NDArray[np.int16] | None:
        """G.722 says nothing of what was lost."""
        return None
