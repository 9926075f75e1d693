"""The audit log: who did what, when, with what result. Chained lines (`mediaproxy.chain`), a file a tenant, and the
number and hash of each line to syslog, where somebody else keeps them. No digits: names, ids, words of closed lists.

An action that cannot be written down is not done, but for those that make a call safer.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from mediaproxy import __version__, chain, log
from mediaproxy.config import Config, endpoint

SYSTEM: Final = "flattone"
"""Who did it, where nobody did."""
_FACILITY_NOTICE: Final = 13 * 8 + 5
"""RFC 5424 6.2.1: log audit, notice."""
_LAST_LINE: Final = 65_536
"""No line is longer."""


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
            last = self._last_line()
            self.link = chain.read(last)[1] if last else chain.Link()
            self.configuration = msgspec.json.decode(last, type=_Known).configuration if last else ""
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
        tail = os.pread(self._fd, _LAST_LINE, max(size - _LAST_LINE, 0))
        whole = size - len(tail) + tail.rfind(b"\n") + 1
        if whole != size:
            os.ftruncate(self._fd, whole)
        return whole != size

    def _last_line(self) -> bytes:
        size = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, _LAST_LINE, max(size - _LAST_LINE, 0)).rstrip(b"\n")
        return tail[tail.rfind(b"\n") + 1 :]


class _Known(msgspec.Struct):
    configuration: str = ""


class Audit:
    """Every tenant's file. Without a directory the lines go to the log only."""

    def __init__(self, config: Config) -> None:
        self._directory = Path(config.audit.directory) if config.audit.directory else None
        self._tenants = {route.name: route.tenant for route in config.routes}
        self._configuration = hashlib.sha256(msgspec.json.encode(config)).hexdigest()[:16]
        self._files: dict[str, _File] = {}
        self._anchor = _Syslog(config.audit.syslog) if config.audit.syslog else None
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
            log.get().error("audit-not-written", tenant=tenant, action=action, error=type(error).__name__)
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
        path, found = self.path(tenant), []
        if path is None or not path.is_file():
            return []
        with path.open("rb") as file:
            for line in file:
                entry = msgspec.json.decode(line)
                if entry["seq"] > after:
                    found.append(entry)
                    if len(found) == most:
                        break
        return found

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
        if not fresh.link.seq:
            fresh.link = file.link if file is not None else _end_of_moved(fresh.path)
        if file is not None:
            file.close()
        self._files[tenant] = fresh
        if fresh.torn:
            log.get().warning("audit-line-torn", tenant=tenant)
        return fresh


def _end_of_moved(path: Path) -> chain.Link:
    """The end of the chain in files that were moved away while nobody wrote, like audit.jsonl.1."""
    ends = [chain.Link()]
    for moved in path.parent.glob(f"{path.name}?*"):
        try:
            ends.append(chain.read(moved.read_bytes().rstrip(b"\n").rpartition(b"\n")[2])[1])
        except (OSError, chain.Broken):
            continue  # compressed, or none of ours
    return max(ends, key=lambda link: link.seq)


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
