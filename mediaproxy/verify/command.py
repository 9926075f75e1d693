"""`flattone verify`: is everything as it was written? What is altered or missing is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mediaproxy import chain, evidence, signing
from mediaproxy.printable import printable
from mediaproxy.verify import logs, recordings, report

Verdict = tuple[str, Path, str]
"""(fine, altered, missing or unreadable; what; why)."""


def run(
    paths: Sequence[str], anchors: Sequence[str] = (), key: str = "", files: bool = False, quiet: bool = False
) -> int:
    """The command. key: PEM file of the key that all must be signed with; files: of reports, also what was scanned;
    quiet: says nothing of what is fine.

    Returns 0 all fine, 1 something altered or missing, 2 something unreadable or nothing there.
    """
    try:
        trusted = signing.public_key(key) if key else ""
    except signing.KeyFileError as error:
        print(f"flattone: --key {key}: {error}", file=sys.stderr)
        return 2
    kept: dict[str, list[chain.Link]] = {}
    for file in anchors:
        try:
            text = Path(file).read_text("utf-8", "replace")
        except OSError as error:
            print(f"flattone: {file}: cannot be read ({type(error).__name__})", file=sys.stderr)
            return 2
        for name, links in chain.anchors(text).items():
            kept.setdefault(name, []).extend(links)
    if anchors and not kept:
        print(f"flattone: --anchors: {', '.join(anchors)}: no anchor in it", file=sys.stderr)
        return 2
    verdicts: list[str] = []
    for verdict, path, reason in _all(paths, kept, trusted, files):
        verdicts.append(verdict)
        if not quiet or verdict != "fine":
            print(f"{verdict:<10}  {printable(str(path))}" + (f": {printable(reason)}" if reason else ""))
    if not verdicts:
        print("flattone: nothing there that could be verified", file=sys.stderr)
        return 2
    if len(verdicts) > 1:
        print(", ".join(f"{verdicts.count(name)} {name}" for name in ("fine", "altered", "missing", "unreadable")))
    return 2 if "unreadable" in verdicts else 1 if set(verdicts) != {"fine"} else 0


def _all(paths: Sequence[str], anchors: dict[str, list[chain.Link]], trusted: str, files: bool) -> Iterator[Verdict]:
    found: list[Path] = []
    folders: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            folders.append(path)
            found += sorted(filter(logs.is_log, path.rglob("*.jsonl*")))
        elif logs.is_log(path):
            found.append(path)
        elif report.is_report(path) or (
            path.name in evidence.REPORT_PARTS and report.is_report(path.with_name(evidence.REPORT))
        ):
            yield from report.check(path.with_name(evidence.REPORT), trusted, files)
        else:
            yield recordings.check(path, trusted)
    journals = recordings.journals(found, trusted)
    for folder in folders:
        for path in sorted(filter(report.is_report, folder.rglob(evidence.REPORT))):
            yield from report.check(path, trusted, files)
        yield from report.without_head(folder)
        for path in recordings.inside(folder, list(journals)):
            yield recordings.check(path, trusted)
        if not any((above / evidence.JOURNAL).exists() for above in folder.resolve().parents):
            yield from recordings.without_journal(folder, list(journals))
    for journal in journals.values():
        yield from recordings.folder(journal, trusted)
    chains = logs.chains(found)
    for (_, name), parts in chains.items():
        yield from logs.check(name, parts, anchors.get(name, []))
    for name in sorted(set(anchors) - {name for _, name in chains}) if any(map(os.path.isdir, paths)) else ():
        yield "missing", Path(f"{name}.jsonl"), "was anchored and is not here"
