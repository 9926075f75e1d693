"""WAV files, read whole and checked, or written as they grow."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class WavError(Exception):
    """The file is not a WAV that can be used; the text says why."""


def read(path: str | Path) -> tuple[NDArray[np.float32], int]:
    """Return (float32[channels, n] at full scale 1.0, rate) of a PCM file of 8, 16, 24 or 32 bits. Raises WavError."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, frames = (
                file.getnchannels(),
                file.getsampwidth(),
                file.getframerate(),
                file.getnframes(),
            )
            data = file.readframes(frames)
    except FileNotFoundError:
        raise WavError("no such file") from None
    except (wave.Error, EOFError, OSError) as error:
        raise WavError(f"not a PCM WAV file ({type(error).__name__})") from None
    if not channels or not rate or len(data) < frames * channels * width:
        raise WavError("the file is cut short")
    raw = np.frombuffer(data, np.uint8)
    if width == 1:
        samples = (raw.astype(np.float32) - 128) / 128
    elif width == 2:
        samples = raw.view("<i2").astype(np.float32) / 32768
    else:
        wide = raw.reshape(-1, width)[:, -4:].astype(np.int32)
        value = sum(wide[:, i] << 8 * (i + 4 - wide.shape[1]) for i in range(wide.shape[1]))
        samples = (np.asarray(value, np.int64).astype(np.int32) / np.float32(2**31)).astype(np.float32)
    return np.asarray(samples.reshape(-1, channels).T, np.float32), rate


def write(path: str | Path, samples: NDArray[np.int16], rate: int = 8000) -> None:
    """Write int16[n] or int16[channels, n] as 16-bit PCM."""
    frames = np.atleast_2d(samples).T
    with wave.open(str(path), "wb") as file:
        file.setnchannels(frames.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(frames, "<i2").tobytes())
