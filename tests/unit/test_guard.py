"""The guard hears keys that a broken mask lets through, and nothing else."""

import numpy as np
import pytest

from dsp import g711, synth
from dsp.guard import Guard
from dsp.mask import MaskLine

CODEC = np.zeros(1, np.intp)
SLOT = np.zeros(1, np.intp)


def alarms(octets: np.ndarray, sizes: list[int]) -> list[int]:
    """Where the guard raised an alarm, in samples."""
    guard, at, i, found = Guard(1), 0, 0, []
    while at + sizes[i % len(sizes)] <= len(octets):
        size = sizes[i % len(sizes)]
        if guard.alarms(SLOT, octets[None, at : at + size], CODEC)[0]:
            found.append(at + size)
        at, i = at + size, i + 1
    return found


@pytest.mark.parametrize("sizes", [[80], [160], [240], [480], [161, 47]], ids=str)
def test_every_key_of_70_ms_is_heard_before_it_ends_or_soon_after(sizes: list[int]) -> None:
    rng = np.random.default_rng(1)
    presses = [synth.Press(int(k), 70, -14, rng.uniform(-6, 4), *rng.uniform(-0.015, 0.015, 2)) for k in range(16)]
    audio, marks = synth.keying(presses, rng, (100, 140), noise_dbm0=-40)
    found = np.array(alarms(g711.encode(audio, g711.PCMU), sizes))
    for start, end in marks:
        assert ((found > start) & (found <= end + max(sizes) + 160)).any()


@pytest.mark.parametrize("kind", ["speech", "flat tone", "noise", "one tone", "silence", "dial tone", "20 ms key"])
def test_nothing_else_raises_an_alarm(kind: str) -> None:
    rng = np.random.default_rng(2)
    t = np.arange(240000) / 8000
    if kind == "flat tone":
        octets = MaskLine(1).flat(g711.PCMU, 0, 80000)
    elif kind == "20 ms key":
        audio, _ = synth.keying([synth.Press(5, 20)] * 20, rng)
        octets = g711.encode(audio, g711.PCMU)
    else:
        audio = {
            "speech": synth.speechlike(30, rng),
            "noise": rng.normal(0, 0.1, 80000),
            "one tone": 0.3 * np.sin(2 * np.pi * 770 * t),
            "silence": np.zeros(8000),
            "dial tone": 0.1 * (np.sin(2 * np.pi * 350 * t) + np.sin(2 * np.pi * 440 * t)),
        }[kind]
        octets = g711.encode(audio.astype(np.float32), g711.PCMU)
    assert alarms(octets, [160]) == []


def test_streams_do_not_disturb_one_another() -> None:
    rng = np.random.default_rng(3)
    keys, _ = synth.keying([synth.Press(3, 100)] * 4, rng)
    rows = np.stack([g711.encode(keys, g711.PCMU), np.full(len(keys), 0xFF, np.uint8)])
    guard = Guard(4)
    heard = []
    for at in range(0, rows.shape[1] - 160, 160):
        order = rng.permutation(2)
        alarm = guard.alarms(np.array([3, 1])[order], rows[order, at : at + 160], np.zeros(2, np.intp))
        heard.append(alarm[np.argsort(order)])
    assert np.stack(heard).any(axis=0).tolist() == [True, False]
