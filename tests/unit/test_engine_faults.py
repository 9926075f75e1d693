"""Faults of networks and senders, on the sans-IO engine: no key is left, numbers run forwards, something counts it."""

import struct
from collections.abc import Iterable

import numpy as np
import pytest

from dsp import decoder, g711, synth
from mediaproxy.ipc.key import EVENT
from mediaproxy.media.engine import Engine
from mediaproxy.media.modes import Mode
from mediaproxy.media.rows import Rows
from mediaproxy.offline import Network
from mediaproxy.scan import detectors
from tests.fixtures import leg
from tests.fixtures.leg import AGENT, TRUNK, event, fields, packet


def engine(mode: Mode = Mode.GUARDED) -> Engine:
    return leg.engine(mode, leg.EVERY)


def run(made: Engine, packets: Iterable[bytes], now: float = 0.0) -> list[bytes]:
    """One tick of the caller's packets: what leaves."""
    return [data for _, data in leg.run(made, [(TRUNK, data) for data in packets], now)]


def forwards(heard: list[bytes]) -> None:
    heads = [fields(data) for data in heard]
    assert len({head[3] for head in heads}) == 1
    for before, after in zip(heads, heads[1:], strict=False):
        assert 0 < (after[1] - before[1]) % 65536 <= 3000
        assert 0 <= (after[2] - before[2]) % 2**32 < 2**31


def left_in(heard: list[bytes]) -> list[object]:
    """Keys and residues in what came, in order of arrival."""
    octets = np.frombuffer(b"".join(data[12:] for data in heard if fields(data)[0] == 0), np.uint8)
    sound = g711.decode(octets, g711.PCMU)
    return [*decoder.decode_keys(sound, 8000), *detectors.residues(sound)]


