"""Payload formats: one file each, and here the tables that the engine looks them up in.

To add one, write its file with a FORMAT and name it in `FORMATS`. An audio format whose octets are not G.711 also needs
what `dsp.g711` gives for the two that are: octets to samples and back, and its silence.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from mediaproxy.media.codec import comfort_noise, pcma, pcmu, telephone_event
from mediaproxy.media.codec.format import AUDIO, EVENT, NOISE, Format

FORMATS: Final[tuple[Format, ...]] = (pcmu.FORMAT, pcma.FORMAT, comfort_noise.FORMAT, *telephone_event.FORMATS)
"""In the order of their numbers, which index every table of the engine; the audio ones are those of `dsp.g711`."""
KINDS: Final = {form.encoding: number for number, form in enumerate(FORMATS)}
ROLE: Final = np.array([form.role for form in FORMATS], np.uint8)
SCALE: Final = np.array([form.clock // 8000 for form in FORMATS], np.int64)
"""Ticks of the format's RTP clock for each of the audio's."""

__all__ = ["AUDIO", "EVENT", "FORMATS", "KINDS", "NOISE", "ROLE", "SCALE", "Format"]
