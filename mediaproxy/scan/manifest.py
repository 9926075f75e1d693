"""Recordings against their manifests, for `flattone verify`."""

from __future__ import annotations

import hashlib
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


def inside(folder: Path) -> Iterator[Path]:
    """The manifests in a folder, and where one should be; other JSON files are passed over."""
    found = {path.with_suffix(".json") for path in folder.rglob("*.wav")}
    yield from sorted(found | set(filter(_is_manifest, folder.rglob("*.json"))))


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
        return (
            ("missing", "the manifest is missing") if recording.is_file() else ("unreadable", "there is no such file")
        )
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, OSError):
        return "unreadable", "not a recording's manifest"
    if not recording.is_file():
        return "missing", "the recording is missing"
    with recording.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ("fine", "") if digest == manifest.sha256 else ("altered", "the recording is not what was written")
