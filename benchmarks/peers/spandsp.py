"""spandsp's DTMF receiver (LGPL), by ctypes. Debian: libspandsp2."""

from __future__ import annotations

import ctypes
import ctypes.util

import numpy as np
from numpy.typing import NDArray

FRAME = 160


def library() -> ctypes.CDLL:
    """Load it. Raises OSError where it is missing."""
    name = ctypes.util.find_library("spandsp")
    if name is None:
        raise OSError("libspandsp is not installed: make peers")
    spandsp = ctypes.CDLL(name)
    spandsp.dtmf_rx_init.restype = ctypes.c_void_p
    spandsp.dtmf_rx_init.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    spandsp.dtmf_rx.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    spandsp.dtmf_rx_get.restype = ctypes.c_size_t
    spandsp.dtmf_rx_get.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    spandsp.dtmf_rx_free.argtypes = [ctypes.c_void_p]
    return spandsp


def decode(samples: NDArray[np.int16]) -> str:
    """The keys that spandsp hears in int16[n] at 8 kHz, fed in frames of 20 ms."""
    spandsp = library()
    receiver = spandsp.dtmf_rx_init(None, None, None)
    buffer, keys = ctypes.create_string_buffer(129), []
    audio = np.ascontiguousarray(np.concatenate([samples, np.zeros(1600, np.int16)]))
    for at in range(0, len(audio), FRAME):
        piece = audio[at : at + FRAME]
        spandsp.dtmf_rx(receiver, piece.ctypes.data, len(piece))
        count = spandsp.dtmf_rx_get(receiver, buffer, 128)
        keys.append(buffer.raw[:count].decode("ascii"))
    spandsp.dtmf_rx_free(receiver)
    return "".join(keys)


def run(samples: NDArray[np.int16], receiver: int, spandsp: ctypes.CDLL) -> None:
    """Feed int16[n] in one call, for timing: no cost of ctypes a frame."""
    spandsp.dtmf_rx(receiver, samples.ctypes.data, len(samples))
