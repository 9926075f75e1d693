"""The audit log: who did what, when, with what result. Chained lines (`mediaproxy.chain`), a file a tenant, and the
number and hash of each line to syslog, where somebody else keeps them. No digits: names, ids, words of closed lists.

An action that cannot be written down is not done, but for those that make a call safer.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from mediaproxy import __version__, chain, log
from mediaproxy.config import Config, endpoint

SYSTEM: Final = "flattone"
"""Who did it, where nobody did."""
_FACILITY_NOTICE: Final = 13 * 8 + 5
"""RFC 5424 6.2.1: log audit, notice."""
_TAIL: Final = 65_536
"""Octets at the end of a file that hold its last line."""
_LATE: Final = 4 << 20
"""Octets at its end in which the ends of captures are looked for that the vault tells of again (ten minutes' worth)."""
_SEQ: Final = re.compile(rb'\{"seq":(\d{1,15}),')


class Unwritten(Exception):
    """The line could not be written."""


class _File:
    """One chained file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two writers would fork the chain
            self.torn = self._cut_torn_line()
            self.link, self.configuration = _end(os.pread(self._fd, _TAIL, max(os.fstat(self._fd).st_size - _TAIL, 0)))
            if not self.link.seq:
                self.link, self.configuration = _end_of_moved(path)
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
        self.link = link
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
        tail = os.pread(self._fd, _TAIL, max(size - _TAIL, 0))
        whole = size - len(tail) + tail.rfind(b"\n") + 1
        if whole != size and (b"\n" in tail or len(tail) == size):  # what is longer than any line is something else
            os.ftruncate(self._fd, whole)
        return whole != size


class _Known(msgspec.Struct):
    configuration: str = ""


def _end(tail: bytes) -> tuple[chain.Link, str]:
    """(last line, the configuration it was written under) of what a file ends with. Raises chain.Broken."""
    line = tail.rstrip(b"\n").rpartition(b"\n")[2]
    if not line:
        return chain.Link(), ""
    return chain.read(line)[1], msgspec.json.decode(line, type=_Known).configuration


class Audit:
    """Every tenant's file. Without a directory the lines go to the log only."""

    def __init__(self, config: Config) -> None:
        self._directory = Path(config.audit.directory) if config.audit.directory else None
        self._tenants = {route.name: route.tenant for route in config.routes}
        self._configuration = hashlib.sha256(msgspec.json.encode(config)).hexdigest()[:16]
        self._files: dict[str, _File] = {}
        self._anchor = _Syslog(config.audit.syslog) if config.audit.syslog else None
        self._ends: dict[str, bytes] = {}
        self.failed = 0
        self._accepted = self._read_accepted()
        before = self._configuration_before()
        change = "changed" if before not in ("", self._configuration) else "same" if before else "first"
        self.system("started", result=change)

    def system(self, action: str, route: str = "", who: str = SYSTEM, result: str = "ok", **fields: str) -> None:
        """What happened without the API. It has happened: where it cannot be written that is told in the log."""
        try:
            self.write(self._tenants.get(route, ""), who, "system", action, result, **fields)
        except Unwritten:
            return

    def write(self, tenant: str, who: str, by: str, action: str, result: str, **fields: str) -> None:
        """Write a line. by: token, system, or the issuer's name. Raises Unwritten."""
        kept = {name: value for name, value in fields.items() if value}
        log.get().info("audit", user=who, action=action, result=result, tenant=tenant, **kept)
        if self._directory is None:
            return
        at = time.time()
        entry = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z",
            "who": who, "by": by, "action": action, "result": result, **kept,
            "configuration": self._configuration, "version": __version__,
        }  # fmt: skip
        try:
            file = self._file(tenant)
            file.write(entry)
        except (OSError, chain.Broken) as error:
            self.failed += 1
            path = str(self._directory / f"{name(tenant)}.jsonl")
            log.get().error("audit-not-written", path=path, action=action, error=type(error).__name__)
            raise Unwritten from None
        if self._anchor is not None:
            self._anchor.send(name(tenant), file.link)

    def path(self, tenant: str) -> Path | None:
        """Where a tenant's lines are."""
        return None if self._directory is None else self._directory / f"{name(tenant)}.jsonl"

    def close(self) -> None:
        """No more of it."""
        for file in self._files.values():
            file.close()
        if self._anchor is not None:
            self._anchor.close()

    def entries(self, tenant: str, after: int, most: int) -> list[dict[str, object]]:
        """Up to `most` lines of a tenant's file after number `after`."""
        path, found = self.path(tenant), list[dict[str, object]]()
        if path is None or not path.is_file():
            return found
        with path.open("rb") as file:
            file.seek(_place(file, after))
            for line in file:
                try:
                    chain.read(line)
                    entry = msgspec.json.decode(line)
                except (chain.Broken, msgspec.DecodeError):
                    continue  # `flattone verify` tells of it
                if entry["seq"] > after:
                    found.append(entry)
                    if len(found) == most:
                        break
        return found

    def has_end(self, tenant: str, capture: str) -> bool:
        """Whether the end of a capture has been written down, by a process before this one."""
        path = self.path(tenant)
        if path is None:
            return True  # nobody could tell
        if tenant not in self._ends:
            self._ends[tenant] = b""
            if path.is_file():
                with path.open("rb") as file:
                    file.seek(max(path.stat().st_size - _LATE, 0))
                    lines = file.read().splitlines()
                self._ends[tenant] = b"\n".join(line for line in lines if b'"capture-ended"' in line)
        return capture.encode() in self._ends[tenant]

    # Who has accepted the notice

    def accepted(self, tenant: str, who: str, by: str) -> bool:
        return (tenant, by, who) in self._accepted

    def accept(self, tenant: str, who: str, by: str) -> None:
        """Write down that somebody has read the notice. Raises Unwritten."""
        self.write(tenant, who, by, "notice-accepted", "ok")
        if self.accepted(tenant, who, by):
            return
        self._accepted.add((tenant, by, who))
        if self._directory is not None:
            try:
                with (self._directory / "notices.jsonl").open("ab") as file:
                    file.write(msgspec.json.encode([tenant, by, who]) + b"\n")
            except OSError:
                raise Unwritten from None

    def _read_accepted(self) -> set[tuple[str, str, str]]:
        try:
            lines = (self._directory / "notices.jsonl").read_bytes().splitlines() if self._directory else []
            return {msgspec.json.decode(line, type=tuple[str, str, str]) for line in lines}
        except (OSError, msgspec.DecodeError):
            return set()  # they are asked again

    def _configuration_before(self) -> str:
        try:
            return self._file("").configuration if self._directory is not None else ""
        except (OSError, chain.Broken):
            return ""

    def _file(self, tenant: str) -> _File:
        """A tenant's file, open; where it was moved away a new one that goes on with the chain."""
        assert self._directory is not None
        file = self._files.get(tenant)
        if file is not None and not file.moved():
            return file
        fresh = _File(self._directory / f"{name(tenant)}.jsonl")
        if file is not None:
            if fresh.link.seq < file.link.seq:
                fresh.link = file.link
            file.close()
        self._files[tenant] = fresh
        if fresh.torn:
            log.get().warning("audit-line-torn", tenant=tenant)
        return fresh


