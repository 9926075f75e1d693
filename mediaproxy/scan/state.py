"""What a scan has done so far, as lines of JSON that are written as they come, so that it can go on after a stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import msgspec

from mediaproxy.scan.verdict import FileVerdict


class StateError(Exception):
    """The state file cannot be used; the text says why."""


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    flattone_scan: str


class State:
    """A state file, open for more. `done`: verdicts by path, of a scan that judged in the same way."""

    def __init__(self, path: str | Path, config: str) -> None:
        """config: the hash of what makes verdicts. Raises StateError."""
        self.done: dict[str, FileVerdict] = {}
        try:
            self._file: BinaryIO = open(path, "a+b")  # noqa: SIM115
        except OSError as error:
            raise StateError(f"cannot be opened ({error.strerror})") from None
        try:
            end = self._read(config)
        except StateError:
            self._file.close()
            raise
        if not end:
            self._write(msgspec.json.encode(_Head(config)))
        else:
            self._file.truncate(end)

    def _read(self, config: str) -> int:
        """Where the last whole line ends."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n"):
            return 0 if not first.strip() else self._refuse("is no state of a scan")
        try:
            head = msgspec.json.decode(first, type=_Head)
        except msgspec.DecodeError:
            self._refuse("is no state of a scan")
        if head.flattone_scan != config:
            self._refuse("is of another version of flattone or other options: its verdicts do not go with these")
        end = len(first)
        for line in self._file:
            if not line.endswith(b"\n"):
                break  # stopped in the middle of it
            try:
                verdict = msgspec.json.decode(line, type=FileVerdict)
            except msgspec.DecodeError:
                self._refuse(f"is damaged after {len(self.done)} files")
            self.done[verdict.path] = verdict
            end += len(line)
        return end

    def _refuse(self, why: str) -> int:
        raise StateError(why)

    def add(self, verdict: FileVerdict) -> None:
        """Keep a verdict. Raises OSError."""
        self._write(msgspec.json.encode(verdict))

    def _write(self, line: bytes) -> None:
        self._file.write(line + b"\n")
        self._file.flush()

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
