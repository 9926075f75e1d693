"""The scanner on a file: keys dirty, residues suspect, speech and masked audio clean, in every form it reads."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dsp import g711, keypad, synth
from mediaproxy import offline, wav
from mediaproxy.media import modes
from mediaproxy.scan import detectors
from mediaproxy.scan.look import Options, look
from mediaproxy.scan.verdict import FileVerdict
from tests.fixtures import keyed, pcaps, recorded

PROMPTS = Path("/usr/share/asterisk/sounds")
PLAIN = Options(seed=None)


def judge(path: Path, options: Options = PLAIN) -> FileVerdict:
    return look(str(path), options)


def keys(count: int, seed: int = 3, ms: float = 70, level: float = -12) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    presses = [synth.Press(int(rng.integers(16)), ms, level, rng.uniform(-6, 3)) for _ in range(count)]
    audio, _ = synth.keying(presses, rng, (80, 200), lead_ms=700, noise_dbm0=-55)
    return audio


def test_a_recording_before_the_mask_is_dirty_and_after_it_clean(tmp_path: Path) -> None:
    octets, digits, _ = keyed.digits(60, 3, noise=-50, level=(-20, -6))
    wav.write(tmp_path / "raw.wav", g711.DECODE_INT16[0][octets])
    raw = judge(tmp_path / "raw.wav")
    assert (raw.state, raw.keys) == ("dirty", len(digits))
    for mode in ("guarded", "armed"):
        wav.write(tmp_path / "masked.wav", g711.DECODE_INT16[0][offline.mask(octets, modes.parse(mode)).octets])
        masked = judge(tmp_path / "masked.wav")
        assert (masked.state, masked.findings) == ("clean", ())


@pytest.mark.parametrize("ms", [3, 4, 5, 8, 12, 20])
def test_a_residue_beside_the_flat_tone_is_suspect(tmp_path: Path, ms: float) -> None:
    """Milliseconds of a key, left at the edge of a mask, at 34 dB over the noise."""
    rng = np.random.default_rng(4)
    found = 0
    for i in range(40):
        t = np.arange(1600) / 8000
        audio = (g711.amplitude(-18) * np.sin(2 * np.pi * 540 * t)).astype(np.float32)
        size = round(ms * 8)
        press = synth.Press(int(rng.integers(16)), ms, -16)
        audio[800 - size : 800] = synth.tone_pair(press, phases=(rng.uniform(0, 6), rng.uniform(0, 6)))
        audio[: 800 - size] = 0
        audio += rng.normal(0, g711.amplitude(-50), 1600).astype(np.float32)
        path = tmp_path / f"{i}.wav"
        wav.write(path, g711.DECODE_INT16[0][g711.encode(audio, 0)])
        verdict = judge(path)
        assert all(f.kind == "residue" or ms >= 12 for f in verdict.findings)
        found += verdict.state in ("suspect", "dirty")
    assert found >= 36, found


def test_speech_is_clean() -> None:
    """Prompts of voices that the detectors were not trained on: no key, and at most one suspect in 15 minutes."""
    files = [p for voice in ("it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU") for p in sorted((PROMPTS / voice).rglob("*.wav"))]
    assert len(files) > 500, "asterisk-core-sounds-it-wav and -ru-wav are not installed: make peers"
    verdicts = [judge(path) for path in files[::2]]
    assert sum(v.seconds for v in verdicts) > 900
    assert sum(v.keys for v in verdicts) == 0
    assert sum(v.runs for v in verdicts) <= 1


@pytest.mark.parametrize("form", recorded.FORMS)
def test_every_form_is_read_to_its_end(tmp_path: Path, form: str) -> None:
    """Stereo where the form can be: the keys are on the left, all of them. Opus puts some of it on the right, faintly."""
    audio = keys(24)
    path = recorded.write(tmp_path, form, np.stack([audio, recorded.quiet(len(audio))]))
    verdict = judge(path)
    assert (verdict.state, verdict.reason) == ("dirty", "")
    assert sum(f.keys for f in verdict.findings if f.channel == 0) == 24
    loudest = max(f.level for f in verdict.findings if f.channel == 0)
    assert all(f.channel == 0 or (form == "ogg-opus" and f.level <= loudest - 9) for f in verdict.findings)
    assert abs(verdict.seconds - len(audio) / 8000) < 0.2
    assert not verdict.remarks


@pytest.mark.parametrize("rate", [6000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_any_rate_is_read(tmp_path: Path, rate: int) -> None:
    path = recorded.write(tmp_path, "wav-pcm16", keys(12)[None, :], rate=rate)
    verdict = judge(path)
    assert (verdict.keys, verdict.residues) == (12, 0)


def test_each_of_many_channels_is_judged_for_itself(tmp_path: Path) -> None:
    audio = keys(9)
    channels = np.stack([recorded.quiet(len(audio), seed) for seed in range(6)])
    channels[4] = audio
    verdict = judge(recorded.write(tmp_path, "wav-pcm16", channels))
    assert verdict.channels == 6
    assert [(f.channel, f.keys) for f in verdict.findings] == [(4, 9)]


@pytest.mark.parametrize(
    "beside",
    ["hum", "offset", "dial tone", "ringback", "the flat tone", "hiss above the telephone's band"],
)
def test_keys_beside_another_sound_are_found(tmp_path: Path, beside: str) -> None:
    """What lies outside the keypad's band, 6 dB over each tone of the keys, hides none of them."""
    audio = keys(16, level=-20)
    t = np.arange(len(audio)) / 8000
    tones = {
        "hum": (50.0, 150.0), "offset": (), "dial tone": (350.0, 440.0), "ringback": (440.0, 480.0),
        "the flat tone": (540.0,), "hiss above the telephone's band": (3500.0, 3800.0),
    }[beside]  # fmt: skip
    for hz in tones:
        audio = audio + g711.amplitude(-14) * np.sin(2 * np.pi * hz * t)
    if beside == "offset":
        audio = audio + 0.2
    wav.write(tmp_path / "a.wav", g711.to_int16(audio.astype(np.float32)))
    assert judge(tmp_path / "a.wav").keys == 16


