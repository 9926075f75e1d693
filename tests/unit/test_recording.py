"""Recordings: both legs in their place, complete files, and a disk that is full."""

import json
from pathlib import Path

import numpy as np
import pytest

from dsp import g711
from mediaproxy import wav
from mediaproxy.recording.service import Recorder
from mediaproxy.recording.writer import Recording
from mediaproxy.scan import manifest, verify


def fill(recording: Recording, seconds: float = 3.0) -> None:
    for i in range(round(seconds * 50)):
        for side, value in ((0, 0x90), (1, 0x20)):
            recording.add(side, g711.PCMU, 160 * i, 100.0 + 0.02 * i, np.full(160, value, np.uint8))
        recording.advance(100.0 + 0.02 * i)


def test_two_legs_become_stereo_of_the_calls_length(tmp_path: Path) -> None:
    recording = Recording(tmp_path, "c1", 100.0)
    fill(recording)
    path = recording.finish()
    samples, rate = wav.read(path)
    assert (rate, samples.shape[0]) == (8000, 2)
    assert abs(samples.shape[1] / 8000 - 3.0) < 0.2
    assert np.unique(samples[0, :23000]).tolist() == [g711.DECODE[0, 0x90]]
    assert np.unique(samples[1, :23000]).tolist() == [g711.DECODE[0, 0x20]]
    assert json.loads(path.with_suffix(".json").read_text())["complete"]
    assert manifest.check(path.with_suffix(".json")) == ("fine", "")
    assert not list(tmp_path.glob("*.part"))


def test_a_recording_never_overwrites_another(tmp_path: Path) -> None:
    paths = set()
    for _ in range(3):
        recording = Recording(tmp_path, "c1", 100.0)
        fill(recording, 0.2)
        paths.add(recording.finish())
    assert len(paths) == 3


def test_lost_and_silent_time_keeps_its_length(tmp_path: Path) -> None:
    recording = Recording(tmp_path, "c1", 100.0)
    for i in [*range(20), *range(70, 90)]:
        recording.add(0, g711.PCMU, 160 * i, 100.0 + 0.02 * i, np.full(160, 0x90, np.uint8))
    samples, _ = wav.read(recording.finish())
    assert abs(np.flatnonzero(samples[0] == 0).size - 50 * 160) < 1000


def test_a_changed_recording_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for name in ("a", "b", "c"):
        recording = Recording(tmp_path, name, 100.0)
        fill(recording, 0.5)
        paths.append(recording.finish())
    assert verify.run([str(tmp_path)], []) == 0
    data = bytearray(paths[0].read_bytes())
    data[5000] ^= 1
    paths[0].write_bytes(data)
    paths[1].unlink()
    assert verify.run([str(tmp_path)], []) == 1
    said = capsys.readouterr().out
    assert f"altered     {paths[0]}" in said
    assert f"missing     {paths[1]}" in said
    assert verify.run([str(tmp_path / "none")], []) == 2
    (tmp_path / "report.json").write_text("{}")
    assert verify.run([str(tmp_path)], []) == 1
    assert "report" not in capsys.readouterr().out


def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path: Path) -> None:
    full, fine = Recording(tmp_path, "full", 100.0), Recording(tmp_path, "fine", 100.0)
    full._file.close()
    full._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    recorder = Recorder.__new__(Recorder)
    recorder._recordings = {("media-0", 1): full, ("media-0", 2): fine}
    recorder._counters = {"recordings": 2.0, "failed": 0.0, "unclaimed": 0.0}
    for recording in (full, fine):
        for i in range(150):
            recording.add(0, g711.PCMU, 160 * i, 100.0 + 0.02 * i, np.full(160, 0x90, np.uint8))
    for key in list(recorder._recordings):
        recorder._guarded(key, lambda recording: recording.advance(103.0))
    assert list(recorder._recordings) == [("media-0", 2)]
    assert recorder._counters["failed"] == 1
    assert fine.finish().exists()


@pytest.mark.parametrize(("caller", "agent"), [(50e-6, -50e-6), (-50e-6, 50e-6), (0.0, 200e-6)])
def test_clocks_that_run_apart_stay_side_by_side(tmp_path: Path, caller: float, agent: float) -> None:
    """Half an hour of two senders whose clocks are off by so much: clicks said together are heard together."""
    recording = Recording(tmp_path, "drift", 0.0)
    rng = np.random.default_rng(1)
    click, quiet = np.full(160, 0x80, np.uint8), np.full(160, 0xFF, np.uint8)
    for i in range(90_000):
        for side, skew in ((0, caller), (1, agent)):
            said = 0.02 * i * (1 - skew)  # a fast clock sends its packets early
            arrival = said + 0.03 + rng.exponential(0.004)
            recording.add(side, g711.PCMU, 160 * i, arrival, click if i % 5000 == 0 else quiet)
        if i % 50 == 0:
            recording.advance(0.02 * i)
    samples, _ = wav.read(recording.finish())
    for side in (0, 1):
        at = np.flatnonzero(np.abs(samples[side]) > 0.5)
        starts = at[np.r_[True, np.diff(at) > 4000]]
        assert len(starts) == 18
    clicks = [np.flatnonzero(np.abs(samples[side]) > 0.5) for side in (0, 1)]
    starts = [at[np.r_[True, np.diff(at) > 4000]] for at in clicks]
    when = [np.arange(18) * 100.0 * (1 - skew) for skew in (caller, agent)]
    apart = (starts[0] - starts[1]) / 8000 - (when[0] - when[1])
    assert np.abs(apart).max() < 0.03
