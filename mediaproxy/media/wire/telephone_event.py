"""Telephone-events (RFC 4733 section 2.3): four octets."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TelephoneEvent:
    """code: 0 to 15 are keys; duration in units of the RTP clock."""

    code: int = field(repr=False)
    end: bool
    duration: int


def parse(payload: NDArray[np.uint8]) -> TelephoneEvent | None:
    """Parse the first event of a payload uint8[n]; None where it is too short."""
    if len(payload) < 4:
        return None
    return TelephoneEvent(int(payload[0]), bool(payload[1] & 0x80), int(payload[2]) << 8 | int(payload[3]))