def test_what_is_no_number_hides_no_key(tmp_path: Path) -> None:
    audio = keys(8)
    path = recorded.write(tmp_path, "wav-float", audio[None, :], rate=16000)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 8
    for place in range(at, len(data) - 4, 4 * 400):
        data[place : place + 4] = struct.pack("<f", float("nan"))
    path.write_bytes(data)
    assert judge(path).keys >= 7


def test_runs_tell_how_many_keys_and_never_which(tmp_path: Path) -> None:
    """Two verdicts on the same rhythm and different keys are the same but for the hash."""
    told = []
    for first in (0, 5):
        rng = np.random.default_rng(1)
        audio, _ = synth.keying([synth.Press((first + i) % 16, 80) for i in range(8)], rng, lead_ms=800)
        both = np.concatenate([audio, np.zeros(8 * 8000, np.float32), audio])
        wav.write(tmp_path / "a.wav", g711.to_int16(both))
        told.append(judge(tmp_path / "a.wav"))
    assert [[f.keys for f in v.findings] for v in told] == [[8, 8], [8, 8]]
    for one, other in zip(told[0].findings, told[1].findings, strict=True):
        assert (one.channel, one.kind) == (other.channel, other.kind)
        assert {one.level % 3, other.level % 3} == {0}
        assert abs(one.level - other.level) <= 3
        assert abs(one.start - other.start) < 0.01
        assert set(one.score) <= {round(i / 10, 1) for i in range(11)}
        assert one.score_step >= 2 * one.seconds / (one.keys + 1)  # no rhythm


def test_findings_do_not_depend_on_where_pieces_meet(tmp_path: Path) -> None:
    """The same keys and residues every 5 s of two minutes are all found, whatever stands before them."""
    rng = np.random.default_rng(6)
    key, piece = synth.tone_pair(synth.Press(6, 60, -15)), synth.tone_pair(synth.Press(2, 6, -15))
    for shift in (0, 1, 37, 4096, 100_003):
        audio = rng.normal(0, g711.amplitude(-55), 1_100_000).astype(np.float32)
        places = range(20_000 + shift, 1_000_000, 40_000)
        for i, at in enumerate(places):
            sound = piece if i % 2 else key
            audio[at : at + len(sound)] += sound
        wav.write(tmp_path / "a.wav", g711.to_int16(audio))
        verdict = judge(tmp_path / "a.wav")
        assert (verdict.keys, verdict.residues) == (len(places[::2]), len(places[1::2])), shift


