"""The forms of a recording's file, written as it grows: stereo of 8000 Hz as WAV (PCM or µ-law), Opus or MP3."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dsp import g711

RATE: Final = 8000
Stereo = NDArray[np.int16]
KBITS: Final = {"opus": 32, "mp3": 48}
"""Bit rates of both channels together where none is set."""


class Sink(Protocol):
    """Takes int16[n, 2] as it comes. Raises OSError where the disk does not take it."""

    def write(self, frames: Stereo) -> None: ...

    def finish(self) -> None:
        """Write what makes the file whole, and close it."""

    def close(self) -> None:
        """Close it as it is."""


def sink(form: str, file: BinaryIO, kbits: int) -> Sink:
    """The sink of a form: wav, wav-ulaw, opus or mp3."""
    if form in KBITS:
        return _Coded(form, file, kbits or KBITS[form])
    return _Wav(file, companded=form == "wav-ulaw")


class _Wav:
    """The header tells no length until the end: a file of a recorder that died can be read to where it ends."""

    def __init__(self, file: BinaryIO, companded: bool) -> None:
        self._file, self._companded = file, companded
        self._octets = 0
        file.write(self._header())

    def write(self, frames: Stereo) -> None:
        data = (
            g711.ENCODE[g711.PCMU][frames.view(np.uint16)].tobytes()
            if self._companded
            else frames.astype("<i2").tobytes()
        )
        self._file.write(data)
        self._octets += len(data)

    def finish(self) -> None:
        self._file.seek(0)
        self._file.write(self._header())
        self._file.close()

    def close(self) -> None:
        self._file.close()

    def _header(self) -> bytes:
        """RIFF with a fact chunk, which everything but PCM must have."""
        tag, width = (7, 1) if self._companded else (1, 2)
        size = min(self._octets, 0xFFFFFF00)
        return struct.pack(
            "<4sI4s4sIHHIIHHH4sII4sI", b"RIFF", 50 + size, b"WAVE", b"fmt ", 18, tag, 2, RATE, 2 * RATE * width,
            2 * width, 8 * width, 0, b"fact", 4, size // (2 * width), b"data", size,
        )  # fmt: skip


class _Coded:
    """Opus in Ogg, or MP3, by PyAV."""

    def __init__(self, form: str, file: BinaryIO, kbits: int) -> None:
        import av  # 30 MB that a recorder of WAV does without

        self._av, self._file = av, file
        self._container = av.open(file, mode="w", format="ogg" if form == "opus" else "mp3")
        name = "libopus" if form == "opus" else "libmp3lame"
        options = {"application": "audio", "vbr": "off"} if form == "opus" else {}
        stream: Any = self._container.add_stream(name, rate=RATE, layout="stereo", options=options)
        stream.bit_rate = kbits * 1000
        self._stream = stream
        self._at = 0

    def write(self, frames: Stereo) -> None:
        frame = self._av.AudioFrame.from_ndarray(
            np.ascontiguousarray(frames).reshape(1, -1), format="s16", layout="stereo"
        )
        frame.sample_rate, frame.pts = RATE, self._at
        self._at += len(frames)
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def finish(self) -> None:
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        self._file.close()

    def close(self) -> None:
        self._file.close()
