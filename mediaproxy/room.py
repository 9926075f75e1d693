"""Memory for what must not be kept: locked, left out of dumps, blank in a child, wiped and given back."""

from __future__ import annotations

import contextlib
import ctypes
import mmap

_libc = ctypes.CDLL(None)


class Room:
    """Octets of a mapping of their own: locked where the system permits (mlock(2)), never dumped, zero in a child."""

    __slots__ = ("_closed", "_map", "locked", "view")

    def __init__(self, size: int) -> None:
        self._closed = False
        self._map = mmap.mmap(-1, max(size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for advice in (mmap.MADV_DONTDUMP, getattr(mmap, "MADV_WIPEONFORK", 18)):
            with contextlib.suppress(OSError):  # an old kernel: children and dumps are ruled out in other ways too
                self._map.madvise(advice)
        start = ctypes.c_char.from_buffer(self._map)
        self.locked = _libc.mlock(ctypes.byref(start), ctypes.c_size_t(size)) == 0
        del start  # or the mapping could not be closed
        self.view = memoryview(self._map)[:size]

    def wipe(self) -> None:
        """Blank it."""
        self.view[:] = bytes(len(self.view))

    def close(self) -> None:
        """Wipe it and give it back to the system, which blanks it before anyone else gets it."""
        if not self._closed:
            self._closed = True
            self.wipe()
            self.view.release()
            with contextlib.suppress(
                BufferError
            ):  # an error on its way still looks into it: unmapped when that is over
                self._map.close()
