"""Opus (RFC 6716, RFC 7587): mono at 8 kHz, through the libopus that PyAV brings.

PyAV's own codec decodes at 48 kHz only, conceals nothing and makes packets of one length; libopus itself takes 8 kHz,
any multiple of 2.5 ms, and costs half as much. Its file lies beside PyAV (or is the system's, where PyAV was built on
it); the functions used have been the same since libopus 1.1.
"""

from __future__ import annotations

import ctypes.util
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from cffi import FFI
from numpy.typing import NDArray

ENCODING: Final = "opus/48000"
CLOCK: Final = 48_000
"""Of its timestamps, whatever the rate of the audio (RFC 7587 section 4.1)."""
RATE: Final = 8000
BITRATE: Final = 24_000
"""Bits a second: good for narrowband speech with FEC (RFC 7587 section 3.1.1 has 8 to 12 without)."""
LEAST_BITRATE: Final = 8000
LONGEST: Final = 960
"""Samples of a packet: 120 ms (RFC 6716 section 3.2)."""
_FRAMES: Final = frozenset((20, 40, 80, 160, 320, 480))
"""Samples that a frame can have (RFC 6716 section 2.1.4)."""
_VOIP, _OK = 2048, 0
_SET_BITRATE, _SET_VBR, _SET_COMPLEXITY, _SET_FEC = 4002, 4006, 4010, 4012
"""Numbers of opus_defines.h."""
_COMPLEXITY: Final = 1
"""Of 0 to 10. At 8 kHz and 24 kbit/s 1 takes 70 µs a packet of 20 ms and PESQ says 4.41; 5 takes 171 and has 4.43, 10
takes 211 and has 4.43 (recorded prompts)."""

_DECLARED: Final = """
    void *opus_encoder_create(int32_t rate, int channels, int application, int *error);
    void opus_encoder_destroy(void *state);
    int opus_encoder_ctl(void *state, int request, ...);
    int32_t opus_encode(void *state, const int16_t *pcm, int size, unsigned char *data, int32_t most);
    void *opus_decoder_create(int32_t rate, int channels, int *error);
    void opus_decoder_destroy(void *state);
    void *opus_repacketizer_create(void);
    void opus_repacketizer_destroy(void *state);
    void *opus_repacketizer_init(void *state);
    int opus_repacketizer_cat(void *state, const unsigned char *data, int32_t length);
    int32_t opus_repacketizer_out(void *state, unsigned char *data, int32_t most);
    int opus_packet_pad(unsigned char *data, int32_t length, int32_t most);
    int opus_decode(void *state, const unsigned char *data, int32_t length, int16_t *pcm, int size, int fec);
    """


_ffi = FFI()


@cache
def _library() -> Any:
    """libopus, loaded with the first leg that needs it: a worker that starts anew is back sooner without."""
    _ffi.cdef(_DECLARED)
    spec = find_spec("av")
    beside = sorted(Path(spec.origin).parent.parent.glob("av.libs/libopus-*.so*")) if spec and spec.origin else []
    name = str(beside[0]) if beside else ctypes.util.find_library("opus")
    if name is None:
        raise ImportError("libopus is neither beside PyAV nor on the system")
    return _ffi.dlopen(name)


