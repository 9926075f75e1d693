"""multimon-ng's DTMF decoder (GPL), as a program. Debian: multimon-ng, sox."""

from __future__ import annotations

import re
import subprocess

import numpy as np
from numpy.typing import NDArray


def decode(samples: NDArray[np.int16]) -> str:
    """The keys that multimon-ng hears in int16[n] at 8 kHz: it takes raw audio at 22,050 Hz."""
    raw = ["-t", "raw", "-e", "signed", "-b", "16", "-c", "1"]
    up = ["sox", *raw, "-r", "8000", "-", *raw, "-r", "22050", "-"]
    audio = subprocess.run(up, input=samples.astype("<i2").tobytes(), capture_output=True, check=True).stdout
    listen = ["multimon-ng", "-q", "-a", "DTMF", "-t", "raw", "-"]
    said = subprocess.run(listen, input=audio, capture_output=True, check=True).stdout.decode()
    return "".join(re.findall(r"^DTMF: (.)", said, re.MULTILINE))
