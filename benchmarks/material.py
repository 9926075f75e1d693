"""What the benchmarks work on: keys under every condition, recorded speech, lines that a speech codec has roughened.

Seeds and speech are split: tuning looks at `TUNE` and seeds below 1000, the tables at `FINAL` and seeds from 1000 on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from dsp import g711, keypad, synth
from mediaproxy import wav

Audio = NDArray[np.float32]
Index = NDArray[np.int64]
Range = tuple[float, float]

SOUNDS = Path("/usr/share/asterisk")
TUNE = ("en_US_f_Allison", "es_MX_f_Allison", "fr_CA_f_June")
FINAL = ("it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU")
DIGITS = np.array([keypad.KEYS.index(str(digit)) for digit in range(10)])
_ACTIVE_FRAME = 160


@dataclass(frozen=True, slots=True)
class Condition:
    """How keys come in. Levels in dBm0, the stronger tone's; twist (high over low), `snr` (pair over noise), `talk`
    (active speech over pair) in dB; times in ms; `offset` as a share of frequency; `line` a codec of `LINES`."""

    level: Range = (-25.0, -4.0)
    twist: Range = (-8.0, 6.0)
    offset: float = 0.018
    ms: Range = (40.0, 120.0)
    pause: Range = (60.0, 140.0)
    snr: float = 40.0
    hum: float | None = None
    clip: float = 0.0
    talk: float | None = None
    line: str = ""


@dataclass(frozen=True, slots=True)
class Keying:
    """audio: float32[n, length]; marks: int64[n, k, 2], samples; keys: int64[n, k], 0 to 9."""

    audio: Audio
    marks: Index
    keys: Index


def keying(condition: Condition, keys: int, seed: int, streams: int = 50, voices: tuple[str, ...] = FINAL) -> Keying:
    """Key `keys` random digits over `streams` streams, each with a level and a noise of its own."""
    rng = np.random.default_rng(seed)
    each = keys // streams
    rows = [_stream(condition, each, rng, voices) for _ in range(streams)]
    length = -(-max(len(audio) for audio, _, _ in rows) // 2400) * 2400  # whole packets of any usual size
    audio: Audio = np.zeros((streams, length), np.float32)
    for row, (samples, _, _) in zip(audio, rows, strict=True):
        row[: len(samples)] = samples
    if condition.line:
        audio = np.stack([LINES[condition.line](row) for row in audio]).astype(np.float32)
    return Keying(audio, np.stack([marks for _, marks, _ in rows]), np.stack([keys for _, _, keys in rows]))


def _stream(
    condition: Condition, each: int, rng: np.random.Generator, voices: tuple[str, ...]
) -> tuple[Audio, Index, Index]:
    keys = rng.integers(0, 10, each)
    level = rng.uniform(*condition.level)
    presses = [
        synth.Press(
            int(DIGITS[key]), rng.uniform(*condition.ms), level, rng.uniform(*condition.twist),
            rng.uniform(-condition.offset, condition.offset), rng.uniform(-condition.offset, condition.offset),
        )
        for key in keys
    ]  # fmt: skip
    tones, marks = synth.keying(presses, rng, condition.pause, 200 + rng.uniform(0, 20), noise_dbm0=-120)
    if condition.clip:
        limit = g711.amplitude(level) * 10 ** (-condition.clip / 20)
        tones = np.clip(tones, -limit, limit)
    inside = np.concatenate([tones[start:end] for start, end in marks])
    power = float(np.mean(np.square(inside)))
    audio = tones + rng.standard_normal(tones.size) * np.sqrt(power / 10 ** (condition.snr / 10))
    if condition.hum is not None:
        t = np.arange(tones.size) / 8000
        hum = np.sqrt(2 * power) * 10 ** (condition.hum / 20)
        audio = audio + hum * np.sin(2 * np.pi * rng.choice([50, 60]) * t + rng.uniform(0, 6))
    if condition.talk is not None:
        voice = speech(voices)
        at = int(rng.integers(0, len(voice) - tones.size))
        audio = audio + voice[at : at + tones.size] * np.sqrt(power * 10 ** (condition.talk / 10))
    return audio.astype(np.float32), marks, keys


@cache
def speech(voices: tuple[str, ...]) -> Audio:
    """float32[n], 8 kHz: all recorded prompts of `voices` without their pauses, each at an active level (RMS) of 1."""
    parts = []
    for samples in prompts(voices):
        frames = samples[: len(samples) // _ACTIVE_FRAME * _ACTIVE_FRAME].reshape(-1, _ACTIVE_FRAME)
        energy = np.square(frames).mean(axis=1)
        active = frames[energy > energy.max() / 1e3] if len(frames) else frames
        if active.size:
            parts.append(active.ravel() / np.sqrt(np.mean(np.square(active))))
    return np.concatenate(parts)


def prompts(voices: tuple[str, ...]) -> list[Audio]:
    """Every recorded prompt of `voices` as it is (Debian: asterisk-core-sounds-*-wav)."""
    found = []
    for voice in voices:
        paths = sorted(p for p in (SOUNDS / "sounds" / voice).rglob("*.wav") if "silence" not in p.parts)
        if not paths:
            sys.exit(f"the prompts of {voice} are not installed: make peers")
        found += [wav.read(path)[0][0] for path in paths]
    return found


def music() -> list[Audio]:
    """Hold music (Debian: asterisk-moh-opsound-wav)."""
    paths = sorted((SOUNDS / "moh").glob("*.wav"))
    if not paths:
        sys.exit("the hold music is not installed: make peers")
    return [wav.read(path)[0][0] for path in paths]


def _aligned(coded: Audio, original: Audio) -> Audio:
    """`coded` moved to where it matches `original` best, as long as that."""
    n = min(len(coded), len(original), 1 << 16)
    spectrum = np.conj(np.fft.rfft(original[:n], 2 * n)) * np.fft.rfft(coded[:n], 2 * n)
    lag = int(np.argmax(np.fft.irfft(spectrum)[:1000]))
    out = np.zeros_like(original)
    piece = coded[lag : lag + len(out)]
    out[: len(piece)] = piece
    return out


def gsm(audio: Audio) -> Audio:
    """Through GSM full rate (sox)."""
    raw = ["-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-c", "1", "-"]
    coded = g711.to_int16(audio).astype("<i2").tobytes()
    for command in (["sox", *raw, "-t", "gsm", "-"], ["sox", "-t", "gsm", "-r", "8000", "-c", "1", "-", *raw]):
        coded = subprocess.run(command, input=coded, capture_output=True, check=True).stdout
    return _aligned((np.frombuffer(coded, "<i2") / 32768).astype(np.float32), audio)


def _pyav(audio: Audio, encoder: str, decoder: str, rate: int, bits: int) -> Audio:
    import av
    from scipy.signal import resample_poly

    up = rate // 8000
    samples = g711.to_int16(resample_poly(audio, up, 1).astype(np.float32) if up > 1 else audio)
    coder = cast(av.AudioCodecContext, av.CodecContext.create(encoder, "w"))
    coder.sample_rate, coder.layout, coder.format, coder.bit_rate = rate, "mono", "s16", bits
    if encoder == "libopus":
        coder.options = {"application": "voip", "frame_duration": "20"}
    coder.open()
    reader = cast(av.AudioCodecContext, av.CodecContext.create(decoder, "r"))
    reader.sample_rate, reader.layout = rate, "mono"
    if coder.extradata:
        reader.extradata = coder.extradata
    size, heard = coder.frame_size or 160, []
    for at in range(0, len(samples) - size + 1, size):
        frame = av.AudioFrame.from_ndarray(samples[None, at : at + size], format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, at
        for packet in coder.encode(frame):
            for piece in reader.decode(packet):
                values = piece.to_ndarray().ravel()
                heard.append(values if values.dtype.kind == "f" else values / 32768)
    coded = np.concatenate(heard).astype(np.float32)
    return _aligned((resample_poly(coded, 1, up) if up > 1 else coded), audio)


def mp3(audio: Audio) -> Audio:
    """Through MP3 at 32 kbit/s, 8 kHz."""
    return _pyav(audio, "libmp3lame", "mp3float", 8000, 32000)


LINES: dict[str, Callable[[Audio], Audio]] = {
    "GSM-FR": gsm,
    "AMR 4.75": partial(_pyav, encoder="libopencore_amrnb", decoder="amrnb", rate=8000, bits=4750),
    "AMR 7.95": partial(_pyav, encoder="libopencore_amrnb", decoder="amrnb", rate=8000, bits=7950),
    "AMR 12.2": partial(_pyav, encoder="libopencore_amrnb", decoder="amrnb", rate=8000, bits=12200),
    "Opus 12k": partial(_pyav, encoder="libopus", decoder="libopus", rate=48000, bits=12000),
    "Opus 16k": partial(_pyav, encoder="libopus", decoder="libopus", rate=48000, bits=16000),
    "Opus 24k": partial(_pyav, encoder="libopus", decoder="libopus", rate=48000, bits=24000),
}
"""Speech codecs between the caller and the carrier, by name; each takes and gives float32[n] at 8 kHz, aligned."""
