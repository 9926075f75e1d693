"""`flattone mask` as its user runs it, and what an attacker makes of its output."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.material import TUNE, Condition, keying
from dsp import g711, synth
from mediaproxy import wav
from mediaproxy.demo import attacker
from tests.attacker import card, trained
from tests.fixtures import keyed

FLAT = (540.0, -18.0)


def mask(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mediaproxy", "mask", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_nobody_names_a_key_behind_the_guarded_mask(tmp_path: Path) -> None:
    """2,000 random keys at random packet phase: a trained and a matched-filter attacker, with their controls."""
    octets, keys, marks = keyed.digits(2000, 42)
    wav.write(tmp_path / "in.wav", g711.DECODE_INT16[0][octets])
    done = mask(tmp_path / "in.wav", tmp_path / "out.wav")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["delay_ms"] == 8
    assert abs(line["keys"] - 2000) <= 10
    assert set(line) >= {"delay_ms", "masked_ms", "keys", "packets", "lost"}
    samples, rate = wav.read(tmp_path / "out.wav")
    assert (rate, samples.shape) == (8000, (1, len(octets) + 64))
    heard = g711.encode(samples[0], g711.PCMU)

    verdict = attacker.attack(octets, heard, keys, marks, 64, FLAT)
    assert verdict.valid, verdict
    masked, open_ = scenes(octets, heard, keys, marks)
    residue = trained.only(open_, open_.octets, 16)
    named, control, from_2_ms = (trained.forest(*halves(scene)) for scene in (masked, open_, residue))
    assert control.share >= 0.99
    assert from_2_ms.share >= 0.95
    print(f"recovery: matched filter {verdict.masked:.3f}, trained {named.share:.3f}, chance 0.1")
    assert verdict.masked <= 0.1 + 3 * verdict.margin
    assert named.share <= 0.1 + 3 * (0.09 / 1000) ** 0.5
    assert named.surest <= 0.5  # of ten keys
    assert 0.3 < np.median(card.ranks(named, 30)) < 0.7


@pytest.mark.parametrize("talk", [-6, 0])
def test_nobody_names_a_key_under_speech_while_armed(tmp_path: Path, talk: int) -> None:
    """The caller talks as he keys: the band of the keypad is rebuilt, and the forest learns nothing from the rest."""
    source = keying(Condition(level=(-18, -14), talk=talk), 2400, 7, 1, TUNE)
    octets = g711.encode(source.audio[0], g711.PCMU)
    wav.write(tmp_path / "in.wav", g711.DECODE_INT16[0][octets])
    done = mask(tmp_path / "in.wav", tmp_path / "out.wav", "--mode", "armed")
    assert done.returncode == 0, done.stderr
    heard = g711.encode(wav.read(tmp_path / "out.wav")[0][0], g711.PCMU)
    masked, open_ = scenes(octets, heard, source.keys[0], source.marks[0])
    assert trained.matched(open_).share >= 0.95  # speech is over it, and still
    named = trained.forest(*halves(masked))
    assert named.share <= 0.1 + 3 * (0.09 / 1200) ** 0.5


def scenes(
    octets: np.ndarray, heard: np.ndarray, keys: np.ndarray, marks: np.ndarray
) -> tuple[trained.Scene, trained.Scene]:
    """What the agent hears, and the same keys with nothing masked."""
    struck = trained.flat_or_silent(heard[None, :], *FLAT)
    open_ = np.concatenate([np.full(64, 0xFF, np.uint8), octets])[None, :]
    behind = marks[None] + 64
    nothing = np.zeros_like(struck)
    return trained.Scene(heard[None, :], behind, keys[None], struck), trained.Scene(open_, behind, keys[None], nothing)


def halves(scene: trained.Scene) -> tuple[trained.Scene, trained.Scene]:
    """The first half of the keys to learn from, the second to name."""
    half = scene.digits.shape[1] // 2
    return tuple(  # type: ignore[return-value]
        trained.Scene(scene.octets, scene.marks[:, part], scene.digits[:, part], scene.struck)
        for part in (slice(0, half), slice(half, None))
    )


def test_the_output_is_the_input_8_ms_later_where_nothing_is_masked(tmp_path: Path) -> None:
    speech = g711.encode(synth.speechlike(10, np.random.default_rng(1)), g711.PCMU)
    wav.write(tmp_path / "in.wav", g711.DECODE_INT16[0][speech])
    for mode in ("passthrough", "guarded"):
        done = mask(tmp_path / "in.wav", tmp_path / "out.wav", "--mode", mode)
        samples, _ = wav.read(tmp_path / "out.wav")
        out = g711.to_int16(samples[0])[128:]
        same = out == g711.DECODE_INT16[0][speech][64:]
        masked = json.loads(done.stdout)["masked_ms"] * 8
        assert (~same).sum() <= masked
        assert mode == "guarded" or same.all()


@pytest.mark.parametrize("codec", ["pcmu", "pcma"])
@pytest.mark.parametrize("loss", [("0.01", "1"), ("0.2", "3")])
def test_loss_leaks_nothing(tmp_path: Path, codec: str, loss: tuple[str, str]) -> None:
    octets, keys, marks = keyed.digits(300, 7)
    wav.write(tmp_path / "in.wav", g711.DECODE_INT16[0][octets])
    done = mask(
        tmp_path / "in.wav", tmp_path / "out.wav", "--codec", codec, "--loss", loss[0], "--burst", loss[1], "--seed", 3
    )
    assert json.loads(done.stdout)["lost"] > 0
    samples, _ = wav.read(tmp_path / "out.wav")
    heard = g711.encode(samples[0], g711.PCMU)
    verdict = attacker.attack(octets, heard, keys, marks, 64, FLAT)
    assert verdict.valid
    assert verdict.masked <= 0.1 + 3 * verdict.margin


@pytest.mark.parametrize("wrong", ["stereo", "rate", "text", "cut", "missing", "loss", "ptime"], ids=str)
def test_wrong_input_exits_2_and_says_why(tmp_path: Path, wrong: str) -> None:
    source, extra = tmp_path / "in.wav", []
    if wrong == "stereo":
        wav.write(source, np.zeros((2, 800), np.int16))
    elif wrong == "rate":
        wav.write(source, np.zeros(800, np.int16), 16000)
    elif wrong == "text":
        source.write_text("4111111111111111")
    elif wrong != "missing":
        wav.write(source, np.zeros(800, np.int16))
    if wrong == "cut":
        source.write_bytes(source.read_bytes()[:500])
    extra = {"loss": ["--loss", "2"], "ptime": ["--ptime", "7"]}.get(wrong, [])
    done = mask(source, tmp_path / "out.wav", *extra)
    assert done.returncode == 2
    assert done.stderr
    assert "4111" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.wav").exists()
