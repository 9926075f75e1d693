"""Audio files as blocks of 8000 Hz, whatever they were: by PyAV (FFmpeg), one block at a time, so that a file of hours
costs no more memory than one of minutes."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from typing import Any, Final

import av
import av.error
import av.logging
import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.float32]

RATE: Final = 8000
LOWEST_RATE: Final = 4000
"""Hz: the highest tone of a key is at 1633."""
MOST_CHANNELS: Final = 64
LONGEST: Final = 7 * 86_400
"""Seconds of audio in one file, after which it is not looked at any further."""

av.logging.set_level(None)  # FFmpeg would write to the terminal what it thinks of a file


class Unreadable(Exception):
    """No audio can be got out of the file; the text says why, for a person."""


class Source:
    """One audio file. `blocks` gives its audio; afterwards `seconds`, `reason` and the others tell what it was."""

    def __init__(self, file: BufferedReader, form: str) -> None:
        try:
            # An edit list may leave out audio that is in the file: all of it is looked at.
            options = {"ignore_editlist": "1"} if form == "mov" else {}
            self._container = av.open(file, mode="r", format=form, options=options, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError, UnicodeError) as error:
            raise Unreadable(f"cannot be opened as {form} ({_why(error)})") from None
        streams = list(self._container.streams.audio)
        if not streams:
            self._container.close()
            raise Unreadable("there is no audio in it")
        if len(streams) > MOST_CHANNELS:
            self._container.close()
            raise Unreadable(f"has more than {MOST_CHANNELS} tracks")
        self._tracks = [_Track(stream) for stream in streams if stream.codec_context is not None]
        names = sorted({track.codec for track in self._tracks})
        self.codec = "+".join(names)
        self.damaged = 0
        """Packets that could not be decoded."""
        self.reason = "" if len(self._tracks) == len(streams) else "a track's codec is not known"
        if not self._tracks:
            self._container.close()
            raise Unreadable("its codec is not known, or it is encrypted")
        self.duration = float(self._container.duration or 0) / 1e6

    @property
    def seconds(self) -> float:
        """How much audio was given out."""
        return max(track.samples for track in self._tracks) / RATE

    @property
    def channel_seconds(self) -> float:
        """The same of all channels together."""
        return sum(track.samples * track.channels for track in self._tracks) / RATE

    @property
    def channels(self) -> int:
        return sum(track.channels for track in self._tracks)

    def blocks(self) -> Iterator[tuple[tuple[int, int], Block]]:
        """((track, channel), float32[n] at 8000 Hz and full scale 1.0), a bit of each channel in turn.

        Raises Unreadable where nothing at all could be decoded.
        """
        for track, block in self._decoded():
            for channel, samples in enumerate(block):
                yield (track.index, channel), samples
            if track.samples > LONGEST * RATE:
                self.reason = f"longer than {LONGEST // 3600} h of audio: not looked at any further"
                return
        if not any(track.samples for track in self._tracks):
            raise Unreadable("no audio in it could be decoded: damaged or encrypted")
        if self.damaged and not self.reason:
            self.reason = f"damaged: {self.damaged} packet(s) could not be decoded"

    def _decoded(self) -> Iterator[tuple[_Track, Block]]:
        tracks = {track.index: track for track in self._tracks}
        try:
            for packet in self._container.demux([track.stream for track in self._tracks]):
                track = tracks[packet.stream_index]
                try:
                    frames = track.decode(packet)
                except (av.error.FFmpegError, ValueError) as error:
                    padding = 0 < packet.size < (track.stream.codec_context.codec.name == "gsm_ms") * 65
                    if not isinstance(error, av.error.EOFError) and not padding:
                        self.damaged += 1
                    continue
                for block in frames:
                    yield track, block
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self.reason = f"cut short or damaged ({_why(error)})"
        for track in self._tracks:
            try:
                rest = track.rest()
            except av.error.FFmpegError:
                self.damaged += 1
                continue
            for block in rest:
                yield track, block

    def close(self) -> None:
        self._container.close()


class _Track:
    """One audio track: packets in, blocks float32[channels, n] at 8000 Hz out."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.index: int = stream.index
        self.codec: str = stream.codec_context.name
        self.channels = 0
        self.samples = 0
        stream.thread_type = "NONE"
        self._resampler: av.AudioResampler | None = None
        self._shape: tuple[int, str, str] | None = None

    def decode(self, packet: Any) -> list[Block]:
        """Raises FFmpegError; ValueError where the audio is of a kind that cannot be looked at."""
        return [block for frame in packet.decode() for block in self._take(frame)]

    def rest(self) -> list[Block]:
        """What the resampler still holds. Raises FFmpegError."""
        if self._resampler is None:
            return []
        resampler, self._resampler = self._resampler, None
        return [self._block(frame) for frame in resampler.resample(None)]

    def _take(self, frame: Any) -> list[Block]:
        count = len(frame.layout.channels)
        if frame.sample_rate < LOWEST_RATE:
            raise ValueError("rate")
        if not self.channels:
            if count > MOST_CHANNELS:
                raise ValueError("channels")
            self.channels = count
        if count != self.channels:
            raise ValueError("channels")
        shape = (frame.sample_rate, frame.layout.name, frame.format.name)
        if shape != self._shape:
            before = self.rest()
            self._shape = shape
            fits = frame.sample_rate == RATE and frame.format.name in _SCALES
            self._resampler = None if fits else av.AudioResampler(format="fltp", rate=RATE)
            return before + self._take(frame)
        if self._resampler is None:
            return [self._block(frame)]
        return [self._block(piece) for piece in self._resampler.resample(_finite(frame))]

    def _block(self, frame: Any) -> Block:
        values = frame.to_ndarray()
        if not frame.format.is_planar:
            values = values.reshape(-1, self.channels).T
        scale = _SCALES[frame.format.name]
        block = np.asarray(values, np.float32) * np.float32(scale) if scale != 1 else np.asarray(values, np.float32)
        self.samples += block.shape[1]
        return block


def _finite(frame: Any) -> Any:
    """A frame without what is no number: a resampler would spread it over all that is near."""
    if not frame.format.name.startswith(("flt", "dbl")):
        return frame
    values = frame.to_ndarray()
    if np.isfinite(values).all():
        return frame
    clean = av.AudioFrame.from_ndarray(np.nan_to_num(values, posinf=0, neginf=0), frame.format.name, frame.layout.name)
    clean.sample_rate, clean.pts, clean.time_base = frame.sample_rate, frame.pts, frame.time_base
    return clean


_SCALES: Final = {"s16": 1 / 32768, "s16p": 1 / 32768, "flt": 1.0, "fltp": 1.0}


def _why(error: Exception) -> str:
    """The kind of an error: FFmpeg's own text may hold a part of the file."""
    if isinstance(error, av.error.InvalidDataError):
        return "damaged or cut short"
    return type(error).__name__.removesuffix("Error").lower() or "error"
