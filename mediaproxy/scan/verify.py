"""`flattone verify`: recordings and audit logs as they were written? What is altered or missing is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from mediaproxy import chain
from mediaproxy.scan import audit, manifest

Verdict = tuple[str, Path, str]
"""(fine, altered, missing or unreadable; what; why)."""


def run(paths: list[str], anchors: list[str]) -> int:
    """The command. Returns 0 all fine, 1 something altered or missing, 2 something unreadable or nothing there."""
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
    for verdict, path, reason in _all(paths, kept):
        verdicts.append(verdict)
        print(f"{verdict:<10}  {path}" + (f": {reason}" if reason else ""))
    if not verdicts:
        print("flattone: nothing there that could be verified", file=sys.stderr)
        return 2
    return 2 if "unreadable" in verdicts else 1 if set(verdicts) != {"fine"} else 0


def _all(paths: list[str], anchors: dict[str, list[chain.Link]]) -> Iterator[Verdict]:
    logs: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            logs += sorted(filter(audit.is_log, path.rglob("*.jsonl*")))
            for found in manifest.inside(path):
                yield _recording(found)
        elif audit.is_log(path):
            logs.append(path)
        else:
            yield _recording(path)
    chains = audit.chains(logs)
    for (_, name), files in chains.items():
        yield from audit.check(name, files, anchors.get(name, []))
    for name in sorted(set(anchors) - {name for _, name in chains}) if any(map(os.path.isdir, paths)) else ():
        yield "missing", Path(f"{name}.jsonl"), "was anchored and is not here"


def _recording(path: Path) -> Verdict:
    verdict, reason = manifest.check(path)
    return verdict, path if verdict == "unreadable" else path.with_suffix(".wav"), reason
