"""G.711 µ-law and A-law as tables (ITU-T G.711), and the level scale that goes with them.

Linear audio is float32 with full scale 1.0 = 32768. 0 dBm0 is the sine whose peak lies 3.17 dB (µ-law) below the
largest code (G.711 section 3); the same reference serves A-law here (3.14 dB there).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dsp import kernel

Octets = NDArray[np.uint8]
Samples = NDArray[np.float32]

PCMU: Final = 0
PCMA: Final = 1
"""Codec numbers inside this project (not RTP payload types): rows of the stacked tables below."""


def _decode_ulaw() -> NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.uint8)
    exponent = (code >> 4 & 7).astype(np.int32)
    mantissa = (code & 15).astype(np.int32)
    magnitude = ((mantissa << 3) + 132 << exponent) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _decode_alaw() -> NDArray[np.int16]:
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent = (code >> 4 & 7).astype(np.int32)
    mantissa = (code & 15).astype(np.int32)
    magnitude = np.where(exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 264) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _encoder(decoder: NDArray[np.int16]) -> Octets:
    """Return uint8[65536]: the code nearest to each int16 value (index: value & 0xFFFF)."""
    values, first = np.unique(decoder[::-1], return_index=True)  # the later of two zeros: the idle code
    levels = values.astype(np.float64)
    midpoints = (levels[1:] + levels[:-1]) / 2
    linear = np.arange(65536, dtype=np.uint16).view(np.int16)
    return (255 - first[np.searchsorted(midpoints, linear)]).astype(np.uint8)


DECODE_INT16: Final = np.stack([_decode_ulaw(), _decode_alaw()])
"""int16[2, 256]: linear value of each code, by codec number."""
DECODE: Final = (DECODE_INT16 / np.float32(32768)).astype(np.float32)
"""float32[2, 256]: the same at full scale 1.0."""
ENCODE: Final = np.stack([_encoder(DECODE_INT16[PCMU]), _encoder(DECODE_INT16[PCMA])])
"""uint8[2, 65536]: code of each int16 value, by codec number."""
TRANSCODE: Final = np.stack([ENCODE[1 - codec][DECODE_INT16[codec].view(np.uint16)] for codec in (PCMU, PCMA)])
"""uint8[2, 256]: the other law's code for each code of `codec`."""
SILENCE: Final = np.array([0xFF, 0xD5], np.uint8)
"""The idle code of each law."""

AMPLITUDE_0DBM0: Final = float(DECODE_INT16[PCMU].max()) / 32768 / 10 ** (3.17 / 20)
"""Peak amplitude of a 0 dBm0 sine (G.711 table 5)."""


def amplitude(dbm0: float) -> float:
    """Return the peak amplitude (full scale 1.0) of a sine at `dbm0`."""
    return AMPLITUDE_0DBM0 * float(10 ** (dbm0 / 20))


def to_int16(samples: Samples) -> NDArray[np.int16]:
    """Return int16 of `samples` (any shape, full scale 1.0), clipped; what is not a number becomes 0."""
    scaled = np.asarray(samples, np.float32) * np.float32(32768)
    np.clip(scaled, -32768, 32767, out=scaled)
    if scaled.size and np.isnan(scaled.min()):
        np.nan_to_num(scaled, copy=False)
    return np.asarray(np.rint(scaled, out=scaled), np.int16)


def encode(samples: Samples, codec: int) -> Octets:
    """Return uint8 codes of `samples` (any shape, float32, full scale 1.0)."""
    return np.asarray(ENCODE[codec][to_int16(samples).view(np.uint16)], np.uint8)


_DECODE_FLAT: Final = DECODE.ravel()
_PAIRS: Final = np.concatenate([row[np.arange(65536, dtype=np.uint16).view(np.uint8)] for row in DECODE]).view(
    np.float64
)
"""float64[2 * 65536], in truth two float32 each: what two octets in a row decode to, in half the steps."""


def linear(octets: Octets, codec: NDArray[np.intp], out: Samples) -> None:
    """Decode uint8[n, length] of codecs int[n] into float32[n, length], the fast way for blocks of many streams."""
    if kernel.COMPILED:
        kernel.linear(octets, codec, DECODE, out)
        return
    pairs = octets.shape[1] % 2 == 0
    index = (octets.view(np.uint16) if pairs else octets).astype(np.intp)
    if codec.any():
        index += codec[:, None] << (16 if pairs else 8)
    if pairs:
        _PAIRS.take(index, out=out.view(np.float64), mode="clip")
    else:
        _DECODE_FLAT.take(index, out=out, mode="clip")


_ENCODE_FLAT: Final = ENCODE.ravel()


def encode_rows(samples: Samples, codec: NDArray[np.intp]) -> Octets:
    """uint8[n, length] of float32[n, length] in codecs int[n]."""
    index = to_int16(samples).view(np.uint16).astype(np.intp)
    if codec.any():
        index += codec[:, None] << 16
    return np.asarray(_ENCODE_FLAT.take(index, mode="clip"), np.uint8)


def decode(octets: Octets, codec: int) -> Samples:
    """Return float32 (full scale 1.0) of `octets` (any shape, uint8)."""
    return np.asarray(DECODE[codec][octets], np.float32)
