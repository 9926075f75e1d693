"""Processes that look through files, one file at a time each: a file that crashes FFmpeg takes down one process, which
is started anew, and is told of by name."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Generator, Iterable
from multiprocessing.connection import Connection, wait
from typing import Final

from mediaproxy.printable import shown
from mediaproxy.scan.look import Options, look
from mediaproxy.scan.verdict import FileVerdict

LONGEST: Final = 300.0
SLOWEST: Final = 100_000
"""Seconds that a file may take, and one more for so many octets: an hour of MP3 at 8 kbit/s (3.6 MB) takes two."""
MEMORY: Final = 4 << 30
"""Octets that a process may map; in use are 150 MB (benchmarks.scan)."""
_context = multiprocessing.get_context("spawn")


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def run(paths: Iterable[str], options: Options, workers: int) -> Generator[FileVerdict]:
    """Verdicts, in the order in which they come."""
    todo = iter(paths)
    idle = [_Worker(options) for _ in range(workers)]
    busy: dict[Connection, _Worker] = {}
    try:
        while True:
            while idle and (path := next(todo, None)) is not None:
                worker = idle.pop()
                worker.begin(path)
                busy[worker.near] = worker
            if not busy:
                return
            ready = wait(list(busy), timeout=1.0)
            late = [near for near, worker in busy.items() if worker.late and near not in ready]
            for near in (*ready, *late):
                assert isinstance(near, Connection)
                worker = busy.pop(near)
                if near in late:
                    worker.kill()
                    yield FileVerdict(
                        shown(worker.path), "unreadable", f"took longer than {worker.allowed:.0f} s to read"
                    )
                    idle.append(_Worker(options))
                    continue
                verdict = worker.end()
                if not worker.alive:
                    worker.kill()
                    worker = _Worker(options)
                idle.append(worker)
                yield verdict
    finally:
        for worker in (*idle, *busy.values()):
            worker.kill()


class _Worker:
    def __init__(self, options: Options) -> None:
        self.near, far = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(far, options), daemon=True)
        self._process.start()
        far.close()
        self.alive = True
        self.path = ""
        self.allowed = self._until = 0.0

    @property
    def late(self) -> bool:
        return time.monotonic() > self._until

    def begin(self, path: str) -> None:
        self.path = path
        size = os.path.getsize(path) if os.path.isfile(path) else 1 << 30
        self.allowed = LONGEST + size / SLOWEST
        self._until = time.monotonic() + self.allowed
        try:
            self.near.send(path)
        except OSError:  # died since: `end` tells
            return

    def end(self) -> FileVerdict:
        try:
            verdict = self.near.recv()
            assert isinstance(verdict, FileVerdict)
        except (EOFError, OSError):
            self.alive = False
            self._process.join()
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return FileVerdict(shown(self.path), "unreadable", f"the process that read it ended ({how})")
        return verdict

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.near.close()


def _serve(far: Connection, options: Options) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # a file that asks for more is unreadable, not the scan
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold the tones of keys
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it says when to stop
    while True:
        try:
            path = far.recv()
        except EOFError:
            return
        far.send(look(path, options))
