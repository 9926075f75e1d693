"""What is done with a recording that has keys in it: a masked copy, and a place apart for the original."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import wave
from contextlib import suppress
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Any, Final

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from dsp import g711
from dsp.mask import FLAT_DBM0, FLAT_HZ
from mediaproxy.scan import audio, forms
from mediaproxy.scan.judge import RATE, Channel, grouped, settle
from mediaproxy.scan.look import Options, look
from mediaproxy.scan.verdict import FileVerdict

Spans = dict[int, list[tuple[float, float]]]

MARGINS: Final = (0.04, 0.12, 0.4)
"""Seconds masked beside what was found; a codec smears a key by some 25 ms. More where the copy is not clean."""
TOGETHER: Final = 1.0
"""Keys no further apart are one tone: neither their lengths nor their rhythm is left."""


LONGEST_NAME: Final = 180
"""Octets of a name without its ending: what is added to it must fit into 255."""


class CannotMask(Exception):
    """No masked copy can be made; the text says why."""


def masked_copy(path: str, folder: Path, name: str) -> tuple[Path, FileVerdict]:
    """Write a copy as 16-bit WAV of the same rate and channels, with a flat tone over what was found, and scan it.

    Returns (the copy, its verdict: clean). Raises CannotMask; a copy that is not clean does not stay.
    """
    target = _free(folder, PurePath(name).stem + ".masked.wav")
    part = target.with_name(target.name + ".part")
    try:
        with open(path, "rb") as file:
            form = forms.sniff(file.read(forms.HEAD))
            if form in ("", "pcap"):
                raise CannotMask("a masked copy is made of audio files only")
            spans = _spans(file, form)
            for margin in MARGINS:
                _write(file, form, spans, margin, part)
                verdict = look(str(part), Options(seed=None))
                if verdict.state == "clean":
                    part.rename(target)
                    return target, verdict
        raise CannotMask("the masked copy did not scan clean")
    except audio.Unreadable as error:
        raise CannotMask(str(error)) from None
    except CannotMask:
        raise
    except Exception as error:  # whatever FFmpeg and a disk can do: the scan's report must still be written
        raise CannotMask(f"cannot be made ({getattr(error, 'strerror', '') or type(error).__name__})") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _spans(file: BufferedReader, form: str) -> Spans:
    """Of each channel, (start, end) in seconds of what was found, near ones together."""
    file.seek(0)
    source = audio.Source(file, form)
    channels: dict[int, Channel] = {}
    try:
        for (_, number), block in source.blocks():
            channels.setdefault(number, Channel(None)).push(block)
    finally:
        source.close()
    spans = {}
    for number, channel in channels.items():
        channel.finish()
        keys, pieces = settle(channel.marks)
        spans[number] = [
            (run[0].start / RATE, max(mark.end for mark in run) / RATE)
            for run in grouped([*keys, *pieces], round(TOGETHER * RATE))
        ]
    return spans


def _write(file: BufferedReader, form: str, spans: Spans, margin: float, target: Path) -> None:
    file.seek(0)
    with av.open(file, mode="r", format=form, metadata_errors="replace") as container:
        streams = list(container.streams.audio)
        if len(streams) != 1:
            raise CannotMask("has several tracks of audio")
        stream = streams[0]
        rate = int(stream.codec_context.sample_rate)
        resampler = av.AudioResampler(format="s16", rate=rate)
        channels, at = 0, 0
        target.unlink(missing_ok=True)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as raw, wave.open(raw, "wb") as out:
            for frame in _frames(container, stream, resampler):
                count = len(frame.layout.channels)
                if not channels:
                    channels = count
                    out.setnchannels(count)
                    out.setsampwidth(2)
                    out.setframerate(rate)
                values = frame.to_ndarray().reshape(-1, channels).copy()
                for channel in range(channels):
                    _cover(values[:, channel], at, rate, spans.get(channel, []), margin)
                out.writeframes(values.astype("<i2").tobytes())
                at += len(values)
            if not channels:
                raise CannotMask("no audio could be decoded")


def _frames(container: Any, stream: Any, resampler: av.AudioResampler) -> Any:
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue  # as when it was scanned: `look` tells of it
        for frame in frames:
            yield from resampler.resample(frame)
    yield from resampler.resample(None)


def _cover(samples: NDArray[np.int16], at: int, rate: int, spans: list[tuple[float, float]], margin: float) -> None:
    """Put the flat tone over the parts of `samples`, which begin at `at`, that lie in a span."""
    for start, end in spans:
        first, last = round((start - margin) * rate) - at, round((end + margin) * rate) - at
        first, last = max(first, 0), min(last, len(samples))
        if first < last:
            t = np.arange(at + first, at + last) / rate
            samples[first:last] = np.rint(32767 * g711.amplitude(FLAT_DBM0) * np.sin(2 * np.pi * FLAT_HZ * t))


def quarantine(path: str, sha256: str, folder: Path, name: str) -> Path:
    """Move a file to a folder that only its owner can read, if it is still what was scanned.

    Raises OSError, whose text says why; then the file is where it was.
    """
    path = os.path.realpath(path)
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise OSError(0, "it is not what was scanned any more")
        if os.fstat(file.fileno()).st_nlink > 1:
            raise OSError(0, "it has other names (hard links), which would stay")
    target = _free(folder, f"{sha256[:16]}-{name}")
    before = os.stat(path).st_mode
    os.chmod(path, 0o600)
    try:
        try:
            os.rename(path, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(path, target, sha256)
            os.unlink(path)
    except OSError:
        os.chmod(path, before & 0o777)
        raise
    return target


def _copy(path: str, target: Path, sha256: str) -> None:
    """To another disk, readable by its owner only, and compared."""
    try:
        with open(path, "rb") as source, open(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as to:
            shutil.copyfileobj(source, to)
            to.flush()
            os.fsync(to.fileno())
            to.seek(0)
            if hashlib.file_digest(to, "sha256").hexdigest() != sha256:
                raise OSError(0, "the copy is not what was scanned")
    except OSError:
        target.unlink(missing_ok=True)
        raise


def _free(folder: Path, name: str) -> Path:
    """A name in `folder` that is not taken."""
    path = PurePath(name)
    path = path.with_stem(os.fsencode(path.stem)[:LONGEST_NAME].decode("utf-8", "ignore") or "_")
    names = (f"{path.stem}{suffix}{path.suffix}" for suffix in ("", *(f"-{i}" for i in range(2, 10_000))))
    return next(folder / each for each in names if not os.path.lexists(folder / each))
