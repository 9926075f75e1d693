"""What a supervisor should look at: counters that should not rise, processes missing, workers near their limit."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

import msgspec

from mediaproxy.ipc import messages as m

RISING: Final = {
    ("media", "guard_alarms"): "key-behind-the-mask",
    ("media", "keys_refused"): "keys-lost",
    ("media", "stalls"): "worker-held-up",
    ("media", "engine_faults"): "media-fault",
    ("media", "recording_dropped"): "recording-lost",
    ("signalling", "bugs"): "signalling-fault",
    ("recording", "failed"): "recording-failed",
    ("agent", "audit_failed"): "audit-not-written",
    ("agent", "webhooks_failed"): "receipt-not-delivered",
}
"""Counters of which every step is an alarm."""
LOADED: Final = 0.8
"""Share of a media worker's time: at 0.85 it takes no new calls."""
KEPT: Final = 200
"""Alarms remembered."""


class Alarm(msgspec.Struct, frozen=True):
    """kind: from a closed list; at: seconds since 1970; count: by how much the counter rose."""

    kind: str
    worker: str
    at: float
    count: int = 1


class Alarms:
    """Those that were, latest last, and what is wrong now."""

    def __init__(self) -> None:
        self.past: deque[Alarm] = deque(maxlen=KEPT)
        self._before: m.Counters | None = None

    def look(self, now: m.Counters) -> None:
        """Compare with the last look. A counter that fell is of a restarted process, and counts from nothing."""
        before, self._before = self._before, now
        if before is None:
            return
        at = time.time()
        for worker, values in now.roles.items():
            role, old = worker.partition("-")[0], before.roles.get(worker, {})
            for name, value in values.items():
                kind = RISING.get((role, name))
                known = old.get(name, 0.0)
                rise = int(value - known if value >= known else value)
                if kind and rise:
                    self.past.append(Alarm(kind, worker, at, rise))
        for worker, count in now.restarts.items():
            rise = count - before.restarts.get(worker, 0)
            if rise:
                self.past.append(Alarm("process-restarted", worker, at, rise))

    def present(self) -> list[Alarm]:
        """What is wrong now."""
        found, at = [], time.time()
        for worker, values in (self._before.roles if self._before is not None else {}).items():
            if not values.get("ready"):
                found.append(Alarm("process-missing", worker, at))
            if values.get("load", 0.0) >= LOADED:
                found.append(Alarm("worker-near-its-limit", worker, at))
        return found
