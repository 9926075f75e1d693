"""Recordings: both legs in their place, every form of file, what the manifest tells, the journal, time's end, a full disk."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dsp import g711
from mediaproxy import evidence, wav
from mediaproxy.config import RecordingConfig
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.channel import LARGEST, Channel, pair
from mediaproxy.ipc.tap import AFTER_LOSS, AUDIO, MASKED, SILENT, Tap
from mediaproxy.recording import sinks
from mediaproxy.recording.archive import Archive
from mediaproxy.recording.service import Recorder
from mediaproxy.recording.writer import Recording
from mediaproxy.scan import audio
from mediaproxy.verify import command as verify


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """(private, public) in PEM, outside the archive."""
    folder = tmp_path / "keys"
    folder.mkdir()
    key = Ed25519PrivateKey.generate()
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "recordings"
    made.mkdir()
    return made


@pytest.fixture
def archive(folder: Path, keys: tuple[Path, Path]) -> Iterator[Archive]:
    opened = Archive(RecordingConfig(directory=str(folder), signing_key=str(keys[0])))
    yield opened
    opened.close()


def fill(recording: Recording, seconds: float = 3.0) -> None:
    for i in range(round(seconds * 50)):
        for side, value in ((0, 0x90), (1, 0x20)):
            recording.add(side, g711.PCMU, 160 * i, 100.0 + 0.02 * i, np.full(160, value, np.uint8))
        recording.advance(100.0 + 0.02 * i)


def record(archive: Archive, call: str = "c1", seconds: float = 0.5) -> Path:
    recording = archive.begin(call, "line", "guarded", 100.0)
    fill(recording, seconds)
    return archive.end(recording, complete=True)


def about(path: Path) -> evidence.Manifest:
    document = json.loads(path.with_suffix(".json").read_text())
    del document["signature"]
    return msgspec.convert(document, evidence.Manifest)


def test_two_legs_become_stereo_of_the_calls_length(archive: Archive, folder: Path) -> None:
    path = record(archive, seconds=3.0)
    with path.open("rb") as file:
        source = audio.Source(file, "wav")
        blocks = list(source.blocks())
    sides = [np.concatenate([block for place, block in blocks if place == (0, n)]) for n in (0, 1)]
    assert source.channels == 2
    assert abs(len(sides[0]) / 8000 - 3.0) < 0.2
    assert np.unique(sides[0][:23000]).tolist() == [g711.DECODE[0, 0x90]]
    assert np.unique(sides[1][:23000]).tolist() == [g711.DECODE[0, 0x20]]
    assert wav.read(path)[1] == 8000
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize(("form", "sniffed"), [("wav", "wav"), ("wav-ulaw", "wav"), ("opus", "ogg"), ("mp3", "mp3")])
def test_every_form_holds_the_caller_left_and_the_agent_right(folder: Path, form: str, sniffed: str) -> None:
    archive = Archive(RecordingConfig(directory=str(folder), format=form))
    recording = archive.begin("c1", "line", "guarded", 0.0)
    for i in range(200):
        for side, hz in ((0, 400), (1, 1000)):
            t = (160 * i + np.arange(160)) / 8000
            octets = g711.encode((0.3 * np.sin(2 * np.pi * hz * t)).astype(np.float32), 0)
            recording.add(side, g711.PCMU, 160 * i, 0.02 * i, octets)
        recording.advance(0.02 * i)
    path = archive.end(recording, complete=True)
    archive.close()
    with path.open("rb") as file:
        source = audio.Source(file, sniffed)
        blocks = list(source.blocks())
    assert source.reason == ""
    for channel, hz in ((0, 400), (1, 1000)):
        heard = np.concatenate([block for place, block in blocks if place == (0, channel)])[4000:28000]
        loudest = np.abs(np.fft.rfft(heard * np.hanning(len(heard)))).argmax() * 8000 / len(heard)
        assert loudest == pytest.approx(hz, abs=2)
        assert 0.1 < np.sqrt(np.mean(np.square(heard))) < 0.4
    assert verify.run([str(folder)]) == 0


def test_a_recording_never_overwrites_another(archive: Archive) -> None:
    assert len({record(archive, seconds=0.2) for _ in range(3)}) == 3


def test_lost_and_silent_time_keeps_its_length(archive: Archive) -> None:
    recording = archive.begin("c1", "line", "guarded", 100.0)
    for i in [*range(20), *range(70, 90)]:
        recording.add(0, g711.PCMU, 160 * i, 100.0 + 0.02 * i, np.full(160, 0x90, np.uint8))
    samples, _ = wav.read(archive.end(recording, complete=True))
    assert abs(np.flatnonzero(samples[0] == 0).size - 50 * 160) < 1000


def test_the_manifest_tells_modes_masks_silence_and_alarms(archive: Archive) -> None:
    recording = archive.begin("c1", "line", "guarded", 100.0)
    for i in range(100):
        flags = MASKED * (20 <= i < 30 or i == 50) + SILENT * (60 <= i < 70) + AFTER_LOSS * (i == 90)
        recording.add(0, g711.PCMU, 160 * i, 100.0 + 0.02 * i, np.full(160, 0x90, np.uint8), flags)
        recording.add(1, g711.PCMU, 160 * i, 100.0 + 0.02 * i, np.full(160, 0x20, np.uint8), flags & SILENT)
    recording.set_mode("armed", 100.5, "")
    recording.set_mode("sealed", 101.5, "guard")
    told = about(archive.end(recording, complete=True))
    assert (told.call, told.route, told.complete, told.form) == ("c1", "line", True, "wav")
    assert [(m.at, m.mode) for m in told.modes] == [(0, "guarded"), (0.5, "armed"), (1.5, "sealed")]
    assert told.masked == ((0.4, 0.6), (1.0, 1.02))
    assert told.silent == ((1.2, 1.4),)
    assert [(a.at, a.kind) for a in told.alarms] == [(1.8, "audio-lost"), (1.5, "guard")]


def test_names_follow_the_configuration_and_cannot_leave_the_folder(folder: Path) -> None:
    archive = Archive(RecordingConfig(directory=str(folder), name="{year}/{month}/{route}-{call}"))
    recording = archive.begin("../../etc/x\n", "li/ne", "guarded", 0.0)
    path = archive.end(recording, complete=True)
    archive.close()
    assert path.parent == folder / time.strftime("%Y/%m", time.gmtime())
    assert path.name == "li_ne-______etc_x_.wav"


def test_every_changed_octet_of_a_recording_or_manifest_is_named(
    archive: Archive, folder: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(archive)
    beside, journal = path.with_suffix(".json"), folder / evidence.JOURNAL
    rng = np.random.default_rng(5)
    for file, places in ((path, rng.integers(0, path.stat().st_size, 20)), (beside, range(beside.stat().st_size))):
        whole = file.read_bytes()
        for place in places:
            changed = bytearray(whole)
            changed[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(changed)
            assert verify.run([str(folder)], key=str(keys[1])) == 1
            assert f"altered     {file}" in capsys.readouterr().out
        file.write_bytes(whole)
    whole = journal.read_bytes()
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 1
        journal.write_bytes(changed)
        assert verify.run([str(folder)], key=str(keys[1])) == 1
        capsys.readouterr()
    journal.write_bytes(whole)
    assert verify.run([str(folder)], key=str(keys[1])) == 0
    assert verify.run([str(path)], key=str(keys[1])) == 0
    assert verify.run([str(beside)], key=str(keys[1])) == 0


def test_what_is_missing_or_put_in_is_named(
    archive: Archive, folder: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, c = (record(archive, name) for name in "abc")
    a.unlink()
    b.with_suffix(".json").unlink()
    put = folder / "other.wav"
    put.write_bytes(c.read_bytes())
    assert verify.run([str(folder)]) == 1
    said = capsys.readouterr().out
    assert f"missing     {a}" in said
    assert f"missing     {b}" in said
    assert f"altered     {put}: is in no line of the journal" in said
    assert f"fine        {c}" in said


def test_a_journal_made_anew_without_the_key_does_not_fit_the_manifests(
    archive: Archive, folder: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody takes the middle one out and chains the rest again, as everyone can."""
    from mediaproxy import chain

    paths = [record(archive, name) for name in "abc"]
    journal = folder / evidence.JOURNAL
    lines, link = [], chain.Link()
    for line in journal.read_bytes().splitlines():
        entry = json.loads(line)
        if entry["file"] != paths[1].name:
            body = {key: value for key, value in entry.items() if key not in ("seq", "previous", "hash")}
            text, link = chain.append(link, body)
            lines.append(text)
    journal.write_bytes(b"".join(lines))
    paths[1].unlink()
    paths[1].with_suffix(".json").unlink()
    assert verify.run([str(folder)], key=str(keys[1])) == 1
    assert "stood at another place of the journal" in capsys.readouterr().out


