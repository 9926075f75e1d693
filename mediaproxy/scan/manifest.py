"""`flattone verify`: recordings against their manifests."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec


class Manifest(msgspec.Struct):
    """What the recorder wrote beside a recording."""

    call: str
    seconds: float
    sha256: str
    complete: bool
    version: str


def _pairs(paths: list[str]) -> Iterator[Path]:
    """The manifests meant by `paths`; in folders other JSON files are passed over."""
    for text in paths:
        path = Path(text)
        if path.is_dir():
            yield from sorted(
                {p.with_suffix(".json") for p in path.rglob("*.wav")} | set(filter(_is_manifest, path.rglob("*.json")))
            )
        else:
            yield path


def _is_manifest(path: Path) -> bool:
    try:
        msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, OSError):
        return False
    return True


def check(path: Path) -> tuple[str, str]:
    """Return (verdict, reason) for one manifest: fine, altered, missing or unreadable."""
    recording, path = path.with_suffix(".wav"), path.with_suffix(".json")
    if not path.is_file():
        return ("missing", "the manifest is missing") if recording.is_file() else ("unreadable", "no such recording")
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, OSError):
        return "unreadable", "not a recording's manifest"
    if not recording.is_file():
        return "missing", "the recording is missing"
    with recording.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ("fine", "") if digest == manifest.sha256 else ("altered", "the recording is not what was written")


def run(paths: list[str]) -> int:
    """The command. Returns 0 all fine, 1 something altered or missing, 2 something unreadable or nothing there."""
    verdicts: list[str] = []
    for path in _pairs(paths):
        verdict, reason = check(path)
        verdicts.append(verdict)
        shown = path if verdict == "unreadable" else path.with_suffix(".wav")
        print(f"{verdict:<10}  {shown}" + (f": {reason}" if reason else ""))
    if not verdicts:
        print("flattone: no recording there", file=sys.stderr)
        return 2
    return 2 if "unreadable" in verdicts else 1 if set(verdicts) != {"fine"} else 0
