"""Audit logs, for `flattone verify`: every line as it was written, none missing, also from file to file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mediaproxy import chain

_NAME = re.compile(r"(audit(?:-[a-z][a-z0-9-]{0,30})?)\.jsonl.*")


def is_log(path: Path) -> bool:
    """Whether a file has an audit log's name and is not compressed."""
    return _NAME.fullmatch(path.name) is not None and path.suffix not in (".gz", ".bz2", ".xz", ".zst")


@dataclass(slots=True)
class _Read:
    """One file: what it says is before it, its last line, and what is wrong with it."""

    path: Path
    before: chain.Link = field(default_factory=chain.Link)
    end: chain.Link = field(default_factory=chain.Link)
    lines: int = 0
    wrong: list[str] = field(default_factory=list)
    unreadable: str = ""
    links: set[chain.Link] = field(default_factory=set)


def chains(paths: list[Path]) -> dict[str, list[_Read]]:
    """The files of each chain by its name, in the chain's order."""
    found: dict[str, list[_Read]] = {}
    for path in dict.fromkeys(paths):
        match = _NAME.fullmatch(path.name)
        assert match is not None  # is_log
        found.setdefault(match[1], []).append(_read(path))
    for files in found.values():
        files.sort(key=lambda file: file.before.seq)
    return found


def _read(path: Path) -> _Read:
    read = _Read(path)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    before, now = chain.read(line)
                except chain.Broken as error:
                    read.wrong.append(f"line {number} {error}")
                    continue
                if not read.lines:
                    read.before = before
                elif before != read.end and not _told(read.wrong, number - 1):
                    missing = before.seq - read.end.seq
                    what = (
                        f"{missing} line(s) before it are missing" if missing > 0 else "does not follow the one before"
                    )
                    read.wrong.append(f"line {number} (number {now.seq}): {what}")
                read.end, read.lines = now, read.lines + 1
                read.links.add(now)
    except OSError as error:
        read.unreadable = f"cannot be read ({type(error).__name__})"
    return read


def _told(wrong: list[str], number: int) -> bool:
    """Whether the line of that number is known to be wrong: that the next one does not fit it is no news."""
    return bool(wrong) and wrong[-1].startswith(f"line {number} ")


def check(name: str, files: list[_Read], anchors: list[chain.Link]) -> Iterator[tuple[str, Path, str]]:
    """(verdict, file, reason) of each file of a chain, held against its `anchors`."""
    before = chain.Link()
    known = set(anchors)
    links = set().union(*(file.links for file in files)) if files else set()
    first = min((file.before.seq for file in files if file.lines), default=0)
    for file in files:
        if file.unreadable:
            yield "unreadable", file.path, file.unreadable
            continue
        if not file.lines and not file.wrong:
            yield "missing", file.path, "is empty"
            continue
        verdict, reasons = "fine", list(file.wrong)
        if reasons:
            verdict = "altered"
        if file.lines and file.before != before and file.before not in known:
            verdict = verdict if verdict == "altered" else "missing"
            gap = f"lines {before.seq + 1} to {file.before.seq}" if file.before.seq > before.seq else "what was before"
            reasons.append(f"{gap} of {name} are not here")
        lost = [a.seq for a in anchors if first < a.seq <= file.end.seq and a not in links and a.seq > file.before.seq]
        if lost:
            verdict = "altered"
            reasons.append(f"line number {min(lost)} is not the one that was anchored")
        yield verdict, file.path, "; ".join(reasons) or f"lines {file.before.seq + 1} to {file.end.seq} of {name}"
        before = file.end
    newest = max(anchors, key=lambda link: link.seq, default=chain.Link())
    if files and newest.seq > before.seq:
        yield (
            "missing",
            files[-1].path,
            f"lines {before.seq + 1} to {newest.seq} of {name} were anchored and are not here",
        )
