"""The folder of recordings: names, manifests, the journal that chains them, and what is deleted in its time."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from mediaproxy import __version__, chain, evidence, log, signing
from mediaproxy.chainfile import ChainFile, Syslog
from mediaproxy.config import RecordingConfig
from mediaproxy.evidence import Entry, Manifest
from mediaproxy.recording.sinks import sink
from mediaproxy.recording.writer import Recording

PART: Final = ".part"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._@+-]")


class Archive:
    """Begins recordings, and ends them with a manifest and a line of the journal."""

    def __init__(self, config: RecordingConfig) -> None:
        """Raises OSError or chain.Broken where the journal cannot go on, signing.KeyFileError."""
        self._config = config
        self._folder = Path(config.directory)
        self._signer = signing.Signer.load(config.signing_key) if config.signing_key else None
        self._anchor = Syslog(config.syslog) if config.syslog else None
        self._journal = ChainFile(self._folder / evidence.JOURNAL)
        if self._journal.torn:
            log.get().warning("journal-line-torn", path=str(self._journal.path))

    def begin(self, call: str, route: str, mode: str, at: float) -> Recording:
        """A recording under a name that is not taken. Raises OSError."""
        now = time.gmtime()
        name = self._config.name.format(
            date=time.strftime("%Y%m%d", now), time=time.strftime("%H%M%SZ", now), year=time.strftime("%Y", now),
            month=time.strftime("%m", now), day=time.strftime("%d", now), call=_UNSAFE.sub("_", call),
            route=_UNSAFE.sub("_", route),
        )  # fmt: skip
        base = self._folder / name
        base.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        ending = evidence.SUFFIXES[self._config.form]
        for more in ("", *(f"-{i}" for i in range(2, 1000))):
            path = base.with_name(base.name + more + ending)
            if not path.exists() and not path.with_suffix(".json").exists():
                with suppress(FileExistsError):
                    part = path.with_name(path.name + PART)
                    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
                    into = sink(self._config.form, os.fdopen(fd, "w+b"), self._config.kbits)
                    return Recording(call, route, mode, at, into, path, part)
        raise FileExistsError(17, "no name is free")

    def end(self, recording: Recording, complete: bool) -> Path:
        """Make it whole, write its manifest, chain it, give it its name. Raises OSError."""
        recording.finish()
        self._keep(
            recording.part, recording.path, call=recording.call, route=recording.route, complete=complete,
            began=_utc(recording.began), seconds=round(recording.seconds, 3), modes=tuple(recording.modes),
            masked=recording.masked.seconds(), silent=recording.silent.seconds(), alarms=tuple(recording.alarms),
        )  # fmt: skip
        return recording.path

    def _keep(self, part: Path, path: Path, **facts: Any) -> None:
        name = path.relative_to(self._folder).as_posix()
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._reopen()
        before = self._journal.link
        about = Manifest(
            file=name, sha256=digest, form=self._config.form, version=__version__, seq=before.seq + 1,
            previous=before.hash, **facts,
        )  # fmt: skip
        data = signing.seal(msgspec.to_builtins(about), self._signer)
        beside = path.with_suffix(".json")
        beside.write_bytes(data)
        try:
            self._write(
                {
                    "event": "recorded", "at": _utc(time.time()), "file": name, "sha256": digest,
                    "manifest": hashlib.sha256(data).hexdigest(),
                }
            )  # fmt: skip
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        part.rename(path)

    def _write(self, entry: dict[str, object]) -> None:
        self._journal.write(entry)
        if self._anchor is not None:
            self._anchor.send(_chain_name(), self._journal.link)

    def _reopen(self) -> None:
        """Where the journal was moved away, a new one goes on with the chain."""
        if self._journal.moved():
            fresh = ChainFile(self._journal.path)
            if fresh.link.seq < self._journal.link.seq:
                fresh.link = self._journal.link
            self._journal.close()
            self._journal = fresh

    def recover(self) -> int:
        """Take in what a recorder that died has left as parts; returns how many. What it knew of them is gone."""
        count = 0
        for part in sorted(self._folder.rglob(f"*{PART}")):
            path = part.with_name(part.name.removesuffix(PART))
            if path.suffix not in evidence.SUFFIXES.values() or path.exists():
                continue
            try:
                if path.suffix == ".wav":
                    _complete_header(part)
                self._keep(
                    part, path, call="", route="", complete=False, began=_utc(part.stat().st_mtime), seconds=0.0,
                    modes=(), masked=(), silent=(), alarms=(evidence.AlarmAt(0.0, "recorder-died"),),
                )  # fmt: skip
                count += 1
            except OSError as error:
                log.get().error("recording-failed", path=str(path), reason=error.strerror)
        return count

    def expire(self, now: float) -> int:
        """Delete what is older than its time, and write tombstones; returns how many. Raises OSError."""
        if not self._config.retention_days:
            return 0
        limit, count = _utc(now - self._config.retention_days * 86_400), 0
        for entry in self._kept():
            if entry.at >= limit:
                break  # lines are in the order of time
            path = self._folder / entry.file
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
            self._reopen()
            before = self._journal.link
            stone = Entry(
                before.seq + 1, "deleted", entry.file, entry.sha256, "", _utc(time.time()), entry.seq,
                f"retention of {self._config.retention_days:g} days",
            )  # fmt: skip
            document = evidence.tombstone(stone, before.hash)
            sealed = msgspec.json.decode(signing.seal(document, self._signer))
            body = {key: value for key, value in sealed.items() if key not in ("seq", "previous")}
            self._write(body)
            count += 1
        return count

    def _kept(self) -> Iterator[Entry]:
        """The recordings that were not deleted yet, oldest first."""
        paths = sorted(self._folder.glob(f"{evidence.JOURNAL}[.-]*"), key=lambda path: path.stat().st_mtime)
        entries: dict[int, Entry] = {}
        for path in (*paths, self._folder / evidence.JOURNAL):
            with suppress(FileNotFoundError), path.open("rb") as file:
                for line in file:
                    with suppress(chain.Broken, msgspec.DecodeError):
                        chain.read(line)
                        entry = msgspec.json.decode(line, type=Entry)
                        if entry.event == "recorded":
                            entries[entry.seq] = entry
                        else:
                            entries.pop(entry.recorded, None)
        yield from sorted(entries.values(), key=lambda entry: entry.seq)

    def close(self) -> None:
        self._journal.close()
        if self._anchor is not None:
            self._anchor.close()


def _chain_name() -> str:
    return evidence.JOURNAL.removesuffix(".jsonl")


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"


def _complete_header(part: Path) -> None:
    """Put the length of what is there into the header of a WAV file of ours."""
    size = part.stat().st_size - 58
    with part.open("r+b") as file:
        head = file.read(58)
        if len(head) < 58 or head[50:54] != b"data":
            return
        each = int.from_bytes(head[32:34], "little")
        size -= size % each
        file.truncate(58 + size)
        for at, value in ((4, 50 + size), (46, size // each), (54, size)):
            file.seek(at)
            file.write(min(value, 0xFFFFFFFF).to_bytes(4, "little"))
