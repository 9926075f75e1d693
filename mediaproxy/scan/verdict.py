"""What the scanner says of a file. Nothing here can hold a digit, or a picture from which one could be read."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["clean", "suspect", "dirty", "unreadable", "passed over"]
Kind = Literal["key", "residue", "telephone-event"]
ORDER: tuple[State, ...] = ("dirty", "suspect", "unreadable", "clean", "passed over")
"""What to look at first."""


class Finding(msgspec.Struct, frozen=True):
    """A run of keys or residues in one channel, none more than a few seconds after the one before.

    start: seconds into the file; seconds: from the first one's start to the last one's end; keys: how many whole keys
    or telephone-events; pieces: how many residues beside them; milliseconds: the longest of them; level: the loudest,
    in steps of 3 dBm0. score: how much each `score_step` seconds from `score_start` on look like a key, 0 to 1, in
    steps of 0.1; a little of what is around the run is in it.
    """

    channel: int
    kind: Kind
    start: float
    seconds: float
    keys: int
    pieces: int
    milliseconds: int
    level: int
    score_start: float
    score_step: float
    score: tuple[float, ...]


class Planted(msgspec.Struct, frozen=True):
    """How many known positives the scan put into copies of the audio, and how many of them it found."""

    planted: int = 0
    found: int = 0

    def plus(self, other: Planted) -> Planted:
        return Planted(self.planted + other.planted, self.found + other.found)


class FileVerdict(msgspec.Struct, frozen=True):
    """state: dirty (whole keys or telephone-events), suspect (residues), unreadable (also in part, where nothing was
    found in the rest), clean, or passed over: no audio by content or name. reason: why it could not be read, or not
    to its end. remarks: what an auditor should know though it was read. runs: all findings; the list may be
    shorter. channel_seconds: of all channels together. stamp: size and time of change, or what a store has for it.
    """

    path: str
    state: State
    reason: str = ""
    form: str = ""
    seconds: float = 0.0
    channels: int = 0
    size: int = 0
    sha256: str = ""
    keys: int = 0
    residues: int = 0
    runs: int = 0
    findings: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = ()
    planted: dict[str, Planted] = {}
    channel_seconds: float = 0.0
    stamp: str = ""

    @property
    def failed(self) -> bool:
        """Whether it was not read to its end."""
        return bool(self.reason)
