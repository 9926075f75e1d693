"""The forms of a recording's file, written as it grows: stereo of 8000 Hz as WAV (PCM or µ-law), Opus or MP3."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dsp import g711

RATE: Final = 8000
Stereo = NDArray[np.int16]
_HEADER: Final = "<4sI4s4sIHHIIHHH4sII4sI"
"""RIFF, a format of 18 octets, a fact chunk (which all but PCM must have), and the head of the data."""
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
        tag, width = (7, 1) if self._companded else (1, 2)
        size = min(self._octets, 0xFFFFFF00)
        return struct.pack(
            _HEADER, b"RIFF", 50 + size, b"WAVE", b"fmt ", 18, tag, 2, RATE, 2 * RATE * width,
            2 * width, 8 * width, 0, b"fact", 4, size // (2 * width), b"data", size,
        )  # fmt: skip


def complete(path: Path) -> float:
    """Put the length of what is there into the header of a WAV file that was not finished; returns it in seconds.

    Raises OSError, also where it is no file of ours.
    """
    head = struct.calcsize(_HEADER)
    with path.open("r+b") as file:
        written = file.read(head)
        if len(written) < head or written[-8:-4] != b"data":
            raise OSError(0, "has no header of ours")
        frame = int.from_bytes(written[32:34], "little")
        frames = (path.stat().st_size - head) // frame
        size = frames * frame
        file.truncate(head + size)
        for at, value in ((4, head - 8 + size), (head - 12, frames), (head - 4, size)):
            file.seek(at)
            file.write(min(value, 0xFFFFFFFF).to_bytes(4, "little"))
    return frames / RATE


class _Coded:
    """Opus in Ogg, or MP3, by PyAV."""

    def __init__(self, form: str, file: BinaryIO, kbits: int) -> None:
        import av  # 17 MB that a recorder of WAV does without

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
