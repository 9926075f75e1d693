"""The scanner: whole keys dirty, residues suspect, masked and spoken audio clean, unreadable files named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dsp import g711, synth
from mediaproxy import offline, wav
from mediaproxy.scan import command
from tests.fixtures import keyed

PROMPTS = Path("/usr/share/asterisk/sounds")


def scan(*paths: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mediaproxy", "scan", "--json", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_recording_before_the_mask_is_dirty_and_after_it_clean(tmp_path: Path) -> None:
    octets, keys, _ = keyed.digits(60, 3, noise=-50, level=(-20, -6))
    wav.write(tmp_path / "raw.wav", g711.DECODE_INT16[0][octets])
    wav.write(tmp_path / "masked.wav", g711.DECODE_INT16[0][offline.mask(octets).octets])
    done = scan(tmp_path / "raw.wav", tmp_path / "masked.wav")
    assert done.returncode == 1
    raw, masked = json.loads(done.stdout)["results"]
    assert (raw["state"], raw["keys"]) == ("dirty", len(keys))
    assert masked["state"] == "clean"
    for digit_holder in ('key": "', "digit"):
        assert digit_holder not in done.stdout


@pytest.mark.parametrize("ms", [4, 5, 8, 12])
def test_a_residue_beside_the_flat_tone_is_suspect(ms: float) -> None:
    """Milliseconds of a key, left at the edge of a mask, at 30 dB over the noise."""
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(40):
        t = np.arange(1600) / 8000
        audio = (g711.amplitude(-18) * np.sin(2 * np.pi * 540 * t)).astype(np.float32)
        size = round(ms * 8)
        tone = synth.tone_pair(
            synth.Press(int(rng.integers(12)), ms, -16), phases=(rng.uniform(0, 6), rng.uniform(0, 6))
        )
        audio[800 - size : 800] = tone[:size]
        audio[: 800 - size] = 0
        audio += rng.normal(0, g711.amplitude(-50), 1600).astype(np.float32)
        found += bool(command.judge(0, g711.decode(g711.encode(audio, 0), 0)))
    assert found >= 32, found


def test_speech_is_clean(tmp_path: Path) -> None:
    """Free recorded prompts of a real voice: no key, and few false residues."""
    files = sorted(PROMPTS.rglob("*.wav"))[:250]
    assert files, "asterisk-core-sounds-en-wav is not installed: make peers"
    verdicts = [command.judge_file(path) for path in files]
    seconds = sum(v.seconds for v in verdicts)
    assert seconds > 300
    assert sum(v.keys for v in verdicts) == 0
    print(f"{sum(v.residues for v in verdicts)} false residues in {seconds:.0f} s of speech")
    assert sum(v.residues for v in verdicts) <= seconds / 20


def test_stereo_and_other_rates_are_read(tmp_path: Path) -> None:
    octets, keys, _ = keyed.digits(10, 3, noise=-50, level=(-20, -6))
    eight = g711.DECODE_INT16[0][octets]
    wav.write(tmp_path / "stereo.wav", np.stack([np.zeros_like(eight), eight]))
    wav.write(tmp_path / "sixteen.wav", np.repeat(eight, 2), 16000)
    done = scan(tmp_path)
    results = {Path(r["path"]).name: r for r in json.loads(done.stdout)["results"]}
    assert results["stereo.wav"]["keys"] == len(keys)
    assert {f["channel"] for f in results["stereo.wav"]["findings"]} == {1}
    assert results["sixteen.wav"]["keys"] == len(keys)


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "b\nname.wav").write_bytes(b"")
    wav.write(tmp_path / "c.wav", np.zeros(8000, np.int16))
    (tmp_path / "cut.wav").write_bytes((tmp_path / "c.wav").read_bytes()[:500])
    done = scan(tmp_path, tmp_path / "none.wav")
    assert done.returncode == 2
    states = {Path(r["path"]).name: r["state"] for r in json.loads(done.stdout)["results"]}
    assert states == {
        "a.wav": "unreadable",
        "b\nname.wav": "unreadable",
        "c.wav": "clean",
        "cut.wav": "unreadable",
        "none.wav": "unreadable",
    }


def test_a_report_is_written(tmp_path: Path) -> None:
    wav.write(tmp_path / "c.wav", np.zeros(8000, np.int16))
    assert command.run([str(tmp_path)], str(tmp_path / "out"), False) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["clean"] == 1
    (tmp_path / "empty").mkdir()
    assert command.run([str(tmp_path / "empty")], None, False) == 2