def test_a_journal_that_was_taken_away_is_told(
    archive: Archive, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = record(archive, "a"), record(archive, "b")
    (folder / evidence.JOURNAL).rename(folder.parent / "elsewhere")
    for path in (a, a.with_suffix(".json")):
        path.unlink()
    assert verify.run([str(folder)]) == 1
    assert "the journal of these recordings is not here" in capsys.readouterr().out
    assert verify.run([str(b)]) == 0
    (tmp_path / "other").mkdir()
    other = Archive(RecordingConfig(directory=str(tmp_path / "other")))
    record(other)
    other.close()
    assert verify.run([str(tmp_path / "other"), str(folder)]) == 1  # another folder's journal does not serve


def test_a_manifest_signed_by_somebody_else_is_named(
    archive: Archive, folder: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(archive)
    other = tmp_path / "other.pem"
    key = Ed25519PrivateKey.generate()
    other.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert verify.run([str(folder)], key=str(other)) == 1
    assert "is signed with another key" in capsys.readouterr().out
    assert verify.run([str(folder)], key=str(folder)) == 2


def test_the_end_of_the_journal_shows_against_an_anchor(
    archive: Archive, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mediaproxy import chain

    record(archive, "a")
    last = record(archive, "b")
    anchors = tmp_path / "syslog"
    anchors.write_text(chain.anchor("recordings", archive._journal.link) + "\n")
    assert verify.run([str(folder)], [str(anchors)]) == 0
    journal = folder / evidence.JOURNAL
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    last.unlink()
    last.with_suffix(".json").unlink()
    assert verify.run([str(folder)]) == 0
    assert verify.run([str(folder)], [str(anchors)]) == 1
    assert "lines 2 to 2 of recordings were anchored and are not here" in capsys.readouterr().out


def test_what_is_old_is_deleted_with_a_signed_tombstone(
    folder: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    archive = Archive(RecordingConfig(directory=str(folder), signing_key=str(keys[0]), retention_days=30))
    old = record(archive, "old")
    day = 86_400
    assert archive.expire(time.time() + 29 * day) == (0, 0)
    lines = (folder / evidence.JOURNAL).read_text().splitlines()
    first = json.loads(lines[0])["at"]
    archive._config = msgspec.structs.replace(archive._config, retention_days=1e-9)
    while time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) <= first[:19]:
        time.sleep(0.05)
    record(archive, "newest")
    assert archive.expire(time.time())[0] >= 1
    archive.close()
    assert not old.exists()
    assert not old.with_suffix(".json").exists()
    assert verify.run([str(folder)], key=str(keys[1])) == 0
    assert f"fine        {old}: deleted" in capsys.readouterr().out
    stone = next(line for line in (folder / evidence.JOURNAL).read_text().splitlines() if '"deleted"' in line)
    assert json.loads(stone)["recorded"] == 1
    old.write_bytes(b"back")
    assert verify.run([str(folder)], key=str(keys[1])) == 1
    assert "is there, though it was deleted" in capsys.readouterr().out


@pytest.mark.parametrize("pack", [False, True])
def test_a_journal_that_was_moved_away_is_verified_and_expired_with_the_rest(
    folder: Path, keys: tuple[Path, Path], pack: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """logrotate, with and without gzip: the tombstone is in another file than the line it is about."""
    archive = Archive(RecordingConfig(directory=str(folder), signing_key=str(keys[0]), retention_days=1))
    old = record(archive, "old")
    journal = folder / evidence.JOURNAL
    moved = journal.rename(folder / f"{evidence.JOURNAL}.1")
    if pack:
        with gzip.open(moved.with_name(moved.name + ".gz"), "wb") as file:
            file.write(moved.read_bytes())
        moved.unlink()
    record(archive, "new")
    assert verify.run([str(folder)], key=str(keys[1])) == 0
    limit = time.time() + 86_400
    archive._config = msgspec.structs.replace(archive._config, retention_days=1)
    entries = archive._kept()
    assert len(entries) == 2
    archive._bury(entries[1])
    for path in (old, old.with_suffix(".json")):
        path.unlink()
    assert verify.run([str(folder)], key=str(keys[1])) == 0
    assert f"fine        {old}: deleted" in capsys.readouterr().out
    assert archive.expire(limit + 60) == (1, 0)
    assert archive.expire(limit + 60) == (0, 0)
    archive.close()
    assert verify.run([str(folder)], key=str(keys[1])) == 0


def test_what_will_not_be_deleted_stops_nothing_and_nothing_outside_is(folder: Path, tmp_path: Path) -> None:
    archive = Archive(RecordingConfig(directory=str(folder), retention_days=1, name="{call}/x"))
    outside = tmp_path / "outside.wav"
    outside.write_bytes(b"mine")
    archive._journal.write({"event": "recorded", "at": "2000", "file": str(outside), "sha256": "", "manifest": ""})
    archive._journal.write({"event": "recorded", "at": "2000", "file": "../outside.wav", "sha256": "", "manifest": ""})
    stuck, fine = record(archive, "stuck"), record(archive, "fine")
    stuck.unlink()
    stuck.mkdir()
    assert archive.expire(time.time() + 2 * 86_400) == (1, 3)
    archive.close()
    assert outside.exists()
    assert not fine.exists()
    assert not fine.parent.exists()


def test_a_recorder_that_died_after_the_journals_line_keeps_the_manifest(folder: Path, keys: tuple[Path, Path]) -> None:
    config = RecordingConfig(directory=str(folder), signing_key=str(keys[0]))
    archive = Archive(config)
    path = record(archive)
    part = path.rename(path.with_name(path.name + ".part"))
    archive.close()
    again = Archive(config)
    assert again.parts() == [part]
    again.recover(part)
    again.close()
    assert about(path).complete
    assert verify.run([str(folder)], key=str(keys[1])) == 0


def test_a_tombstone_that_nobody_signed_is_told(
    archive: Archive, folder: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever can write the folder deletes a recording and writes a line about it."""
    path = record(archive)
    archive._journal.write(
        {"event": "deleted", "file": path.name, "sha256": "0" * 64, "at": "x", "recorded": 1, "reason": "retention"}
    )
    path.unlink()
    path.with_suffix(".json").unlink()
    assert verify.run([str(folder)], key=str(keys[1])) == 1
    said = capsys.readouterr().out
    assert "the tombstone of" in said
    assert f"missing     {path}" in said


def test_what_a_recorder_that_died_left_is_taken_in(folder: Path, keys: tuple[Path, Path]) -> None:
    config = RecordingConfig(directory=str(folder), signing_key=str(keys[0]))
    died = Archive(config)
    recording = died.begin("c1", "line", "guarded", 100.0)
    fill(recording, 2.0)
    recording.abandon()
    died.close()
    again = Archive(config)
    (part,) = again.parts()
    again.recover(part)
    again.close()
    told = about(recording.path)
    assert not told.complete
    assert [alarm.kind for alarm in told.alarms] == ["recorder-died"]
    assert told.seconds == pytest.approx(wav.read(recording.path)[0].shape[1] / 8000)
    assert told.began
    samples, _ = wav.read(recording.path)
    assert samples.shape[1] > 4000
    assert verify.run([str(folder)], key=str(keys[1])) == 0


def test_the_end_of_a_recording_is_not_lost_where_the_recorder_is_behind() -> None:
    """Audio may be: it is counted, and what comes after it says so."""
    near, far = (Channel(name, end) for name, end in zip(("near", "far"), pair(), strict=True))
    tap = Tap(near)
    tap.start("c1", 1, 0.0, "line", "guarded")
    octets = np.full(160, 0x90, np.uint8)
    while not tap.dropped:
        for _ in range(200):
            tap.add(1, 0, g711.PCMU, 0, 0.0, octets)
        tap.flush()
    tap.mode(1, 0.1, "sealed", "guard")
    tap.stop(1)
    told: list[str] = []
    for _ in range(3):
        for data in iter(lambda: _received(far), b""):
            told.append("audio" if data[0] == AUDIO else type(m.decode(data)).__name__)
        tap.flush()
    assert [name for name in told if name != "audio"] == ["StartRecording", "RecordingMode", "StopRecording"]
    assert told[-1] == "StopRecording"
    for channel in (near, far):
        channel.socket.close()


def _received(channel: Channel) -> bytes:
    try:
        return channel.socket.recv(LARGEST)
    except BlockingIOError:
        return b""


def test_a_full_disk_ends_the_recording_and_nothing_else(archive: Archive, folder: Path) -> None:
    full, fine = archive.begin("full", "line", "guarded", 100.0), archive.begin("fine", "line", "guarded", 100.0)
    full._sink._file.close()  # type: ignore[attr-defined]
    full._sink._file = open("/dev/full", "wb", buffering=0)  # type: ignore[attr-defined]  # noqa: SIM115
    recorder = Recorder.__new__(Recorder)
    recorder._recordings = {("media-0", 1): full, ("media-0", 2): fine}
    recorder.counters, recorder._counting = {"recordings": 2.0, "failed": 0.0, "unclaimed": 0.0}, threading.Lock()
    for recording in (full, fine):
        for i in range(150):
            recording.add(0, g711.PCMU, 160 * i, 100.0 + 0.02 * i, np.full(160, 0x90, np.uint8))
    for key in list(recorder._recordings):
        recorder._guarded(key, lambda recording: recording.advance(103.0))
    assert list(recorder._recordings) == [("media-0", 2)]
    assert recorder.counters["failed"] == 1
    assert archive.end(fine, complete=True).exists()
    assert verify.run([str(folder)]) == 0


@pytest.mark.parametrize("form", ["wav", "wav-ulaw", "opus", "mp3"])
def test_a_disk_that_fills_while_writing_raises_for_every_form(form: str) -> None:
    def write(file: BinaryIO) -> None:
        into = sinks.sink(form, file, 0)
        for _ in range(50):
            into.write(np.ones((8000, 2), np.int16))
        into.finish()

    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="space"):
        write(cast(BinaryIO, full))


@pytest.mark.parametrize(("caller", "agent"), [(50e-6, -50e-6), (-50e-6, 50e-6), (0.0, 200e-6)])
def test_clocks_that_run_apart_stay_side_by_side(archive: Archive, caller: float, agent: float) -> None:
    """Half an hour of two senders whose clocks are off by so much: clicks said together are heard together."""
    recording = archive.begin("drift", "line", "guarded", 0.0)
    rng = np.random.default_rng(1)
    click, quiet = np.full(160, 0x80, np.uint8), np.full(160, 0xFF, np.uint8)
    for i in range(90_000):
        for side, skew in ((0, caller), (1, agent)):
            said = 0.02 * i * (1 - skew)  # a fast clock sends its packets early
            arrival = said + 0.03 + rng.exponential(0.004)
            recording.add(side, g711.PCMU, 160 * i, arrival, click if i % 5000 == 0 else quiet)
        if i % 50 == 0:
            recording.advance(0.02 * i)
    samples, _ = wav.read(archive.end(recording, complete=True))
    for side in (0, 1):
        at = np.flatnonzero(np.abs(samples[side]) > 0.5)
        starts = at[np.r_[True, np.diff(at) > 4000]]
        assert len(starts) == 18
    clicks = [np.flatnonzero(np.abs(samples[side]) > 0.5) for side in (0, 1)]
    starts = [at[np.r_[True, np.diff(at) > 4000]] for at in clicks]
    when = [np.arange(18) * 100.0 * (1 - skew) for skew in (caller, agent)]
    apart = (starts[0] - starts[1]) / 8000 - (when[0] - when[1])
    assert np.abs(apart).max() < 0.03
