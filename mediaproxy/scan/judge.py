"""One channel of audio: whole keys and residues, where and how long, never which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsp import decoder, residue


@dataclass(frozen=True, slots=True)
class Finding:
    """kind: key or residue; start and milliseconds; channel from 0."""

    channel: int
    kind: str
    start_seconds: float
    milliseconds: float


def judge(channel: int, samples: NDArray[np.float32]) -> list[Finding]:
    """Findings in float32[n] at 8000 Hz."""
    keys = [
        Finding(channel, "key", round(k.start / 8000, 3), round((k.end - k.start) / 8, 1))
        for k in decoder.decode_keys(samples, 8000)
    ]
    taken = np.zeros(len(samples) + 1, np.bool_)
    for key in keys:
        start = int(key.start_seconds * 8000)
        taken[max(0, start - 160) : start + int(key.milliseconds * 8) + 160] = True
    residues = [
        Finding(channel, "residue", round(r.start / 8000, 3), round((r.end - r.start) / 8, 1))
        for r in residue.find(samples, 8000)
        if not taken[r.start : r.end].any()
    ]
    return sorted(keys + residues, key=lambda finding: finding.start_seconds)
