"""Chained logs (audit logs, journals of recordings): each line as it was written, none missing, from file to file."""

from __future__ import annotations

import lzma
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mediaproxy import chain
from mediaproxy.chainfile import lines

_NAME = re.compile(r"(recordings|audit(?:-[a-z][a-z0-9-]{0,30})?)\.jsonl([.-].*)?")


def is_log(path: Path) -> bool:
    """Whether a file has the name of a chained log, as it is written or moved away."""
    return _NAME.fullmatch(path.name) is not None and path.suffix not in _OTHERS and path.is_file()


_OTHERS = frozenset({".wav", ".opus", ".mp3", ".json", ".part"})
"""Recordings may be called anything."""
MOST_TOLD = 100
"""Faults told of one file."""


@dataclass(slots=True)
class Read:
    """One file: what it says is before it, its last line, and what is wrong with it."""

    path: Path
    before: chain.Link = field(default_factory=chain.Link)
    end: chain.Link = field(default_factory=chain.Link)
    lines: int = 0
    wrong: list[str] = field(default_factory=list)
    unreadable: str = ""
    links: dict[int, str] = field(default_factory=dict)
    """Hashes by number."""


def chains(paths: list[Path]) -> dict[tuple[Path, str], list[Read]]:
    """The files of each chain by folder and name, in the chain's order."""
    found: dict[tuple[Path, str], list[Read]] = {}
    for path in dict.fromkeys(paths):
        match = _NAME.fullmatch(path.name)
        assert match is not None  # is_log
        found.setdefault((path.parent, match[1]), []).append(_read(path))
    for files in found.values():
        files.sort(key=lambda file: file.before.seq)
    return found


def _read(path: Path) -> Read:
    read = Read(path)
    try:
        _lines(read, lines(path))
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        read.unreadable = f"cannot be read ({type(error).__name__})"
    return read


def _lines(read: Read, written: Iterator[bytes]) -> None:
    told = 0
    for number, line in enumerate(written, 1):
        try:
            before, now = chain.read(line)
        except chain.Broken as error:
            if len(read.wrong) < MOST_TOLD:
                read.wrong.append(f"line {number} {error}")
            told = number
            continue
        if not read.lines:
            read.before = before
        elif before != read.end and told != number - 1:  # that the next one does not fit a broken one is no news
            missing = before.seq - read.end.seq
            what = f"{missing} line(s) before it are missing" if missing > 0 else "does not follow the one before"
            read.wrong.append(f"line {number} (number {now.seq}): {what}")
        read.end, read.lines = now, read.lines + 1
        read.links[now.seq] = now.hash


def check(name: str, files: list[Read], anchors: list[chain.Link]) -> Iterator[tuple[str, Path, str]]:
    """(verdict, file, reason) of each file of a chain, held against its `anchors`."""
    before = chain.Link()
    known = sorted(set(anchors), key=lambda link: link.seq)
    numbers = [link.seq for link in known]
    for file in files:
        if file.unreadable:
            yield "unreadable", file.path, file.unreadable
            continue
        if not file.lines and not file.wrong:
            yield "missing", file.path, "is empty"
            continue
        verdict, reasons = "altered" if file.wrong else "fine", list(file.wrong)
        archived = ""
        if file.lines and file.before != before:
            if not before.seq and file.before in known:  # the oldest there are; what was before is vouched for
                archived = f"; what was before number {file.before.seq + 1} is elsewhere"
            else:
                verdict = verdict if verdict == "altered" else "missing"
                gap = (
                    f"lines {before.seq + 1} to {file.before.seq}"
                    if file.before.seq > before.seq
                    else "lines before it"
                )
                reasons.append(f"{gap} of {name} are not here")
        theirs = known[bisect_right(numbers, file.before.seq) : bisect_right(numbers, file.end.seq)]
        forged = [link.seq for link in theirs if file.links.get(link.seq) != link.hash]
        if forged:
            verdict = "altered"
            reasons.append(f"line number {forged[0]} is not the one that was anchored")
        fine = f"lines {file.before.seq + 1} to {file.end.seq} of {name}{archived} ({chain.anchor(name, file.end)})"
        yield verdict, file.path, "; ".join(reasons) or fine
        before = file.end
    if files and known and known[-1].seq > before.seq:
        lost = f"lines {before.seq + 1} to {known[-1].seq} of {name} were anchored and are not here"
        yield "missing", files[-1].path, lost