def test_a_key_where_two_pieces_meet_counts_once(tmp_path: Path) -> None:
    from mediaproxy.scan.judge import PIECE

    for offset in range(-900, 900, 60):
        audio = np.random.default_rng(1).normal(0, g711.amplitude(-55), PIECE + 60_000).astype(np.float32)
        sound = synth.tone_pair(synth.Press(9, 60, -15))
        audio[PIECE + offset : PIECE + offset + len(sound)] += sound
        wav.write(tmp_path / "a.wav", g711.to_int16(audio))
        verdict = judge(tmp_path / "a.wav")
        assert (verdict.keys, verdict.residues, verdict.runs) == (1, 0, 1), offset


def test_a_long_tone_over_borders_is_one_key_of_its_length(tmp_path: Path) -> None:
    from mediaproxy.scan.judge import PIECE

    audio = np.random.default_rng(1).normal(0, g711.amplitude(-55), 3 * PIECE).astype(np.float32)
    audio[PIECE - 20_000 : 2 * PIECE + 20_000] += synth.tone_pair(synth.Press(9, (PIECE + 40_000) / 8, -15))
    wav.write(tmp_path / "a.wav", g711.to_int16(audio))
    verdict = judge(tmp_path / "a.wav")
    assert (verdict.keys, verdict.runs) == (1, 1)
    assert verdict.findings[0].seconds == pytest.approx((PIECE + 40_000) / 8000, abs=0.05)


def test_a_second_track_that_begins_later_keeps_its_channel(tmp_path: Path) -> None:
    """Two audio tracks of one file, the keys on the first: none is told of the second, none is torn."""
    path = recorded.write(tmp_path, "two-tracks", np.stack([keys(6), recorded.quiet(len(keys(6)))]))
    verdict = judge(path)
    assert [(f.channel, f.keys) for f in verdict.findings] == [(0, 6)]
    assert verdict.channels == 2


def test_planted_positives_are_counted_and_change_no_finding(tmp_path: Path) -> None:
    path = recorded.write(tmp_path, "wav-pcm16", np.stack([recorded.quiet(2_000_000), recorded.quiet(2_000_000, 1)]))
    planted = judge(path, Options(seed=1))
    assert planted.state == "clean"
    assert set(planted.planted) == {f"{what}, in a pause" for what in (
        "key of 50 ms", "residue of 5 ms", "residue of 3 ms")}  # fmt: skip
    assert all(one.planted >= 4 for one in planted.planted.values())
    assert sum(one.found for one in planted.planted.values()) >= 0.9 * sum(
        one.planted for one in planted.planted.values()
    )
    assert judge(path, Options(seed=1)) == planted
    assert judge(path).planted == {}


def test_a_detector_that_is_deaf_shows_in_the_planted_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded.write(tmp_path, "wav-pcm16", recorded.quiet(400_000)[None, :])
    monkeypatch.setattr(detectors, "residues", lambda *_: [])
    monkeypatch.setattr(detectors, "whole_keys", lambda *_: [])
    assert {one.found for one in judge(path, Options(seed=1)).planted.values()} == {0}


# Packet captures


@pytest.mark.parametrize("form", ["pcap", "pcap-ns", "pcap-big", "pcapng"])
@pytest.mark.parametrize("link", ["ethernet", "vlan", "cooked", "raw", "ipv6"])
def test_keys_in_rtp_are_found_in_every_capture(tmp_path: Path, form: str, link: str) -> None:
    audio = keys(12)
    path = pcaps.write(tmp_path / "a.pcap", pcaps.rtp(g711.encode(audio, 0)), form, link)
    verdict = judge(path)
    assert (verdict.state, verdict.keys, verdict.reason) == ("dirty", 12, "")


@pytest.mark.parametrize("law", [0, 8])
def test_reordered_doubled_and_lost_packets_leave_the_keys(tmp_path: Path, law: int) -> None:
    audio = keys(20, ms=100)
    packets = pcaps.rtp(g711.encode(audio, int(law == 8)), law)
    rng = np.random.default_rng(2)
    order = np.argsort(np.arange(len(packets)) + rng.uniform(0, 3, len(packets)))
    mixed = [packets[i] for i in order for _ in range(1 + (i % 7 == 0))]
    verdict = judge(pcaps.write(tmp_path / "a.pcap", mixed))
    assert (verdict.keys, verdict.residues) == (20, 0)
    speech = pcaps.rtp(g711.encode(recorded.quiet(80_000), 0))
    del speech[100:140]
    assert judge(pcaps.write(tmp_path / "b.pcap", speech)).state == "clean"


