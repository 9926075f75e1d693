"""Recordings against their manifests, and both against the journal that chains them."""

from __future__ import annotations

import hashlib
import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mediaproxy import chain, evidence, signing
from mediaproxy.chainfile import lines
from mediaproxy.evidence import Entry, Manifest

Verdict = tuple[str, Path, str]
ENDINGS = frozenset(evidence.SUFFIXES.values())


@dataclass(slots=True)
class Journal:
    """What the journal of a folder says: of each recording by name its line, and the hash of the line before it."""

    folder: Path
    recorded: dict[str, tuple[Entry, str]] = field(default_factory=dict)
    deleted: dict[str, Entry] = field(default_factory=dict)
    forged: list[tuple[Path, str]] = field(default_factory=list)
    strange: list[tuple[Path, str]] = field(default_factory=list)
    """Lines of the chain that are none of a journal."""


def journals(logs: Sequence[Path], trusted: str) -> dict[Path, Journal]:
    """The journals among `logs`, by folder, their lines in the chain's order. What is no line is for `logs` to tell."""
    found: dict[Path, list[tuple[int, Path, Entry | None, str]]] = {}
    for path in logs:
        if path.name.startswith(evidence.JOURNAL):
            found.setdefault(path.parent, []).extend(_entries(path))
    made = {}
    for where, entries in found.items():
        made[where] = journal = Journal(where)
        for number, path, entry, previous in sorted(entries, key=lambda each: each[0]):
            if entry is None:
                journal.strange.append((path, f"number {number} is no line of a journal"))
            else:
                _line(journal, path, entry, previous, trusted)
    return made


def _entries(path: Path) -> Iterator[tuple[int, Path, Entry | None, str]]:
    """(number, file, entry or None where it is none, hash of the line before) of each line of the chain."""
    with suppress(OSError, EOFError, lzma.LZMAError, zlib.error):
        for line in lines(path):
            try:
                before, here = chain.read(line)
            except chain.Broken:
                continue
            try:
                yield here.seq, path, msgspec.json.decode(line, type=Entry), before.hash
            except msgspec.DecodeError:
                yield here.seq, path, None, before.hash


def _line(journal: Journal, path: Path, entry: Entry, previous: str, trusted: str) -> None:
    if entry.event == "recorded":
        journal.recorded[entry.file] = entry, previous
        journal.deleted.pop(entry.file, None)
        return
    document = evidence.tombstone(entry, previous)
    if entry.signature is not None:
        document[signing.FIELD] = entry.signature
    try:
        signing.unseal(signing.render(document), trusted)
    except signing.Forged as error:
        journal.forged.append((path, f"number {entry.seq}, the tombstone of {entry.file}: {error}"))
        return
    journal.recorded.pop(entry.file, None)
    journal.deleted[entry.file] = entry


def folder(journal: Journal, trusted: str) -> Iterator[Verdict]:
    """Every recording that the journal of a folder names, and what lies there that it does not name."""
    for path, why in journal.forged:
        yield "altered", path, why
    for name, (entry, previous) in sorted(journal.recorded.items()):
        yield check(journal.folder / name, trusted, entry, previous)
    for name, entry in sorted(journal.deleted.items()):
        path = journal.folder / name
        if path.is_file():
            yield "altered", path, f"is there, though it was deleted ({entry.reason})"
        else:
            signed = "" if entry.signature else ", not signed"
            yield "fine", path, f"deleted {entry.at} ({entry.reason}{signed})"
    known = {*journal.recorded, *journal.deleted}
    for path, why in journal.strange:
        yield "altered", path, why
    for path in sorted(journal.folder.rglob("*")):
        if (
            path.suffix.lower() in ENDINGS
            and path.is_file()
            and path.relative_to(journal.folder).as_posix() not in known
        ):
            yield "altered", path, "is in no line of the journal"


def inside(where: Path, done: Sequence[Path]) -> Iterator[Path]:
    """The recordings in a folder that has no journal: audio files, and where one should be beside a manifest."""
    found = set()
    for path in where.rglob("*"):
        if any(above in path.parents for above in done):
            continue
        if (path.suffix in ENDINGS and path.with_suffix(".json").is_file()) or path.suffix == ".wav":
            found.add(path)
        elif path.suffix == ".json":
            about = _read(path)
            if about is not None:
                found.add(path.with_name(Path(about.file).name))
    yield from sorted(found)


def without_journal(where: Path, done: Sequence[Path]) -> Iterator[Verdict]:
    """Whether there are recordings of ours in a folder that no journal covers: somebody has taken it away."""
    for path in sorted(where.rglob("*.json")):
        about = None if any(above in path.parents for above in done) else _read(path)
        if about is not None and about.seq:
            why = "the journal of these recordings is not here: what is missing cannot be told"
            yield "missing", where / evidence.JOURNAL, why
            return


def _read(path: Path) -> Manifest | None:
    try:
        document = msgspec.json.decode(path.read_bytes())
        document.pop(signing.FIELD, None)
        return msgspec.convert(document, Manifest)
    except (OSError, ValueError, AttributeError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def check(path: Path, trusted: str, entry: Entry | None = None, previous: str = "") -> Verdict:
    """One recording, named by its audio or its manifest; entry, previous: its line of the journal, where that is known.

    fine, altered, missing or unreadable.
    """
    if path.suffix == ".json":
        about = _read(path)
        if about is None:
            return "unreadable", path, "not a recording's manifest"
        path = path.with_name(Path(about.file).name)
    beside = path.with_suffix(".json")
    if not beside.is_file():
        there = path.is_file() or entry is not None
        return (
            "missing" if there else "unreadable",
            path,
            "the manifest is missing" if there else "there is no such file",
        )
    try:
        data = beside.read_bytes()
        document, key = signing.unseal(data, trusted)
        about = msgspec.convert(document, Manifest)
    except OSError as error:
        return "unreadable", beside, f"cannot be read ({error.strerror})"
    except signing.Forged as error:
        return "altered", beside, f"the manifest {error}"
    except msgspec.ValidationError:
        return "altered", beside, "the manifest is none"
    if about.format != evidence.FORMAT:
        return "unreadable", beside, f"is of a form that this version does not know ({about.format})"
    if entry is not None and hashlib.sha256(data).hexdigest() != entry.manifest:
        return "altered", beside, "the manifest is not the one in the journal"
    if entry is not None and (about.seq, about.previous, about.sha256) != (entry.seq, previous, entry.sha256):
        return "altered", beside, "the manifest stood at another place of the journal"
    if not path.is_file():
        return "missing", path, "the recording is missing"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return "unreadable", path, f"cannot be read ({error.strerror})"
    if digest != about.sha256 or Path(about.file).name != path.name:
        return "altered", path, "the recording is not what was written"
    told = [*([] if about.complete else ["not complete"]), *([] if key else ["not signed"])]
    return "fine", path, ", ".join(told)
