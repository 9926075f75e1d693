"""What the caller sent above what the agent heard. Of test cards only: a spectrogram of a key is the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from dsp import g711

matplotlib.use("Agg")
from matplotlib import pyplot

_SMALL: dict[str, Any] = {"fontsize": 8, "color": "white", "ha": "right", "va": "top"}
LABEL = "published test card, keyed for this demo"


def draw(path: Path, sent: NDArray[np.uint8], heard: NDArray[np.uint8]) -> None:
    """Write a PNG of two recordings, uint8[n] each, µ-law."""
    figure, axes = pyplot.subplots(2, 1, figsize=(11, 6.2), sharex=True, sharey=True, layout="constrained")
    titles = ("what the caller sent", "what the agent and the recording heard")
    for axis, octets, title in zip(axes, (sent, heard), titles, strict=True):
        audio = g711.decode(octets, g711.PCMU) + np.random.default_rng(0).normal(0, 1e-5, len(octets))
        axis.specgram(audio, NFFT=256, Fs=8000, noverlap=192, cmap="magma", vmin=-130, vmax=-45)
        axis.set_ylim(0, 2200)
        axis.set_title(title, loc="left", fontsize=12, fontweight="bold")
        axis.set_ylabel("Hz")
    for hz in (697, 770, 852, 941, 1209, 1336, 1477, 1633):
        axes[1].axhline(hz, color="white", linewidth=0.4, alpha=0.35)
    axes[1].text(0.995, 0.97, "thin lines: the keypad's frequencies", transform=axes[1].transAxes, **_SMALL)
    axes[1].set_xlabel("seconds")
    figure.suptitle(f"TEST CARD: {LABEL}", fontsize=9, color="grey", x=0.99, ha="right")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
