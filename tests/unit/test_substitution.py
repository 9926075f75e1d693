"""Substitution: the keypad's band never leaves as it came, the speaker is still there, and nothing clicks."""

import numpy as np
import pytest

from dsp import g711, keypad, synth
from dsp.mask import MaskLine
from dsp.substitution import HISTORY, Substitution

SLOT = np.zeros(1, np.intp)
ON, OFF = np.ones(1, np.bool_), np.zeros(1, np.bool_)


def through(audio: np.ndarray, size: int = 160, slots: int = 1) -> np.ndarray:
    """One stream through Substitution alone, from a cold start."""
    rebuilt = Substitution(slots, seed=1)
    rebuilt.reset(SLOT)
    padded = np.concatenate([np.zeros(HISTORY, np.float32), audio.astype(np.float32)])
    blocks = range(0, len(audio) - size + 1, size)
    return np.concatenate([rebuilt.process(SLOT, padded[None, at : at + HISTORY + size])[0] for at in blocks])


def band(audio: np.ndarray, low: float, high: float) -> float:
    """Power between two frequencies."""
    spectrum = np.square(np.abs(np.fft.rfft(audio * np.hanning(len(audio)))))
    hz = np.fft.rfftfreq(len(audio), 1 / 8000)
    return float(spectrum[(hz >= low) & (hz <= high)].sum())


@pytest.mark.parametrize("key", range(16))
def test_a_tone_leaves_no_line_at_its_frequency(key: int) -> None:
    tone = synth.tone_pair(synth.Press(key, 1000, -12))
    out = through(tone)[2000:]
    for hz in keypad.pair(key):
        near, around = band(out, hz - 6, hz + 6) / 12, band(out, hz - 60, hz + 60) / 120
        assert near < 12 * around  # noise, not a line: a tone would stand 25 dB over what is around it
        assert near < 0.1 * band(tone[2000:], hz - 6, hz + 6) / 12  # its power, spread over the band


def test_any_packetisation_gives_the_same() -> None:
    speech = synth.speechlike(1.2, np.random.default_rng(1))
    whole = through(speech, 480)
    for size in (80, 88, 160, 240):
        part = through(speech, size)
        n = min(len(part), len(whole))
        assert np.abs(part[:n] - whole[:n]).max() < 1e-4


def test_level_and_delay_are_kept() -> None:
    speech = synth.speechlike(4, np.random.default_rng(2))
    out = through(speech)
    before, after = speech[: len(out) - 64], out[64:]
    assert abs(10 * np.log10(np.square(after).mean() / np.square(before).mean())) < 1.5
    low = np.fft.irfft(np.where(np.fft.rfftfreq(len(before), 1 / 8000) < 450, 1, 0) * np.fft.rfft(before))
    lags = [float(low[200:-200] @ after[200 + lag : len(after) - 200 + lag]) for lag in range(-8, 9)]
    assert int(np.argmax(lags)) == 8  # 64 samples late, neither more nor less


def test_silence_stays_silence_and_extremes_stay_finite() -> None:
    assert np.abs(through(np.zeros(3200))).max() < 1e-4
    for audio in (np.ones(3200), np.where(np.arange(3200) % 40 < 20, 1.0, -1.0), 1e-9 * np.ones(3200)):
        assert np.isfinite(through(audio)).all()


@pytest.mark.parametrize("size", [80, 160, 240, 480])
def test_arming_and_releasing_do_not_click_and_change_nothing_else(size: int) -> None:
    octets = g711.encode(synth.speechlike(3, np.random.default_rng(3), -25), g711.PCMU)
    line, out = MaskLine(1, seed=1), []
    for at in range(0, len(octets) - size + 1, size):
        armed = ON if 8000 <= at < 16000 else OFF
        stamp = np.array([at], np.uint32)
        block = line.push(SLOT, octets[None, at : at + size], SLOT, stamp, OFF, OFF, substitute=armed)
        out.append(block.octets[0])
    heard = np.concatenate(out)
    first = -(-8000 // size) * size
    last = -(-16000 // size) * size + 64
    assert (heard[128:first] == octets[64 : first - 64]).all()
    assert (heard[last:] == octets[last - 64 : len(heard) - 64]).all()
    step = np.abs(np.diff(g711.decode(heard, g711.PCMU)))
    usual = np.abs(np.diff(g711.decode(octets, g711.PCMU))).max()
    for edge in (first, last - 64):
        assert step[edge - 2 : edge + 70].max() <= 1.2 * usual


def test_what_cannot_be_rebuilt_is_masked() -> None:
    octets = g711.encode(synth.speechlike(1, np.random.default_rng(4)), g711.PCMU)
    line = MaskLine(1, seed=1)
    for at in range(0, 4800, 161):
        stamp = np.array([at], np.uint32)
        out = line.push(SLOT, octets[None, at : at + 161], SLOT, stamp, OFF, OFF, substitute=ON).octets[0]
        assert (out == line.flat(g711.PCMU, at, 161)).all()
