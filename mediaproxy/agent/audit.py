"""The audit log: who did what, when, with what result. Chained lines (`mediaproxy.chain`), a file a tenant, and the
number and hash of each line to syslog, where somebody else keeps them. No digits: names, ids, words of closed lists.

An action that cannot be written down is not done, but for those that make a call safer.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from mediaproxy import __version__, chain, log
from mediaproxy.chainfile import TAIL, ChainFile, Syslog
from mediaproxy.config import Config

SYSTEM: Final = "flattone"
"""Who did it, where nobody did."""
_LATE: Final = 4 << 20
"""Octets at its end in which the ends of captures are looked for that the vault tells of again (ten minutes' worth)."""
_SEQ: Final = re.compile(rb'\{"seq":(\d{1,15}),')


class Unwritten(Exception):
    """The line could not be written."""


class _Known(msgspec.Struct):
    configuration: str = ""


def _configuration(line: bytes) -> str:
    """The configuration that a line was written under."""
    return msgspec.json.decode(line, type=_Known).configuration if line else ""


class Audit:
    """Every tenant's file. Without a directory the lines go to the log only."""

    def __init__(self, config: Config) -> None:
        self._directory = Path(config.audit.directory) if config.audit.directory else None
        self._tenants = {route.name: route.tenant for route in config.routes}
        self._configuration = hashlib.sha256(msgspec.json.encode(config)).hexdigest()[:16]
        self._files: dict[str, ChainFile] = {}
        self._anchor = Syslog(config.audit.syslog) if config.audit.syslog else None
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
            return _configuration(self._file("").last) if self._directory is not None else ""
        except (OSError, chain.Broken):
            return ""

    def _file(self, tenant: str) -> ChainFile:
        """A tenant's file, open; where it was moved away a new one that goes on with the chain."""
        assert self._directory is not None
        file = self._files.get(tenant)
        if file is not None and not file.moved():
            return file
        fresh = ChainFile(self._directory / f"{name(tenant)}.jsonl")
        if file is not None:
            if fresh.link.seq < file.link.seq:
                fresh.link = file.link
            file.close()
        self._files[tenant] = fresh
        if fresh.torn:
            log.get().warning("audit-line-torn", tenant=tenant)
        return fresh


def _place(file: BinaryIO, after: int) -> int:
    """Where in a file to begin to read for lines after number `after`: numbers only grow, so halves are enough."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > TAIL:
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