def test_a_stream_whose_clock_goes_back_is_heard_to_its_end(tmp_path: Path) -> None:
    packets = pcaps.rtp(g711.encode(recorded.quiet(64_000), 0))
    again = pcaps.rtp(g711.encode(keys(5), 0))
    for number, packet in enumerate(again):
        head = struct.pack(
            "!BBHI", 0x80, 0, 65_500 + 400 + number & 0xFFFF, 0xFFFFF000 + 8000 + 160 * number & 0xFFFFFFFF
        )
        packets.append(head + packet[8:])
    verdict = judge(pcaps.write(tmp_path / "a.pcap", packets))
    assert (verdict.keys, verdict.reason) == (5, "")


@pytest.mark.parametrize("back", [300, 20_000, 40_000])
def test_a_sender_that_counts_anew_is_heard_to_its_end(tmp_path: Path, back: int) -> None:
    """The same stream, whose numbers begin again further back: none of it is taken for copies."""
    packets = pcaps.rtp(g711.encode(recorded.quiet(64_000), 0))
    first = 65_500 + len(packets) - back
    for number, packet in enumerate(pcaps.rtp(g711.encode(keys(5), 0))):
        packets.append(packet[:2] + struct.pack("!H", first + number & 0xFFFF) + packet[4:])
    verdict = judge(pcaps.write(tmp_path / "a.pcap", packets))
    assert (verdict.keys, verdict.reason) == (5, "")


def test_many_streams_are_all_heard_and_memory_stays(tmp_path: Path) -> None:
    """300 calls, one after another, each with a key; and noise of other UDP between them."""
    audio = keys(1)
    packets = []
    for ssrc in range(300):
        packets += pcaps.rtp(g711.encode(audio, 0), ssrc=ssrc)
        packets.append(bytes([0x80, 96]) + np.random.default_rng(ssrc).bytes(40))
    verdict = judge(pcaps.write(tmp_path / "a.pcap", packets))
    assert (verdict.keys, verdict.channels, verdict.reason) == (300, 300, "")


def test_telephone_events_are_found_as_such(tmp_path: Path) -> None:
    packets = pcaps.rtp(g711.encode(recorded.quiet(80_000), 0))
    packets += pcaps.events([1, 2, 3, 11, 16], first=packets[-1])  # 16 is no key: hook flash
    verdict = judge(pcaps.write(tmp_path / "a.pcap", packets))
    assert verdict.state == "dirty"
    assert [(f.kind, f.keys) for f in verdict.findings] == [("telephone-event", 4)]