class Encoder:
    """One stream. Every packet of one length in time has one length in octets (hard CBR, never DTX): what is said, or
    keyed, does not show in its size. Packets of a length that Opus has no frame for are several frames.

    No packet repeats the one before (FEC, which a peer may do without: RFC 7587 section 7): in packets of one size that
    takes so much from what is said that steady tones come out up to four times as loud, or not at all (libopus 1.6.1,
    from complexity 2 on, in packets of 20 and 60 ms).

    most: bits a second that the peer takes (maxaveragebitrate).
    """

    def __init__(self, most: int = BITRATE) -> None:
        self._lib = _library()
        error = _ffi.new("int *")
        state = self._lib.opus_encoder_create(RATE, 1, _VOIP, error)
        if error[0] != _OK:
            raise MemoryError("no Opus encoder")
        self._state = _ffi.gc(state, self._lib.opus_encoder_destroy)
        self._rate = min(max(most, LEAST_BITRATE), BITRATE)
        for request, value in (
            (_SET_BITRATE, self._rate), (_SET_VBR, 0), (_SET_COMPLEXITY, _COMPLEXITY), (_SET_FEC, 0),
        ):  # fmt: skip
            self._lib.opus_encoder_ctl(self._state, request, _ffi.cast("int", value))
        self._out = _ffi.new("unsigned char[1276]")
        self._join = _ffi.gc(self._lib.opus_repacketizer_create(), self._lib.opus_repacketizer_destroy)

    def encode(self, pcm: NDArray[np.int16]) -> bytes | None:
        """A packet of int16[n]; None where n is no multiple of 2.5 ms, or too long."""
        size = len(pcm)
        if size in _FRAMES:
            return self._frame(pcm)
        part = next((s for s in sorted(_FRAMES, reverse=True) if size % s == 0), 0)
        if not part or not 0 < size <= LONGEST:
            return None
        join = self._lib.opus_repacketizer_init(self._join)
        frames = [self._frame(pcm[at : at + part]) for at in range(0, size, part)]  # kept: it holds on to them
        if any(frame is None or self._lib.opus_repacketizer_cat(join, frame, len(frame)) != _OK for frame in frames):
            return None
        whole = self._octets(size)
        length = self._lib.opus_repacketizer_out(join, self._out, whole)
        if length <= 0 or self._lib.opus_packet_pad(self._out, length, whole) != _OK:
            return None
        return bytes(_ffi.buffer(self._out, whole))

    def _octets(self, size: int) -> int:
        """What every packet of so many samples comes to."""
        return self._rate * size // (8 * RATE)

    def _frame(self, pcm: NDArray[np.int16]) -> bytes | None:
        pcm = np.ascontiguousarray(pcm, np.int16)
        most = self._octets(len(pcm))
        length = self._lib.opus_encode(self._state, _ffi.cast("int16_t *", pcm.ctypes.data), len(pcm), self._out, most)
        return bytes(_ffi.buffer(self._out, length)) if length > 0 else None


def _repeated(packet: bytes) -> int:
    """Samples of the packet before that this one repeats; 0: none (RFC 6716 sections 3.1, 4.2.3 and 4.2.4). Of packets
    of several frames only those of two equal ones are looked into."""
    if len(packet) < 3 or packet[0] & 7 > 1 or packet[0] >> 3 > 15:  # mono, one frame or two alike, not of CELT alone
        return 0
    mode = packet[0] >> 3
    ms = (10, 20, 40, 60)[mode & 3] if mode < 12 else (10, 20)[mode & 1]
    spoken = max(ms // 20, 1)  # flags of voice activity come first
    return RATE // 1000 * ms if packet[1] >> 7 - spoken & 1 else 0


class Decoder:
    """One stream."""

    def __init__(self) -> None:
        self._lib = _library()
        error = _ffi.new("int *")
        state = self._lib.opus_decoder_create(RATE, 1, error)
        if error[0] != _OK:
            raise MemoryError("no Opus decoder")
        self._state = _ffi.gc(state, self._lib.opus_decoder_destroy)
        self._pcm = np.zeros(LONGEST, np.int16)
        self._at = _ffi.cast("int16_t *", self._pcm.ctypes.data)

    def decode(self, packet: bytes) -> NDArray[np.int16] | None:
        """int16[n] at 8 kHz, None where it cannot be read."""
        return self._run(packet, LONGEST, 0)

    def recover(self, packet: bytes, size: int) -> NDArray[np.int16] | None:
        """int16[size]: what was in the packet before `packet`, which never came; None where that is not told. libopus
        would make something up there, which would make a tone longer than it was."""
        return self._run(packet, size, 1) if size == _repeated(packet) else None

    def _run(self, packet: bytes, size: int, fec: int) -> NDArray[np.int16] | None:
        found = self._lib.opus_decode(self._state, packet, len(packet), self._at, size, fec) if packet else -1
        return self._pcm[:found].copy() if found > 0 else None
