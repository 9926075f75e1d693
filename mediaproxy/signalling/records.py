"""Call records: one line of JSON a call, written when it ends. Numbers dialled, never numbers keyed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

import msgspec

from mediaproxy import log
from sip.b2bua.events import Summary


@dataclass(slots=True)
class Story:
    """What becomes a record."""

    began: float
    answered: float = 0.0
    captures: int = 0
    transfers: int = 0
    modes: list[str] = field(default_factory=list)


class Records:
    """path: a file to append to; empty: none is written."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self.failed = 0

    def write(self, call: str, was: Summary, story: Story, reason: str, status: int) -> None:
        """Write one line. A file that cannot be written is counted and told of; the call is not harmed."""
        if not self._path:
            return
        now = time.time()
        record = {
            "call": call,
            "direction": "inbound" if was.inbound else "outbound",
            "route": was.route,
            "peers": was.peers,
            "sip_call_ids": was.call_ids,
            "from": was.caller,
            "to": was.called,
            "began": _stamp(story.began),
            "answered": _stamp(story.answered) if story.answered else None,
            "ended": _stamp(now),
            "seconds": round(now - story.answered, 3) if story.answered else 0,
            "status": status,
            "reason": reason,
            "codec": was.codec,
            "srtp": was.srtp,
            "modes": story.modes,
            "captures": story.captures,
            "transfers": story.transfers,
        }
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            os.write(self._fd, msgspec.json.encode(record) + b"\n")
        except OSError as error:
            self.failed += 1
            log.get().error("record-not-written", call=call, error=type(error).__name__)

    def reopen(self) -> None:
        """Begin a new file where the old one has been moved away."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