def keying(seed: int, keys: int = 20) -> bytes:
    """Keys over a noisy line, whole packets."""
    rng = np.random.default_rng(seed)
    sound, _ = synth.keying([synth.Press(int(k), 80, -9) for k in rng.integers(0, 16, keys)], rng, (70, 90), 60, -60)
    octets = g711.encode(sound, g711.PCMU).tobytes()
    return octets[: len(octets) // 160 * 160]


def packets(octets: bytes, sequence: int = 1000, timestamp: int = 5000, ssrc: int = 99) -> list[bytes]:
    return [
        packet(sequence + i, timestamp + 160 * i, octets[160 * i : 160 * i + 160], ssrc=ssrc)
        for i in range(len(octets) // 160)
    ]


MODES = pytest.mark.parametrize("mode", [Mode.GUARDED, Mode.ARMED])


@MODES
@pytest.mark.parametrize("loss", [0.01, 0.05, 0.2])
def test_bursts_of_loss_leave_no_key_and_are_counted(mode: Mode, loss: float) -> None:
    """Gilbert and Elliott's model, bursts of three."""
    made = engine(mode)
    sent = packets(keying(1, 40))
    gone = Network(loss, 3.0, seed=5).lost(len(sent))
    heard: list[bytes] = []
    for i, data in enumerate(sent):
        if not gone[i]:
            heard += run(made, [data], 0.02 * i)
    assert left_in(heard) == []
    forwards(heard)
    inside = gone[np.flatnonzero(~gone)[0] : np.flatnonzero(~gone)[-1]].sum()
    assert made.counts(TRUNK)["lost"] == inside


@MODES
@pytest.mark.parametrize("at", [6, 8, 10, 12])
def test_an_outage_of_half_a_second_leaves_no_key(mode: Mode, at: int) -> None:
    made = engine(mode)
    sent = packets(keying(2))
    heard: list[bytes] = []
    for i, data in enumerate(sent):
        if not at <= i < at + 25:
            heard += run(made, [data], 0.02 * i)
    assert left_in(heard) == []
    forwards(heard)
    assert made.counts(TRUNK)["lost"] == 25


@MODES
@pytest.mark.parametrize("seed", range(4))
def test_reordered_and_repeated_packets_carry_no_original_tone(mode: Mode, seed: int) -> None:
    made = engine(mode)
    rng = np.random.default_rng(seed)
    sent = packets(keying(seed + 10, 30))
    order = np.argsort(
        np.arange(len(sent)) + rng.integers(0, 4, len(sent)) * (rng.random(len(sent)) < 0.2), kind="stable"
    )
    order = np.repeat(order, 1 + (rng.random(len(sent)) < 0.1))
    heard: list[bytes] = []
    for i, place in enumerate(order):
        heard += run(made, [sent[place]], 0.02 * i)
    assert left_in(heard) == []
    forwards(heard)
    counts = made.counts(TRUNK)
    assert counts["reordered"] > 0
    assert counts["duplicates"] > 0
    assert counts["late"] > 0


@MODES
def test_a_source_that_changes_and_two_that_share_a_port_leave_no_key(mode: Mode) -> None:
    """Another SSRC in the middle of a key, and then both at once."""
    made = engine(mode)
    octets = keying(3, 12)
    heard: list[bytes] = []
    for i in range(len(octets) // 160):
        body = octets[160 * i : 160 * i + 160]
        ssrc = 1 if i % 23 < 12 else 2
        heard += run(made, [packet(i, 160 * i + 7777 * ssrc, body, ssrc=ssrc)], 0.02 * i)
    for i in range(100):
        now = 0.02 * (len(octets) // 160 + i)
        body = octets[160 * i : 160 * i + 160]
        heard += run(made, [packet(i, 160 * i, body, ssrc=1), packet(9000 + i, 160 * i + 5, body, ssrc=2)], now)
    assert left_in(heard) == []
    forwards(heard)


@MODES
@pytest.mark.parametrize(
    ("sequence", "timestamp"), [(0, 1 << 31), (40000, 0), (32768, (1 << 32) - 160), (1, 80), (65535, -4001), (3, -160)]
)
def test_numbers_that_jump_in_the_middle_of_a_key_leave_none(mode: Mode, sequence: int, timestamp: int) -> None:
    made = engine(mode)
    octets = keying(4, 12)
    heard: list[bytes] = []
    more, later = 0, 0
    for i in range(len(octets) // 160):
        if i % 7 == 3:
            more, later = more + sequence, later + timestamp
        heard += run(made, [packet(i + more, 160 * i + later, octets[160 * i : 160 * i + 160])], 0.02 * i)
    assert left_in(heard) == []
    forwards(heard)


@MODES
@pytest.mark.parametrize(("sequence", "timestamp"), [(65530, 5000), (1000, 2**32 - 2000), (65530, 2**32 - 1000)])
def test_numbers_that_wrap_are_no_event_at_all(mode: Mode, sequence: int, timestamp: int) -> None:
    octets = keying(5, 4)
    plain = [run(engine_, [data], 0.02 * i) for engine_ in [engine(mode)] for i, data in enumerate(packets(octets))]
    wrapped = [
        run(engine_, [data], 0.02 * i)
        for engine_ in [engine(mode)]
        for i, data in enumerate(packets(octets, sequence, timestamp))
    ]
    assert [len(rows) for rows in plain] == [len(rows) for rows in wrapped]
    steps = [fields(data)[1] for rows in wrapped for data in rows]
    assert all((b - a) % 65536 == 1 for a, b in zip(steps, steps[1:], strict=False))
    assert left_in([data for rows in wrapped for data in rows]) == []


@MODES
def test_a_storm_of_markers_changes_nothing(mode: Mode) -> None:
    made, other = engine(mode), engine(mode)
    octets = keying(6, 10)
    for i in range(len(octets) // 160):
        body = octets[160 * i : 160 * i + 160]
        plain = run(made, [packet(i, 160 * i, body)], 0.02 * i)
        marked = run(other, [packet(i, 160 * i, body, marker=True)], 0.02 * i)
        if mode == Mode.GUARDED:
            assert [data[2:] for data in plain] == [data[2:] for data in marked] or i > 40  # noise of substitution
    assert made.tally.keys[TRUNK] == other.tally.keys[TRUNK] == 10


@MODES
def test_padding_extensions_and_csrcs_hide_no_key_and_do_not_pass(mode: Mode) -> None:
    """An extension or a padded end may carry anything: what leaves has neither."""
    made = engine(mode)
    octets = keying(7, 12)
    secret = b"4111111111111111"
    heard: list[bytes] = []
    for i in range(len(octets) // 160):
        body = octets[160 * i : 160 * i + 160]
        head = struct.pack("!BBHII", 0xB2, 0, i, 160 * i, 9) + secret[:8]
        data = head + struct.pack("!HH", 0xBEDE, 4) + secret + body + secret + bytes(3) + bytes([20])
        heard += run(made, [data], 0.02 * i)
    assert left_in(heard) == []
    assert all(len(data) == 172 and data[0] == 0x80 and secret not in data for data in heard)


def test_truncated_and_oversized_packets_are_counted_and_dropped() -> None:
    made = engine()
    odd = [b"", b"\x80", b"\x80" * 11, struct.pack("!BBHII", 0x8F, 0, 1, 1, 1), bytes([0x80]) * 2048]
    odd += [
        struct.pack("!BBHII", 0x90, 0, 1, 1, 1) + b"\0\0\xff\xff",
        struct.pack("!BBHII", 0xA0, 0, 1, 1, 1) + b"\xff",
    ]
    odd += [struct.pack("!BBHII", 0x40, 0, 1, 1, 1) + bytes(160), b"\x80\xc8" + bytes(26)]
    assert run(made, odd) == []
    assert made.counts(TRUNK)["malformed"] == len(odd)
    assert made.counts(TRUNK)["packets"] == 0


def test_a_clock_that_is_set_changes_reports_only() -> None:
    """Somebody sets the machine's clock by hours: audio and keys go by the monotonic one."""
    rows, octets = Rows(), keying(8, 6)
    heard = []
    for step in (0.0, 7200.0, -7200.0):
        made = engine()
        made.confirmed_seconds = 0.0  # no substitution, whose noise is never twice the same
        part = []
        for i in range(len(octets) // 160):
            rows.count = 0
            rows.put(TRUNK, packet(i, 160 * i, octets[160 * i : 160 * i + 160]))
            out = made.process(rows, 0.02 * i, 1.7e9 + (step if i > 20 else 0.0) + 0.02 * i)
            part += [out.slab[k, : out.length[k]].tobytes() for k in range(out.count) if not out.control[k]]
        heard.append(part)
    assert heard[0] == heard[1] == heard[2]


@MODES
@pytest.mark.parametrize("sizes", [(80, 80), (160, 240), (480, 80), (320, 160), (240, 400)])
def test_a_change_of_packet_time_in_the_middle_of_keys_leaves_none(mode: Mode, sizes: tuple[int, int]) -> None:
    made = engine(mode)
    octets = keying(9, 16)
    heard, at, i = [], 0, 0
    while at + 480 <= len(octets):
        size = sizes[i % 20 >= 10]
        heard += run(made, [packet(i, at, octets[at : at + size])], at / 8000)
        at, i = at + size, i + 1
    assert left_in(heard) == []
    forwards(heard)


def test_comfort_noise_passes_as_its_level_alone() -> None:
    made = engine()
    run(made, packets(b"\xff" * 800), 0.0)
    (out,) = run(made, [packet(1005, 5800, b"\x45\x11\x22\x33", pt=13)], 0.1)
    assert (fields(out)[0], out[12:]) == (13, b"\x45")
    assert (
        fields(out)[2] - fields(run(made, packets(b"\xff" * 160, 1006, 5800 + 8000), 1.1)[0])[2]
    ) % 2**32 == 2**32 - 8000
    made.change_mode(TRUNK, "arm")
    made.change_mode(TRUNK, "fault")
    (sealed,) = run(made, [packet(1007, 13960, b"\x20", pt=13)], 1.2)
    assert sealed[12:] == b"\x7f"


@MODES
def test_what_follows_a_pause_in_talk_begins_masked(mode: Mode) -> None:
    """A sender with silence suppression: a key may be the first thing after a pause."""
    made = engine(mode)
    octets = keying(11, 12)
    heard, clock = [], 0
    for n in range(12):
        start = 160 * (5 * n)
        run(made, [packet(100 * n, clock, b"\x30", pt=13)], clock / 8000)
        clock += 4000
        for k in range(6):
            body = octets[start + 160 * k : start + 160 * k + 160]
            heard += run(made, [packet(100 * n + 1 + k, clock, body, marker=k == 0)], clock / 8000)
            clock += 160
    assert left_in(heard) == []
    forwards(heard)


@pytest.mark.parametrize("concurrent", [False, True])
def test_events_on_another_clock_are_the_same_keys(concurrent: bool) -> None:
    """Chrome sends telephone-events with the clock of Opus, 48 kHz."""
    made = engine(Mode.ARMED)
    heard, found = [], []
    silence = b"\xff" * 160
    for n, key in enumerate((4, 0, 0, 7)):
        for i in range(12):
            now, step = 0.24 * n + 0.02 * i, 12 * n + i
            rows = [packet(2 * step, 160 * step, silence)] if concurrent or i >= 6 else []
            if i < 5:
                rows.append(
                    packet(2 * step + 1, 11520 * n + 500, event(key, 960 * (i + 1), i == 4), pt=110, marker=i == 0)
                )
            heard += run(made, rows, now)
            found += [(k.event, k.source) for k in made.keys]
    assert found == [(key, EVENT) for key in (4, 0, 0, 7)]
    assert {fields(data)[0] for data in heard} == {0}
    forwards(heard)
    assert made.tally.masked[TRUNK] >= 4 * 5 * 160 * 0.8


def test_a_lost_end_ends_the_press_all_the_same() -> None:
    made = engine(Mode.ARMED)
    found = 0
    for i in range(4):
        run(made, [packet(i, 800, event(5, 160 * (i + 1)), pt=101, marker=i == 0)], 0.02 * i)
        found += len(made.keys)
    quiet = b"\xff" * 160
    heard = []
    for i in range(40):
        heard += run(made, [packet(10 + i, 2400 + 160 * i, quiet)], 0.2 + 0.02 * i)
    assert found == 1
    assert heard[-1][12:] == quiet
    run(made, [packet(100, 9600, event(5, 160), pt=101, marker=True)], 1.2)
    assert len(made.keys) == 1


def test_rtcp_is_answered_and_never_forwarded() -> None:
    made = engine()
    run(made, packets(b"\xff" * 1600), 1.0)
    report = struct.pack("!BBHIIIIII", 0x80, 200, 6, 99, 0x11112222, 0x33334444, 5000, 10, 1600)
    odd = struct.pack("!BBH", 0x80, 204, 4) + b"\0\0\0\x63FLAT" + b"41111111"  # APP: it may carry anything
    rows = Rows()
    rows.put(TRUNK, report + odd, control=True)
    rows.put(TRUNK, b"\x80\xc8\xff\xff" + bytes(30), control=True)
    assert made.process(rows, 2.0, 1.7e9).count == 0
    assert made.counts(TRUNK)["malformed"] == 1
    out = made.process(Rows(), 9.0, 1.7e9)
    said = {int(out.slot[i]): out.slab[i, : out.length[i]].tobytes() for i in range(out.count)}
    block = said[TRUNK][8:32]
    assert int.from_bytes(block[:4]) == 99
    assert int.from_bytes(block[16:20]) == 0x22223333  # the report it answers
    assert abs(int.from_bytes(block[20:24]) / 65536 - 7.0) < 0.01
    assert b"41111111" not in said[AGENT] + said[TRUNK]


def test_a_goodbye_makes_the_next_packet_another_source() -> None:
    made = engine()
    run(made, packets(b"\xff" * 1600), 1.0)
    rows = Rows()
    rows.put(TRUNK, struct.pack("!BBHI", 0x80, 201, 1, 99) + struct.pack("!BBHI", 0x81, 203, 1, 99), control=True)
    made.process(rows, 1.1)
    tone = keying(12, 1)
    heard = [data for i, p in enumerate(packets(tone, 7, 123456)) for data in run(made, [p], 1.2 + 0.02 * i)]
    assert left_in(heard) == []
    assert heard[0][12 : 12 + 64] == b"\xff" * 64


def test_a_reported_loss_is_what_was_lost() -> None:
    made = engine()
    sent = packets(b"\xff" * 160 * 100)
    for i, data in enumerate(sent):
        if i % 10 != 5:
            run(made, [data], 0.02 * i)
    block = made.reception.block(TRUNK, 0, 0.0)
    assert block is not None
    assert (block.fraction, block.lost) == (256 * 10 // 100, 10)
    assert block.highest & 0xFFFF == 1099
    assert block.jitter < 8


@pytest.mark.parametrize("ms", [60, 100, 140, 200, 300])
def test_a_press_by_events_alone_does_not_show_its_length(ms: int) -> None:
    """A sender with silence suppression sends nothing but the events."""
    made = engine()
    run(made, packets(b"\xff" * 160 * 5), 0.0)
    heard, at = [], []
    for tick in range(200):
        now = 0.1 + 0.005 * tick
        rows = []
        if tick % 4 == 0 and tick // 4 <= ms // 20:
            step = tick // 4
            rows = [
                packet(
                    1005 + step, 5800, event(7, min(160 * (step + 1), 8 * ms), 20 * step >= ms), pt=101, marker=not step
                )
            ]
        new = run(made, rows, now)
        heard += new
        at += [now] * len(new)
    assert len(heard) * 160 == (1920 if ms <= 240 else 3840)
    assert {fields(data)[0] for data in heard} == {0}
    assert max(b - a for a, b in zip(at, at[1:], strict=False)) <= 0.1001
    forwards(heard)


def test_events_that_claim_hours_bring_no_flood() -> None:
    made = engine()
    heard = []
    for i in range(200):
        heard += run(made, [packet(i, 90000 * i, event(16, 65535), pt=101)], 0.005 * i)
    assert len(heard) * 160 <= 8000 * 1.0 + 4000 + 160


@pytest.mark.parametrize("concurrent", [False, True])
def test_events_of_a_source_of_their_own_are_one_press(concurrent: bool) -> None:
    """SSRC of the audio and SSRC of the events take turns."""
    made = engine(Mode.ARMED)
    heard, found = [], 0
    for i in range(12):
        rows = [packet(i, 160 * i, b"\xff" * 160, ssrc=1)] if concurrent or i < 4 or i > 8 else []
        if 4 <= i <= 8:
            rows.append(packet(700 + i, 640, event(5, 160 * (i - 3), i == 8), pt=101, ssrc=2, marker=i == 4))
        heard += run(made, rows, 0.02 * i)
        found += len(made.keys)
    assert found == 1
    assert len(heard) <= 14
    forwards(heard)


def test_a_source_or_a_goodbye_in_mid_press_repeats_no_key() -> None:
    made = engine(Mode.ARMED)
    found = 0
    for i in range(6):
        rows = Rows()
        rows.put(TRUNK, packet(i, 800, event(5, 160 * (i + 1), i == 5), pt=101, ssrc=1 + (i > 2), marker=i == 0))
        bye = struct.pack("!BBHI", 0x80, 201, 1, 99) + struct.pack("!BBHI", 0x81, 203, 1, 1 + (i > 2))
        rows.put(TRUNK, bye, control=True)
        made.process(rows, 0.02 * i)
        found += len(made.keys)
    assert found == 1


def test_two_presses_with_one_timestamp_are_two() -> None:
    """Some senders do not move the clock between keys."""
    made, found = engine(Mode.ARMED), []
    for i, (code, end) in enumerate(((4, False), (4, True), (7, False), (7, True))):
        run(made, [packet(i, 800, event(code, 160 * (1 + i % 2), end), pt=101, marker=not end)], 0.02 * i)
        found += [key.event for key in made.keys]
    assert found == [4, 7]


def test_a_key_belongs_to_the_capture_in_which_it_was_keyed() -> None:
    """The decoder is asked a few ticks later: what it was given before a change of mode counts as before."""
    made = engine(Mode.ARMED)
    octets = g711.encode(
        synth.keying([synth.Press(5, 120)], np.random.default_rng(1), (80, 80), 100, -60)[0], g711.PCMU
    )
    found = 0
    for i in range(len(octets) // 160):
        run(made, [packet(i, 160 * i, octets[160 * i : 160 * i + 160].tobytes())], 0.02 * i)
        found += len(made.keys)
        made.keys.clear()
        made.hear_out(0.02 * i)
        found += len(made.keys)
        if found:
            made.change_mode(TRUNK, "guard")
    assert found == 1


def test_a_closed_leg_leaves_no_audio_behind() -> None:
    made = engine(Mode.ARMED)
    tone = g711.encode(synth.tone_pair(synth.Press(9, 200)), g711.PCMU).tobytes()
    for i, data in enumerate(packets(tone)):
        run(made, [data], 0.02 * i)
    assert made.ears._gathered
    made.close(TRUNK)
    assert not any(len(audio) for _, audio, *_ in made.ears._gathered)
    assert made.ears.flush() == []
    assert not made.line._line[TRUNK].any()
