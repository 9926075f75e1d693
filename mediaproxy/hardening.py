"""What each process does to itself before it touches a call: no core dumps, not dumpable, no new privileges, a
scrubbed environment, and for those that hold keys no swap."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT, _MCL_FUTURE = 1, 2
_LEAKY = ("SSLKEYLOGFILE", "PYTHONDEVMODE", "PYTHONTRACEMALLOC", "PYTHONFAULTHANDLER", "PYTHONINSPECT")
"""SSLKEYLOGFILE makes TLS keys readable; the others print or keep more than they should."""


def harden(lock_memory: bool = False) -> list[str]:
    """Harden this process; return warnings, each a word that the log may carry."""
    warnings: list[str] = []
    for name in _LEAKY:
        os.environ.pop(name, None)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.tracebacklimit = 20
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        warnings.append("dumpable")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        warnings.append("new-privileges")
    if lock_memory and libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) != 0:
        warnings.append("memory-not-locked")
    return warnings


def die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process when the supervisor, process `parent`, ends, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def swap_is_on() -> bool:
    """Whether memory may be written to a disk."""
    try:
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    except OSError:
        return False
