"""Legs that speak Opus or G.722: one packet in is one packet out, clocks fit, sizes say nothing, and losses stay gaps."""

import struct
from collections.abc import Iterator

import av
import numpy as np
import pytest

from dsp import g711, keypad, synth
from mediaproxy.media.codec import opus
from mediaproxy.media.rows import Rows
from mediaproxy.media.transcode import Coding, Transcoder
from tests.attacker import played
from tests.fixtures import leg

OPUS = Coding("opus/48000", (111, 96), (110, 97), g711.PCMU, (("useinbandfec", 1),))
G722 = Coding("G722/8000", (9, 9), (101, 101), g711.PCMA)
FIRST = 0xFFFFFF00 - 48_000
"""A timestamp that wraps within a second at 48 kHz."""


def packet(payload: bytes, kind: int, number: int, stamp: int, first: int = 0x80) -> bytes:
    return struct.pack("!BBHII", first, kind, number & 0xFFFF, stamp & 0xFFFFFFFF, 7) + payload


def tone(samples: int = 16_000, hz: float = 440.0) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hz / 8000 * np.arange(samples))).astype(np.int16)


def sent(rows: Rows) -> Iterator[tuple[int, int, int, bytes]]:
    """(payload type, sequence number, timestamp, payload) of each row."""
    for row in range(rows.count):
        data = rows.slab[row, : rows.length[row]].tobytes().ljust(12, b"\0")
        _, kind, number, stamp, _ = struct.unpack("!BBHII", data[:12])
        yield kind & 127, number, stamp, data[12:]


def through(transcoder: Transcoder, data: list[bytes], slot: int = 3) -> Rows:
    rows = Rows()
    for one in data:
        rows.put(slot, one)
    transcoder.open(rows)
    return rows


