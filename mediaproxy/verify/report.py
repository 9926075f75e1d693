"""Scan reports: the signature, the files beside it, the tree over all results, and the files that were scanned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from mediaproxy import evidence, signing
from mediaproxy.printable import unshown

_SIGN: Final = b'"flattone-scan-report/'
Verdict = tuple[str, Path, str]


class _Result(msgspec.Struct):
    path: str
    size: int
    sha256: str
    state: str


class _Report(msgspec.Struct):
    format: str
    files: dict[str, str]
    merkle_root: str
    signed_by: str
    results: list[_Result]


def is_report(path: Path) -> bool:
    """Whether a file is a report's, altered or not: its name, and what lies beside it or a word in it."""
    if path.name != evidence.REPORT or not path.is_file():
        return False
    beside = any((path.parent / name).exists() for name in evidence.REPORT_PARTS)
    try:
        return beside or _SIGN in path.read_bytes()
    except OSError:
        return beside


def without_head(where: Path) -> Iterator[Verdict]:
    """The reports in a folder of which there is all but the file that vouches for the others."""
    for path in sorted(where.rglob(evidence.REPORT_PARTS[0])):
        head = path.with_name(evidence.REPORT)
        if not head.exists() and all(path.with_name(name).exists() for name in evidence.REPORT_PARTS):
            yield "missing", head, "the report itself is missing; the rest of it is here"


def check(path: Path, trusted: str, files: bool) -> Iterator[Verdict]:
    """A report; files: also every file that was scanned, where it was."""
    try:
        document, key = signing.unseal(path.read_bytes(), trusted)
        report = msgspec.convert(document, _Report)
    except OSError as error:
        yield "unreadable", path, f"cannot be read ({error.strerror})"
        return
    except signing.Forged as error:
        yield "altered", path, f"the report {error}"
        return
    except msgspec.ValidationError:
        yield "altered", path, "the report is none"
        return
    if report.format != evidence.REPORT_FORMAT:
        yield "unreadable", path, f"is of a form that this version does not know ({report.format})"
        return
    yield "altered" if (why := _inconsistent(report, key)) else "fine", path, why or _about(report, key)
    for name, digest in sorted(report.files.items()):
        yield _beside(path.parent / name, digest)
    if files:
        for result in report.results:
            yield _scanned(result)


def _inconsistent(report: _Report, key: str) -> str:
    leaves = [evidence.leaf(r.path, r.size, r.sha256, r.state) for r in report.results]
    if signing.merkle_root(leaves) != report.merkle_root:
        return "the results are not those of its Merkle root"
    if any("/" in name or name.startswith(".") for name in report.files):
        return "names files elsewhere"
    if report.signed_by != (signing.fingerprint(key) if key else ""):
        return "was signed by another key than it says"
    return ""


def _about(report: _Report, key: str) -> str:
    signed = f"signed by {signing.fingerprint(key)}" if key else "not signed: whoever can write it could have made it"
    return f"{len(report.results)} files, {signed}"


def _beside(path: Path, digest: str) -> Verdict:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "missing", path, "a part of the report is missing"
    except OSError as error:
        return "unreadable", path, f"cannot be read ({error.strerror})"
    same = hashlib.sha256(data).hexdigest() == digest
    return ("fine", path, "") if same else ("altered", path, "is not what the report was written with")


def _scanned(result: _Result) -> Verdict:
    local = result.path.removeprefix("file://")
    path = Path(unshown(local))
    if not result.sha256:
        return "fine", path, "was not read then"
    if "://" in local:
        return "unreadable", Path(local.replace("://", ":/ /")), "is in a store: this looks at files only"
    if not path.is_file() and path.exists():
        return "altered", path, "is no file any more"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "missing", path, "was scanned and is not here"
    except OSError as error:
        return "unreadable", path, f"cannot be read ({error.strerror})"
    same = digest == result.sha256
    return (
        ("fine", path, f"was scanned as it is: {result.state}")
        if same
        else ("altered", path, "is not what was scanned")
    )
