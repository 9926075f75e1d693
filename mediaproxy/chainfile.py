"""Files of chained lines (`mediaproxy.chain`) that one process writes, and the ends of chains sent to syslog."""

from __future__ import annotations

import bz2
import fcntl
import gzip
import lzma
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mediaproxy import chain, log
from mediaproxy.config import endpoint

TAIL: Final = 65_536
"""Octets at the end of a file that hold its last line."""
_FACILITY_NOTICE: Final = 13 * 8 + 5
"""RFC 5424 6.2.1: log audit, notice."""


_OPENERS: Final[dict[str, Callable[..., Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
LONGEST_LINE: Final = 1 << 20


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a chained file as it is written or moved away, also packed.

    Raises OSError, EOFError, lzma.LZMAError, zlib.error.
    """
    with _OPENERS.get(path.suffix, open)(path, "rb") as file:
        while line := file.readline(LONGEST_LINE):
            yield line


class ChainFile:
    """One file, open for more; goes on with a file of the same name that was moved away, like audit.jsonl.1.

    Raises OSError where it cannot be opened or another process has it, chain.Broken where its last line was altered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two writers would fork the chain
            self.torn = self._cut_torn_line()
            self.link, self.last = _end(os.pread(self._fd, TAIL, max(os.fstat(self._fd).st_size - TAIL, 0)))
            if not self.link.seq:
                self.link, self.last = _end_of_moved(path)
        except (OSError, chain.Broken):
            self.close()
            raise

    def write(self, entry: Mapping[str, object]) -> bytes:
        """Append a line; returns it. Raises OSError, and then nothing of it is left."""
        line, link = chain.append(self.link, entry)
        size = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) != len(line):
                raise OSError("disk full")
        except OSError:
            os.ftruncate(self._fd, size)
            raise
        self.link, self.last = link, line
        return line

    def moved(self) -> bool:
        """Whether another file, or none, has the name now (logrotate)."""
        try:
            return os.stat(self.path).st_ino != os.fstat(self._fd).st_ino
        except OSError:
            return True

    def close(self) -> None:
        os.close(self._fd)

    def _cut_torn_line(self) -> bool:
        """What was being written when the machine stopped is no line, and what it told of was not done."""
        size = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, TAIL, max(size - TAIL, 0))
        whole = size - len(tail) + tail.rfind(b"\n") + 1
        if whole != size and (b"\n" in tail or len(tail) == size):  # what is longer than any line is something else
            os.ftruncate(self._fd, whole)
        return whole != size


def _end(tail: bytes) -> tuple[chain.Link, bytes]:
    """(place of the last line, the line) of what a file ends with. Raises chain.Broken."""
    line = tail.rstrip(b"\n").rpartition(b"\n")[2]
    return (chain.read(line)[1], line) if line else (chain.Link(), b"")


def _end_of_moved(path: Path) -> tuple[chain.Link, bytes]:
    """Likewise, of files that were moved away while nobody wrote."""
    ends = [(chain.Link(), b"")]
    for moved in path.parent.glob(f"{path.name}[.-]*"):
        try:
            with moved.open("rb") as file:
                file.seek(max(moved.stat().st_size - TAIL, 0))
                ends.append(_end(file.read()))
        except (OSError, chain.Broken):
            continue  # compressed, or none of ours
    return max(ends, key=lambda end: end[0].seq)


class Syslog:
    """Sends ends of chains (RFC 5424). What nobody takes is lost there, and not here."""

    def __init__(self, where: str) -> None:
        """where: the path of a socket, or address:port."""
        path = where.startswith("/")
        self._to: str | tuple[str, int] = where if path else endpoint(where, "syslog")
        family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in self._to[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._host = socket.gethostname()

    def close(self) -> None:
        self._socket.close()

    def send(self, which: str, link: chain.Link) -> None:
        """Send the end of the chain that is called `which`."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = f"<{_FACILITY_NOTICE}>1 {at} {self._host} flattone {os.getpid()} anchor - {chain.anchor(which, link)}"
        try:
            self._socket.sendto(text.encode(), self._to)
        except OSError as error:
            log.get().error("audit-not-anchored", error=type(error).__name__)