def spoken(coding: Coding, ptime: int = 160, samples: int = 16_000, first: int = FIRST) -> list[bytes]:
    """A second or more of a tone as the peer sends it."""
    rows, transcoder = Rows(), Transcoder(8)
    transcoder.set(3, Coding(coding.encoding, coding.audio[::-1], coding.events[::-1], parameters=coding.parameters))
    ticks = 6 if coding is OPUS else 1
    for i, at in enumerate(range(0, samples, ptime)):
        octets = g711.ENCODE[g711.PCMU][tone(samples)[at : at + ptime].view(np.uint16)].tobytes()
        rows.put(3, packet(octets, 0, i, first // ticks + at))
    transcoder.seal(rows)
    assert not transcoder.failed.any()
    return [packet(payload, kind, number, stamp) for kind, number, stamp, payload in sent(rows)]


@pytest.mark.parametrize("coding", [OPUS, G722], ids=["Opus", "G.722"])
@pytest.mark.parametrize("ptime", [80, 160, 240, 320, 480])
def test_audio_passes_both_ways_on_the_clock_of_each(coding: Coding, ptime: int) -> None:
    transcoder = Transcoder(8)
    transcoder.set(3, coding)
    coded = spoken(coding, ptime, 4 * 8 * ptime if ptime > 400 else 14_400)
    assert len({len(one) for one in coded}) == 1
    found = list(sent(through(transcoder, coded)))
    assert [number for _, number, _, _ in found] == list(range(len(coded)))
    assert {kind for kind, *_ in found} == {8 if coding is G722 else 0}
    steps = {(b[2] - a[2]) & 0xFFFFFFFF for a, b in zip(found, found[1:], strict=False)}
    assert steps == {ptime}
    audio = np.concatenate([g711.DECODE_INT16[coding.law][np.frombuffer(p, np.uint8)] for *_, p in found]).astype(float)
    spectrum = np.abs(np.fft.rfft(audio[2000:10_000] * np.hanning(8000)))
    assert abs(int(spectrum.argmax()) - 440) <= 1
    assert 0.7 < audio[2000:].std() / tone().std() < 1.4


def test_what_leaves_as_opus_has_one_size_whatever_is_said() -> None:
    """Tones, speech-like noise, silence and clipping: packets of one length in time are of one length in octets."""
    rng = np.random.default_rng(5)
    sizes = set()
    for pcm in (
        tone(),
        rng.normal(0, 3000, 16_000).astype(np.int16),
        np.zeros(16_000, np.int16),
        np.full(16_000, 32_767, np.int16),
    ):
        encoder = opus.Encoder()
        sizes |= {len(encoder.encode(pcm[at : at + 160]) or b"") for at in range(0, 16_000, 160)}
    assert sizes == {60}


def peer(pcm: np.ndarray, **options: str) -> list[bytes]:
    """Packets of 20 ms from an encoder with a peer's options (FFmpeg's libopus)."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = 8000, "mono", "s16", 24_000
    encoder.options = {"application": "voip"} | options
    made = []
    for at in range(0, len(pcm) - 159, 160):
        frame = av.AudioFrame.from_ndarray(pcm[None, at : at + 160], format="s16", layout="mono")
        frame.sample_rate = 8000
        made += [bytes(one) for one in encoder.encode(frame)]
    return [packet(one, 111, i, 960 * i) for i, one in enumerate(made)]


def voice() -> np.ndarray:
    """Two seconds of something that an encoder takes for speech."""
    t = np.arange(16_000) / 8000
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(4 * np.pi * t)) / 8000
    sound = sum(np.sin(k * phase) / k for k in range(1, 15)) * (0.5 + 0.5 * np.sin(8 * np.pi * t))
    return (5000 * sound).astype(np.int16)


def test_a_lost_packet_is_what_the_next_one_repeats_and_else_a_gap() -> None:
    """A peer with FEC repeats what is worth it. What comes back is what was said, in its place."""
    coded = peer(voice(), fec="1", packet_loss="10")
    back = []
    for lost in range(10, 99):
        transcoder = Transcoder(8)
        transcoder.set(3, OPUS)
        whole = {n: (stamp, said) for _, n, stamp, said in sent(through(transcoder, coded[: lost + 1]))}
        transcoder.set(3, None)
        transcoder.set(3, OPUS)
        found = {
            n: (stamp, said) for _, n, stamp, said in sent(through(transcoder, coded[:lost] + coded[lost + 1 :][:1]))
        }
        if lost in found:
            assert found[lost][0] == whole[lost][0]
            one, other = (g711.DECODE_INT16[0][np.frombuffer(part[lost][1], np.uint8)] for part in (whole, found))
            back.append(np.corrcoef(one.astype(float), other.astype(float))[0, 1])
    assert 15 <= len(back) <= 89
    assert np.median(back) > 0.8
    gap = through(transcoder, coded[:40] + coded[43:])
    assert not {40, 41} & {n for _, n, _, _ in sent(gap)}


def test_nothing_is_made_up_where_the_peer_repeats_nothing() -> None:
    transcoder = Transcoder(8)
    transcoder.set(3, G722)
    coded = spoken(G722)
    del coded[40]
    assert [n for _, n, _, _ in sent(through(transcoder, coded))] == [n for n in range(100) if n != 40]


@pytest.mark.parametrize("options", [{}, {"application": "lowdelay"}, {"fec": "1"}], ids=str)
def test_nothing_is_made_up_of_an_opus_packet_that_repeats_nothing(options: dict[str, str]) -> None:
    """Without FEC, of CELT alone, or where no loss is expected: the decoder would go on with the tone by itself."""
    coded = peer(tone(), **options)
    for lost in range(20, 60):
        transcoder = Transcoder(8)
        transcoder.set(3, OPUS)
        assert lost not in [n for _, n, _, _ in sent(through(transcoder, coded[:lost] + coded[lost + 1 : lost + 2]))]


@pytest.mark.parametrize("coding", [OPUS, G722], ids=["Opus", "G.722"])
def test_a_packet_of_nothing_ends_nothing(coding: Coding) -> None:
    """FFmpeg takes an empty packet for the end of its stream."""
    transcoder = Transcoder(8)
    transcoder.set(3, coding)
    coded = spoken(coding)
    through(transcoder, coded[:20])
    through(transcoder, [packet(b"", coding.audio[0], 20, 0), packet(b"\0\0\0\4", coding.audio[0], 21, 0, 0xA0)])
    assert len(list(sent(through(transcoder, coded[22:40])))) == 18


def test_a_codec_that_fails_is_one_legs_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    transcoder = Transcoder(8)
    transcoder.set(3, OPUS)
    transcoder.set(4, OPUS)
    coded = spoken(OPUS)

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    leg_ = transcoder._legs[3]
    monkeypatch.setattr(leg_, "decoder", type("Broken", (), {"decode": broken, "recover": broken})())
    assert not list(sent(through(transcoder, coded[:1])))
    assert transcoder.failed[3] == 1
    assert len(list(sent(through(transcoder, coded[1:10])))) == 9
    assert len(list(sent(through(transcoder, coded[:10], slot=4)))) == 10


def test_events_keep_their_time_on_another_clock() -> None:
    transcoder = Transcoder(8)
    transcoder.set(3, OPUS)
    rows = through(transcoder, [packet(bytes((5, 10)) + struct.pack("!H", 4800), 110, 9, 48_000)])
    assert list(sent(rows)) == [(101, 9, 8000, bytes((5, 10)) + struct.pack("!H", 800))]
    transcoder.seal(rows)
    assert list(sent(rows)) == [(97, 9, 48_000, bytes((5, 10)) + struct.pack("!H", 4800))]


@pytest.mark.parametrize("data", [b"", b"\xff" * 3, bytes(1300), b"\x0b\xff", b"\xfc" + bytes(10)])
def test_what_cannot_be_read_is_counted_or_harmless(data: bytes) -> None:
    transcoder = Transcoder(8)
    transcoder.set(3, OPUS)
    rows = through(transcoder, [packet(data, 111, 1, 0)])
    for kind, _, _, payload in sent(rows):
        assert kind == 0
        assert 0 < len(payload) <= 960
    assert rows.count + transcoder.failed[3] == 1


def test_garbage_of_a_coded_leg_raises_nothing_and_takes_no_payload_type_of_the_inside() -> None:
    rng = np.random.default_rng(6)
    transcoder = Transcoder(8)
    transcoder.set(3, OPUS)
    for _ in range(300):
        data = [rng.bytes(int(rng.integers(0, 200))) for _ in range(8)]
        data += [
            packet(
                rng.bytes(60),
                int(rng.integers(128)),
                int(rng.integers(65_536)),
                int(rng.integers(1 << 32)),
                int(rng.integers(256)),
            )
            for _ in range(8)
        ]
        data += [packet(bytes(160), inside, 3, 4) for inside in (0, 8, 101)]
        rows = through(transcoder, data)
        inside = [kind for kind, _, _, payload in sent(rows) if payload == bytes(160)]  # as it came
        assert not set(inside) & {0, 8, 101}
        transcoder.seal(rows)


@pytest.mark.parametrize("coding", [OPUS, G722], ids=["Opus", "G.722"])
def test_keys_of_a_wideband_caller_are_masked_for_the_agent(coding: Coding) -> None:
    """The caller's trunk speaks Opus or G.722 at 16 or 48 kHz; what leaves for an agent of G.711 tells an attacker
    nothing, who names the same keys where nobody masks them."""
    rng = np.random.default_rng(8)
    digits = rng.permutation(np.repeat(np.arange(10), 16))
    presses = [synth.Press(keypad.KEYS.index(str(d)), 80, rng.uniform(-14, -6), rng.uniform(-4, 2)) for d in digits]
    audio, _ = synth.keying(presses, rng, (250, 250), 300, -60)
    octets = g711.encode(audio, g711.PCMU)
    rows, theirs = Rows(), Transcoder(4)
    theirs.set(leg.TRUNK, Coding(coding.encoding, coding.audio[::-1], coding.events[::-1]))
    ours, engine = Transcoder(4), leg.engine(formats=leg.USUAL)
    ours.set(leg.TRUNK, Coding(coding.encoding, coding.audio, coding.events, g711.PCMU))
    open_, heard = [], []
    for n, at in enumerate(range(0, len(octets) - 159, 160)):
        rows.count = 0
        rows.put(leg.TRUNK, packet(octets[at : at + 160].tobytes(), 0, n, 160 * n))
        theirs.seal(rows)
        ours.open(rows)
        open_.append(rows.slab[0, 12 : rows.length[0]].copy())
        out = engine.process(rows, now=0.02 * n)
        heard += [out.slab[i, 12 : out.length[i]].copy() for i in range(out.count) if not out.control[i]]
    for found, hz, low, high in ((open_, 0, 0.99, 1.0), (heard, 540.0, 0.0, 0.18)):
        sound = g711.decode(np.concatenate(found), g711.PCMU).astype(np.float64)
        where = played.presses(sound, hz)
        assert len(where) == len(digits)
        assert low <= played.attack(sound, where, digits).worst <= high


def test_legs_that_speak_g711_are_left_alone() -> None:
    transcoder = Transcoder(8)
    transcoder.set(3, OPUS)
    data = packet(bytes(range(160)), 0, 5, 77)
    rows = through(transcoder, [data], slot=4)
    transcoder.seal(rows)
    assert rows.slab[0, : rows.length[0]].tobytes() == data
    transcoder.set(3, None)
    rows = through(transcoder, [data])
    assert rows.slab[0, : rows.length[0]].tobytes() == data
