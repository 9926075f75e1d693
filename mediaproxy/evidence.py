"""The forms of what `flattone verify` checks, as those who write it and those who read it know them.

Beside the recordings lie a manifest for each, and one journal of them all:

    NAME.wav            the audio (or .opus, .mp3)
    NAME.json           its manifest, a signed document (mediaproxy.signing)
    recordings.jsonl    chained lines (mediaproxy.chain): one a recording, one a recording that was deleted

Each line of the journal holds the hashes of a recording and its manifest; each manifest holds the number of its line
and the hash of the line before. So neither can be changed, left out or put in without the other, nor the journal made
anew without the key; that its end is missing shows against an anchor kept elsewhere.

A scan's report is a signed document `report.json` with the hashes of the other files of the report, and the root of a
Merkle tree over all results.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

FORMAT: Final = "flattone-recording/1"
REPORT: Final = "report.json"
REPORT_PARTS: Final = ("report.html", "report.csv", "incidents.json")
REPORT_FORMAT: Final = "flattone-scan-report/1"
JOURNAL: Final = "recordings.jsonl"
CHANNELS: Final = ("heard by agent", "said by agent")
SUFFIXES: Final = {"wav": ".wav", "wav-ulaw": ".wav", "opus": ".opus", "mp3": ".mp3"}
"""Of each form of recording."""


class ModeAt(msgspec.Struct, frozen=True):
    """at: seconds into the recording from which the caller's leg was in `mode`."""

    at: float
    mode: str


class AlarmAt(msgspec.Struct, frozen=True):
    """at: seconds into the recording; kind: guard, sealed, audio-lost and others of closed lists."""

    at: float
    kind: str


class Manifest(msgspec.Struct, kw_only=True, frozen=True):
    """masked: intervals in seconds in which the flat tone, or silence in its place, stood for the caller's audio, as
    wide as the packets that hold it; silent: those in which a policy kept the recording silent, both ways or the
    caller's. began, seconds: empty and null where a recorder died and nobody knows. seq and previous: the place of its
    line in the journal, and the hash of the line before."""

    format: str = FORMAT
    call: str
    route: str
    file: str
    sha256: str
    began: str
    seconds: float | None
    complete: bool
    form: str
    channels: tuple[str, ...] = CHANNELS
    modes: tuple[ModeAt, ...]
    masked: tuple[tuple[float, float], ...]
    silent: tuple[tuple[float, float], ...]
    alarms: tuple[AlarmAt, ...]
    version: str
    seq: int
    previous: str


class Entry(msgspec.Struct, frozen=True):
    """A line of the journal beside what chains it. event: recorded, or deleted (a tombstone, itself a signed document
    with the number of the recording's line as `recorded`, and why)."""

    seq: int
    event: str
    file: str
    sha256: str
    manifest: str = ""
    at: str = ""
    recorded: int = 0
    reason: str = ""
    signature: dict[str, Any] | None = None


def tombstone(entry: Entry, previous: str) -> dict[str, Any]:
    """What the signature of a tombstone is of."""
    return {
        "seq": entry.seq, "previous": previous, "event": entry.event, "file": entry.file, "sha256": entry.sha256,
        "at": entry.at, "recorded": entry.recorded, "reason": entry.reason,
    }  # fmt: skip


def leaf(path: str, size: int, sha256: str, state: str) -> bytes:
    """What a scanned file is in the Merkle tree of a report."""
    return msgspec.json.encode([path, size, sha256, state])
