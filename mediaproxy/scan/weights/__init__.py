"""The detectors' networks, as `python -m benchmarks.residue_training` has made them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from dsp.network import Network

FOLDER: Final = Path(__file__).parent
NAMES: Final = ("residue", "wholekey", "wholekey-band")


@cache
def network(name: str) -> Network:
    """One of `NAMES`."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return Network(dict(arrays))


@cache
def digest() -> str:
    """SHA-256 of all, for a report that says what has judged."""
    return hashlib.sha256(b"".join((FOLDER / f"{n}.npz").read_bytes() for n in NAMES)).hexdigest()
