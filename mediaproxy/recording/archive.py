"""The folder of recordings: names, manifests, the journal that chains them, and what is deleted in its time."""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
import re
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from mediaproxy import __version__, chain, evidence, log, signing
from mediaproxy.chainfile import ChainFile, Syslog, lines
from mediaproxy.config import RecordingConfig
from mediaproxy.evidence import Entry, Manifest
from mediaproxy.recording import sinks
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
            month=time.strftime("%m", now), day=time.strftime("%d", now), call=_safe(call), route=_safe(route),
        )  # fmt: skip
        base = self._folder / name
        ending = evidence.SUFFIXES[self._config.format]
        for more in ("", *(f"-{i}" for i in range(2, 1000))):
            path = base.with_name(base.name + more + ending)
            if not path.exists() and not path.with_suffix(".json").exists():
                path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
                with suppress(FileExistsError, FileNotFoundError):  # or the folder was emptied and removed just now
                    part = path.with_name(path.name + PART)
                    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
                    into = sinks.sink(self._config.format, os.fdopen(fd, "w+b"), self._config.kbits)
                    return Recording(call, route, mode, at, into, path, part)
        raise FileExistsError(errno.EEXIST, "no name is free")

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
        digest = _hash(part)
        self._reopen()
        before = self._journal.link
        about = Manifest(
            file=name, sha256=digest, form=self._config.format, version=__version__, seq=before.seq + 1,
            previous=before.hash, **facts,
        )  # fmt: skip
        data = signing.seal(msgspec.to_builtins(about), self._signer)
        beside = path.with_suffix(".json")
        try:
            beside.write_bytes(data)
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

    def parts(self) -> list[Path]:
        """What a recorder that died has left. To be asked before anything begins."""
        endings = tuple(ending + PART for ending in evidence.SUFFIXES.values())
        found = self._folder.rglob(f"*{PART}")
        return sorted(path for path in found if path.name.endswith(endings) and not path.is_symlink())

    def recover(self, part: Path) -> None:
        """Take in such a part. What the recorder knew of it is gone, unless it died just before the end.

        Raises OSError.
        """
        path = part.with_name(part.name.removesuffix(PART))
        if path.exists():
            raise FileExistsError(errno.EEXIST, "a recording of that name is there")
        if any(entry.file == path.relative_to(self._folder).as_posix() for entry in self._kept().values()):
            part.rename(path)  # chained already
            return
        ended = part.stat().st_mtime
        seconds = sinks.complete(part) if path.suffix == ".wav" else None
        self._keep(
            part, path, call="", route="", complete=False, began=_utc(ended - seconds) if seconds else "",
            seconds=seconds,
            modes=(), masked=(), silent=(), alarms=(evidence.AlarmAt(0.0, "recorder-died"),),
        )  # fmt: skip

    def expire(self, now: float) -> tuple[int, int]:
        """Delete what is older than its time, and write tombstones; returns how many, and how many would not go.

        Raises OSError where the journal takes no more.
        """
        if not self._config.retention_days:
            return 0, 0
        limit, deleted, failed = _utc(now - self._config.retention_days * 86_400), 0, 0
        for entry in self._kept().values():
            if entry.at >= limit:
                continue
            path = self._folder / entry.file
            inside = path.resolve().is_relative_to(self._folder.resolve())
            if not inside or path.suffix not in evidence.SUFFIXES.values():
                failed += 1  # no line of ours
                continue
            try:
                if path.exists() and _hash(path) != entry.sha256:
                    raise OSError(0, "is not what was recorded under that name")
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
            except OSError as error:
                log.get().error("recording-not-deleted", path=str(path), reason=error.strerror)
                failed += 1
                continue
            self._bury(entry)
            deleted += 1
            with suppress(OSError):  # of other recordings
                for above in path.relative_to(self._folder).parents[:-1]:
                    (self._folder / above).rmdir()
        return deleted, failed

    def _bury(self, entry: Entry) -> None:
        self._reopen()
        before = self._journal.link
        stone = Entry(
            before.seq + 1, "deleted", entry.file, entry.sha256, "", _utc(time.time()), entry.seq,
            f"retention of {self._config.retention_days:g} days",
        )  # fmt: skip
        sealed = msgspec.json.decode(signing.seal(evidence.tombstone(stone, before.hash), self._signer))
        self._write({key: value for key, value in sealed.items() if key not in ("seq", "previous")})

    def _kept(self) -> dict[int, Entry]:
        """The recordings that were not deleted yet by the number of their line, oldest first; in all of the journal."""
        recorded: dict[int, Entry] = {}
        deleted: set[int] = set()
        for path in self._folder.glob(f"{evidence.JOURNAL}*"):
            try:
                for line in lines(path):
                    with suppress(chain.Broken, msgspec.DecodeError):
                        chain.read(line)
                        entry = msgspec.json.decode(line, type=Entry)
                        if entry.event == "recorded":
                            recorded[entry.seq] = entry
                        else:
                            deleted.add(entry.recorded)
            except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
                log.get().error("journal-unreadable", path=str(path), error=type(error).__name__)
        return {number: recorded[number] for number in sorted(recorded) if number not in deleted}

    def close(self) -> None:
        self._journal.close()
        if self._anchor is not None:
            self._anchor.close()


def _safe(name: str) -> str:
    """A name that makes a part of one file's name and nothing else."""
    return _UNSAFE.sub("_", name).replace("..", "__")[:100]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _chain_name() -> str:
    return evidence.JOURNAL.removesuffix(".jsonl")


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"
