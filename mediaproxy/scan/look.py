"""One file looked through: a pure function of where it is, so that any process on any machine can do it."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Final, cast

import msgspec

from mediaproxy import __version__
from mediaproxy.printable import shown
from mediaproxy.scan import audio, forms, rtp, weights
from mediaproxy.scan.files import remote_stamp, stamp
from mediaproxy.scan.judge import RATE, Channel, finding, grouped
from mediaproxy.scan.verdict import FileVerdict, Finding, Planted, State

_CHUNK: Final = 1 << 20


class Options(msgspec.Struct, frozen=True):
    """What changes a verdict. seed: of the positives planted into copies; None plants none."""

    seed: int | None = 1

    def hash(self) -> str:
        """Of everything that makes a verdict: these, the version, the detectors' weights."""
        return hashlib.sha256(msgspec.json.encode([__version__, weights.digest(), self])).hexdigest()


class _Changed(Exception):
    """The file is not what it was when reading began."""


def look(path: str, options: Options) -> FileVerdict:
    """The verdict on a local path or a URL of fsspec's. Never raises for anything that a file can be."""
    verdict = _look(path, options)
    return msgspec.structs.replace(verdict, path=shown(path))


def _look(path: str, options: Options) -> FileVerdict:
    try:
        with _opened(path) as (file, size, stamp):
            return msgspec.structs.replace(_judged(path, file, size, options), stamp=stamp)
    except audio.Unreadable as error:
        return FileVerdict(path, "unreadable", str(error))
    except _Changed:
        return FileVerdict(path, "unreadable", "changed while it was read")
    except FileNotFoundError:
        return FileVerdict(path, "unreadable", "a link to nothing" if os.path.islink(path) else "there is no such file")
    except IsADirectoryError:
        return FileVerdict(path, "unreadable", "is a folder")
    except PermissionError:
        return FileVerdict(path, "unreadable", "no permission to read it")
    except MemoryError:
        return FileVerdict(path, "unreadable", "needs more memory than there is")
    except Exception as error:  # whatever a file or a store does, the scan goes on
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return FileVerdict(path, "unreadable", f"cannot be read ({why})")


def _judged(path: str, file: BufferedReader, size: int, options: Options) -> FileVerdict:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    head = file.read(forms.HEAD)
    form = forms.sniff(head)
    if not form:
        why = forms.why_not(path, head) if forms.named_audio(path) else forms.locked(head)
        own = ".jsonl" in path  # a journal or audit log that was packed
        if not why or own:
            return FileVerdict(path, "passed over", size=size, sha256=digest)
        return FileVerdict(path, "unreadable", why, size=size, sha256=digest)
    remarks = [f"named otherwise, but {form} by content"] if forms.mislabelled(path, form) else []
    cut, odd = forms.whole(file, form, size)
    file.seek(0)
    seed = None if options.seed is None else options.seed ^ int(digest[:12], 16)
    try:
        found = _capture(file, seed) if form == "pcap" else _audio(file, form, seed)
    except audio.Unreadable as error:
        return FileVerdict(path, "unreadable", cut or str(error), form, size=size, sha256=digest)
    reason = cut or found.reason
    keys, residues = found.keys, found.residues
    state: State = "dirty" if keys else "suspect" if residues else "unreadable" if reason else "clean"
    return FileVerdict(
        path, state, reason, found.form, round(found.seconds, 3), found.channels, size, digest, keys, residues,
        found.runs, tuple(found.findings), (*remarks, *([odd] if odd else ())), found.planted,
        channel_seconds=round(found.channel_seconds, 3),
    )  # fmt: skip


class _Found(msgspec.Struct):
    form: str
    seconds: float
    channel_seconds: float
    channels: int
    reason: str
    keys: int = 0
    residues: int = 0
    runs: int = 0
    findings: list[Finding] = []
    planted: dict[str, Planted] = {}

    def add(self, number: int, channel: Channel) -> None:
        """Take over what a channel has shown."""
        listed, runs, keys, pieces = channel.findings(number)
        self.findings += listed
        self.runs, self.keys, self.residues = self.runs + runs, self.keys + keys, self.residues + pieces
        for name, count in channel.planted.items():
            self.planted[name] = self.planted.get(name, Planted()).plus(count)


def _audio(file: BufferedReader, form: str, seed: int | None) -> _Found:
    source = audio.Source(file, form)
    try:
        channels: dict[tuple[int, int], Channel] = {}
        for place, block in source.blocks():
            if place not in channels:
                channels[place] = Channel(None if seed is None else seed + 64 * place[0] + place[1])
            channels[place].push(block)
        for channel in channels.values():
            channel.finish()
        reason = source.reason
        if not reason and form in ("mov", "flac") and source.seconds + 1 < source.duration:
            reason = f"cut short: {source.seconds:.1f} of {source.duration:.1f} s could be read"
        if any(channel.is_noise for channel in channels.values()):
            reason = reason or _NOISE
        name = source.codec if form == source.codec else f"{form}/{source.codec}"
        found = _Found(name, source.seconds, source.channel_seconds, source.channels, reason)
        for number, place in enumerate(sorted(channels)):
            found.add(number, channels[place])
        return found
    finally:
        source.close()


_NOISE: Final = "a channel is noise at full level: encrypted, or no audio"


def _capture(file: BufferedReader, seed: int | None) -> _Found:
    capture = rtp.Capture(seed)
    capture.read(file)
    streams = capture.streams
    if not streams:
        raise audio.Unreadable(capture.reason or "there is no RTP in it")
    reason = capture.reason
    if any(stream.channel.is_noise for stream in streams):
        reason = reason or _NOISE
    samples = [stream.samples for stream in streams]
    found = _Found("pcap/rtp", max(samples) / RATE, sum(samples) / RATE, len(streams), reason)
    for number, stream in enumerate(streams):
        found.add(number, stream.channel)
        runs = grouped(stream.marks)
        found.findings += [finding(number, run, ()) for run in runs]
        found.runs, found.keys = found.runs + len(runs), found.keys + len(stream.marks)
    return found


@contextmanager
def _opened(path: str) -> Iterator[tuple[BufferedReader, int, str]]:
    """(file, size, stamp): a local file itself, a remote one as a copy that has no name. Raises what opening raises."""
    if "://" in path:
        with _remote(path) as opened:
            yield opened
        return
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would never open
    with open(fd, "rb") as file:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise audio.Unreadable("is no regular file")
        yield file, before.st_size, stamp(before)
        after, now = os.fstat(fd), os.stat(path)
    changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    if changed or (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
        raise _Changed


@contextmanager
def _remote(url: str) -> Iterator[tuple[BufferedReader, int, str]]:
    import fsspec

    system, inside = fsspec.core.url_to_fs(url)
    before = system.info(inside)
    with tempfile.TemporaryFile() as copy:
        with system.open(inside, "rb", block_size=_CHUNK) as source:
            while data := source.read(_CHUNK):
                copy.write(data)
        size = copy.tell()
        system.invalidate_cache()
        after = system.info(inside)
        if size != before.get("size", size) or remote_stamp(before) != remote_stamp(after):
            raise _Changed
        copy.seek(0)
        yield cast(BufferedReader, copy), size, remote_stamp(before)