def test_packets_that_were_not_looked_at_are_told(tmp_path: Path) -> None:
    """Each beside a stream that is read: fragments, tunnels, link layers, and RTP that makes no stream."""
    quiet = pcaps.rtp(g711.encode(recorded.quiet(80_000), 0))
    audio = g711.encode(keys(3), 0)
    hopping = [pcaps.rtp(audio[160 * i : 160 * i + 160], ssrc=1000 + i)[0] for i in range(len(audio) // 160)]
    assert "belong to no stream" in judge(pcaps.write(tmp_path / "a.pcap", quiet + hopping)).reason
    assert "fragment" in judge(pcaps.write(tmp_path / "b.pcap", quiet, link="fragments")).reason
    assert "tunnel" in judge(pcaps.write(tmp_path / "c.pcap", quiet, link="tunnel")).reason
    assert "link layer" in judge(pcaps.write(tmp_path / "d.pcap", quiet, link="unknown")).reason
    noise = [packet[:1] + b"\x0d" + packet[2:] for packet in quiet]
    assert "payload type 13" in judge(pcaps.write(tmp_path / "e.pcap", noise)).reason


def test_masked_rtp_is_clean(tmp_path: Path) -> None:
    octets = offline.mask(g711.encode(keys(20), 0)).octets
    verdict = judge(pcaps.write(tmp_path / "a.pcap", pcaps.rtp(octets)))
    assert (verdict.state, verdict.channels) == ("clean", 1)


def test_what_a_capture_holds_that_cannot_be_heard_is_told(tmp_path: Path) -> None:
    quiet = g711.encode(recorded.quiet(80_000), 0)
    rng = np.random.default_rng(1)
    assert "payload type 9" in judge(pcaps.write(tmp_path / "a.pcap", pcaps.rtp(quiet, 9))).reason
    locked = rng.integers(0, 256, 80_000).astype(np.uint8)
    assert "encrypted" in judge(pcaps.write(tmp_path / "b.pcap", pcaps.rtp(locked))).reason
    assert judge(pcaps.write(tmp_path / "c.pcap", [b"x" * 60] * 50)).reason == "there is no RTP in it"
    assert "captured in part" in judge(pcaps.write(tmp_path / "d.pcap", pcaps.rtp(quiet), snap=100)).reason


# Files that are not what they should be


def broken(name: str) -> Callable[[Path], object]:
    """What makes a broken file of that name."""
    rng = np.random.default_rng(8)
    whole = {
        form: lambda p, form=form: recorded.write(p.parent, form, recorded.quiet(80_000)[None, :]).read_bytes()
        for form in ("wav-pcm16", "flac", "ogg-opus", "mp4-aac")
    }
    return {
        "empty.wav": lambda p: p.write_bytes(b""),
        "text.mp3": lambda p: p.write_text("hello\n" * 100),
        "noise.wav": lambda p: p.write_bytes(rng.bytes(50_000)),
        "openssl.wav": lambda p: p.write_bytes(b"Salted__" + rng.bytes(9000)),
        "zip.wav": lambda p: p.write_bytes(b"PK\3\4" + rng.bytes(9000)),
        "header.wav": lambda p: p.write_bytes(whole["wav-pcm16"](p)[:44]),
        "half.wav": lambda p: p.write_bytes(whole["wav-pcm16"](p)[:50_001]),
        "half.flac": lambda p: p.write_bytes(whole["flac"](p)[:-9000]),
        "half.opus": lambda p: p.write_bytes(whole["ogg-opus"](p)[:-2000]),
        "half.m4a": lambda p: p.write_bytes(whole["mp4-aac"](p)[:9000]),
        "locked.wav": lambda p: wav.write(p, rng.integers(-32768, 32768, 80_000).astype(np.int16)),
        "slow.wav": lambda p: wav.write(p, np.zeros(80_000, np.int16), 2000),
        "half.pcap": lambda p: p.write_bytes(
            pcaps.write(p, pcaps.rtp(g711.encode(recorded.quiet(80_000), 0))).read_bytes()[:-50]
        ),
        "more.wav": lambda p: p.write_bytes(whole["wav-pcm16"](p) + rng.bytes(5000)),
        "again.wav": lambda p: p.write_bytes(whole["wav-pcm16"](p) + whole["wav-pcm16"](p)[36:]),
        "huge.wav": lambda p: p.write_bytes(
            struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 2**32 - 1, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16,
                        b"data", 2**32 - 100) + bytes(999)
        ),
    }[name]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("empty.wav", "empty"), ("text.mp3", "no form that is known"), ("noise.wav", "no form that is known"),
        ("openssl.wav", "encrypted (OpenSSL)"), ("zip.wav", "a ZIP archive"), ("header.wav", "cut short"),
        ("half.wav", "cut short"), ("half.flac", ""), ("half.opus", "cut short"), ("half.m4a", "cut short"),
        ("locked.wav", "noise at full level: encrypted"), ("slow.wav", "could be decoded"), ("half.pcap", "cut short"),
        ("huge.wav", "cut short"), ("more.wav", "follow its audio"), ("again.wav", "follow its audio"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_a_reason(tmp_path: Path, name: str, why: str) -> None:
    path = tmp_path / name
    broken(name)(path)
    verdict = judge(path)
    assert verdict.state == "unreadable"
    assert why in verdict.reason
    assert verdict.reason


def test_what_is_cut_short_and_dirty_is_dirty_and_told_to_be_cut(tmp_path: Path) -> None:
    path = recorded.write(tmp_path, "wav-pcm16", keys(20)[None, :])
    path.write_bytes(path.read_bytes()[:40_000])
    verdict = judge(path)
    assert verdict.state == "dirty"
    assert "cut short" in verdict.reason


def test_a_name_that_lies_is_told_and_the_content_believed(tmp_path: Path) -> None:
    path = recorded.write(tmp_path, "mp3", keys(10)[None, :]).rename(tmp_path / "a.wav")
    verdict = judge(path)
    assert verdict.keys == 10
    assert verdict.remarks == ("named otherwise, but mp3 by content",)
    other = recorded.write(tmp_path, "wav-pcm16", keys(10)[None, :]).rename(tmp_path / "data.bin")
    assert judge(other).keys == 10


def test_playlists_and_scripts_of_ffmpeg_are_not_followed(tmp_path: Path) -> None:
    """A file that FFmpeg would take for a list of other files opens none of them."""
    secret = recorded.write(tmp_path, "wav-pcm16", keys(10)[None, :])
    for name, text in (
        ("a.wav", f"ffconcat version 1.0\nfile '{secret}'\n"),
        ("b.mp3", f"#EXTM3U\n#EXTINF:10,\n{secret}\n"),
        ("c.m4a", f"<MPD><BaseURL>{secret}</BaseURL></MPD>"),
    ):
        path = tmp_path / name
        path.write_text(text)
        assert judge(path).state == "unreadable"


@pytest.mark.parametrize("name", ["a.zip", "a.wav.gz", "b.gpg", "b.wav.gpg", "c.pcm", "c.g722", "c.sln16", "c.avi"])
def test_what_may_hold_audio_and_is_not_read_is_told(tmp_path: Path, name: str) -> None:
    head = {"zip": b"PK\3\4", ".gz": b"\x1f\x8b", "gpg": b"\x85\x02"}.get(name[-3:], b"")
    (tmp_path / name).write_bytes(head + np.random.default_rng(1).bytes(5000))
    assert judge(tmp_path / name).state == "unreadable"


def test_an_edit_list_hides_no_audio(tmp_path: Path) -> None:
    """Editors trim a film by a list of what to play: what they leave out is still in the file."""
    quiet = recorded.quiet(80_000)
    audio = np.concatenate([quiet, keys(6)])
    path = recorded.write(tmp_path, "mov-pcm", audio[None, :])
    data = path.read_bytes()
    at = data.index(b"elst")
    assert struct.unpack_from(">I", data, at + 8)[0] == 1
    path.write_bytes(data[: at + 12] + struct.pack(">I", 1000) + data[at + 16 :])  # a second of the movie's clock
    assert judge(path).keys == 6


def test_what_is_no_audio_by_name_or_content_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text("{}")
    assert judge(path).state == "passed over"


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mediaproxy.scan import forms

    path = recorded.write(tmp_path, "wav-pcm16", recorded.quiet(80_000)[None, :])
    whole = forms.whole

    def grown(*args: object) -> tuple[str, str]:
        with path.open("ab") as file:
            file.write(b"more")
        return whole(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(forms, "whole", grown)
    assert judge(path).reason == "changed while it was read"


def test_a_pipe_does_not_hang_and_a_folder_is_no_file(tmp_path: Path) -> None:
    subprocess.run(["mkfifo", tmp_path / "a.wav"], check=True)
    assert judge(tmp_path / "a.wav").reason == "is no regular file"
    assert judge(tmp_path).reason == "is a folder"
    assert judge(tmp_path / "none.wav").reason == "there is no such file"


def test_every_file_made_of_a_good_one_by_chance_is_judged_and_nothing_raises(tmp_path: Path) -> None:
    """Octets changed, cut out and put in, in every form: a verdict each, within its time."""
    rng = np.random.default_rng(11)
    for form in recorded.FORMS:
        good = recorded.write(tmp_path, form, keys(4)[None, :]).read_bytes()
        for i in range(12):
            data = bytearray(good)
            for _ in range(int(rng.integers(1, 20))):
                at = int(rng.integers(len(data) if i % 2 else min(len(data), 300)))
                data[at : at + int(rng.integers(3))] = rng.bytes(int(rng.integers(3)))
            path = tmp_path / f"broken.{form}"
            path.write_bytes(data)
            said = judge(path).reason
            assert not re.search(
                r"\b(Type|Attribute|Index|Key|Name|Unbound|Assertion|ZeroDivision|Value)\w*Error", said
            ), said


def test_the_sixteen_keys_are_all_found() -> None:
    for key in range(16):
        tone = np.concatenate([np.zeros(800), synth.tone_pair(synth.Press(key, 50, -20)), np.zeros(800)])
        assert detectors.whole_keys(tone.astype(np.float32)), keypad.KEYS[key]