def _end_of_moved(path: Path) -> tuple[chain.Link, str]:
    """Likewise, of files that were moved away while nobody wrote, like audit.jsonl.1."""
    ends = [(chain.Link(), "")]
    for moved in path.parent.glob(f"{path.name}[.-]*"):
        try:
            with moved.open("rb") as file:
                file.seek(max(moved.stat().st_size - _TAIL, 0))
                ends.append(_end(file.read()))
        except (OSError, chain.Broken):
            continue  # compressed, or none of ours
    return max(ends, key=lambda end: end[0].seq)


def _place(file: BinaryIO, after: int) -> int:
    """Where in a file to begin to read for lines after number `after`: numbers only grow, so halves are enough."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > _TAIL:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()
        start = file.tell()
        found = _SEQ.match(file.readline())
        if found is None or int(found[1]) > after:
            high = middle
        else:
            low = start
    return low


def name(tenant: str) -> str:
    """A tenant's audit log by name."""
    return f"audit-{tenant}" if tenant else "audit"


class _Syslog:
    """Sends ends of chains (RFC 5424). What nobody takes is lost there, and not here."""

    def __init__(self, where: str) -> None:
        path = where.startswith("/")
        self._to: str | tuple[str, int] = where if path else endpoint(where, "audit.syslog")
        family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in self._to[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._host = socket.gethostname()

    def close(self) -> None:
        self._socket.close()

    def send(self, which: str, link: chain.Link) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = f"<{_FACILITY_NOTICE}>1 {at} {self._host} flattone {os.getpid()} anchor - {chain.anchor(which, link)}"
        try:
            self._socket.sendto(text.encode(), self._to)
        except OSError as error:
            log.get().error("audit-not-anchored", error=type(error).__name__)
