"""What the engine must know of a payload format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

AUDIO: Final = 0
EVENT: Final = 1
NOISE: Final = 2


@dataclass(frozen=True, slots=True)
class Format:
    """encoding: its name in SDP, with the clock rate; role: AUDIO, EVENT or NOISE; clock: of its timestamps, Hz."""

    encoding: str
    role: int
    clock: int = 8000
