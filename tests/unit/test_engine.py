"""The media engine, driven as the worker drives it: rows in, rows out."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsp import g711, keypad, synth
from dsp.gate import Verdict
from mediaproxy.ipc.key import EVENT, INBAND
from mediaproxy.media.modes import Mode
from mediaproxy.media.rows import Rows
from tests.fixtures.leg import AGENT, TRUNK, USUAL, engine, event, fields, packet, run

SPEECH = g711.encode(synth.speechlike(4, np.random.default_rng(0)), g711.PCMU)


def test_agent_rows_pass_as_they_are() -> None:
    sent = [packet(i, 160 * i, SPEECH[160 * i : 160 * i + 160].tobytes(), marker=i == 0) for i in range(20)]
    assert run(engine(), [(AGENT, data) for data in sent]) == [(TRUNK, data) for data in sent]


NOISY = g711.encode(
    synth.speechlike(4, np.random.default_rng(0)) + np.random.default_rng(1).normal(0, 0.005, 32000), g711.PCMU
)
"""Never silent."""


@pytest.mark.parametrize("mode", [Mode.GUARDED, Mode.ARMED])
def test_when_the_mask_fails_the_guard_silences_the_leg(mode: Mode) -> None:
    """A gate that sees nothing: the leg is silent within 60 ms of the key, sealed if armed, else for ten seconds."""
    made = engine(mode)
    made.line.gate.judge = lambda audio: Verdict(np.zeros(len(audio), np.int64), np.zeros(len(audio), np.int64))
    made.line._substitute = lambda slots, *_: np.zeros(len(slots), np.bool_)
    tone = g711.encode(synth.tone_pair(synth.Press(4, 200, -12)), g711.PCMU)
    octets = np.concatenate([NOISY[:3200], tone, np.tile(NOISY, 4)])
    silent, alarms = [], []
    for i in range(len(octets) // 160):
        ((_, data),) = run(made, [(TRUNK, packet(i, 160 * i, octets[160 * i : 160 * i + 160].tobytes()))], 0.02 * i)
        silent.append(data[12:] == b"\xff" * 160)
        alarms += made.alarms
    assert alarms == [TRUNK]
    assert made.tally.alarms.sum() == 1
    began = 20 + 3  # packets: the tone, and 60 ms
    assert not any(silent[2:20])
    if mode == Mode.ARMED:
        assert made.mode[TRUNK] == Mode.SEALED
        assert all(silent[began:])
    else:
        assert made.mode[TRUNK] == Mode.GUARDED
        assert all(silent[began : began + 498])
        assert not all(silent[began + 510 :])


def test_substitution_runs_for_ten_seconds_after_a_confirmed_key() -> None:
    made = engine()
    tone = g711.encode(synth.tone_pair(synth.Press(4, 80, -12)), g711.PCMU)
    octets = np.concatenate([NOISY[:3200], tone, np.tile(NOISY, 4)])
    same = []
    for i in range(len(octets) // 160):
        ((_, data),) = run(made, [(TRUNK, packet(i, 160 * i, octets[160 * i : 160 * i + 160].tobytes()))], 0.02 * i)
        same.append(data[12:] == octets[160 * i - 64 : 160 * i + 96].tobytes() if i else False)
    assert all(same[2:18])
    assert sum(same[20:500]) < 10
    assert sum(same[560:]) > 0.9 * len(same[560:])


def test_agent_keys_reach_the_trunk() -> None:
    data = packet(1, 160, event(5, 160), pt=101)
    assert run(engine(), [(AGENT, data)]) == [(TRUNK, data)]


def test_several_packets_of_one_leg_in_a_tick_keep_their_order() -> None:
    sent = [(TRUNK, packet(i, 160 * i, SPEECH[160 * i : 160 * i + 160].tobytes())) for i in range(20)]
    one = engine(Mode.PASSTHROUGH)
    together = run(one, sent)
    other = engine(Mode.PASSTHROUGH)
    apart = [row for item in sent for row in run(other, [item])]
    assert together == apart
    assert len(together) == 20


def test_unknown_payload_types_are_dropped_and_counted() -> None:
    made = engine()
    assert run(made, [(TRUNK, packet(1, 0, b"x" * 160, pt=pt)) for pt in (13, 96, 110, 18, 127)]) == []
    assert made.tally.unknown_payload.sum() == 5


@pytest.mark.parametrize("mode", [Mode.GUARDED, Mode.ARMED, Mode.SEALED])
def test_telephone_events_are_consumed(mode: Mode) -> None:
    made = engine(mode)
    out = run(made, [(TRUNK, packet(i, 160 * i, SPEECH[:160].tobytes())) for i in range(5)])
    for i in range(1, 7):
        out += run(made, [(TRUNK, packet(5 + i, 800, event(7, 160 * i, i == 6), pt=101))])
    assert all(fields(data)[0] == 0 for _, data in out)
    if mode == Mode.SEALED:
        assert all(set(data[12:]) == {0xFF} for _, data in out)


def test_an_event_becomes_flat_tone_of_its_length_once() -> None:
    made = engine(Mode.ARMED)
    run(made, [(TRUNK, packet(0, 0, SPEECH[:160].tobytes()))])
    out = run(made, [(TRUNK, packet(1, 160, event(3, 160), pt=101))])
    assert [data[12:] for _, data in out] == [made.line.flat(g711.PCMU, fields(out[0][1])[2], 160).tobytes()]
    assert [(k.event, k.source) for k in made.keys] == [(3, EVENT)]
    out = run(made, [(TRUNK, packet(2, 160, event(3, 320, True), pt=101))] * 3)
    assert len(out) == 1
    assert made.keys == []


@pytest.mark.parametrize("concurrent", [False, True])
def test_audio_beside_an_event_is_masked(concurrent: bool) -> None:
    made = engine(Mode.ARMED)
    tone = g711.encode(synth.tone_pair(synth.Press(5, 400)), g711.PCMU)
    quiet = np.full(160, 0xFF, np.uint8)
    out = []
    for i in range(10):
        out += run(made, [(TRUNK, packet(2 * i, 160 * i, quiet.tobytes()))])
    for i in range(8):
        at = 1600 + 160 * i
        rows = [(TRUNK, packet(20 + 2 * i, 1600, event(5, 160 * (i + 1), i == 7), pt=101))]
        if concurrent:
            rows.insert(i % 2, (TRUNK, packet(21 + 2 * i, at, tone[160 * i : 160 * i + 160].tobytes())))
        out += run(made, rows)
    heard = b"".join(data[12:] for _, data in out[11:])
    flat = made.line.flat(g711.PCMU, fields(out[11][1])[2], len(heard)).tobytes()
    assert len(heard) == 7 * 160  # of eight; the first stands before these
    assert heard == flat


def test_one_press_is_one_key_however_its_packets_come() -> None:
    made = engine(Mode.ARMED)
    packets = [packet(1 + i, 800, event(9, 160 * (i + 1), i == 4), pt=101) for i in range(5)]
    found = 0
    for data in [*packets, packets[4], packets[4], packets[0], packets[2]]:
        run(made, [(TRUNK, data)])
        found += len(made.keys)
    assert found == 1
    run(made, [(TRUNK, packet(20, 2400, event(9, 160), pt=101))])
    assert len(made.keys) == 1


def test_inband_keys_are_found_while_armed_only() -> None:
    rng = np.random.default_rng(3)
    keys = "4079*#"
    audio, _ = synth.keying([synth.Press(keypad.KEYS.index(k), 70) for k in keys], rng)
    octets = g711.encode(audio, g711.PCMU)
    for mode, expected in ((Mode.ARMED, keys), (Mode.GUARDED, "")):
        made, found = engine(mode), ""
        for i in range(len(octets) // 160):
            run(made, [(TRUNK, packet(i, 160 * i, octets[160 * i : 160 * i + 160].tobytes()))])
            assert all(k.source == INBAND for k in made.keys)
            found += "".join(keypad.EVENTS[k.event] for k in made.keys)
        assert found == expected
        assert made.tally.keys[TRUNK] == len(keys)


def test_passthrough_relays_events() -> None:
    out = run(engine(Mode.PASSTHROUGH), [(TRUNK, packet(1, 160, event(5, 160), pt=101))])
    assert [(fields(data)[0], data[12:]) for _, data in out] == [(101, event(5, 160))]


def test_passthrough_ends_after_so_many_keys() -> None:
    """Two may pass, with all their packets; of the third nothing does, and the leg says so once."""
    made = engine(Mode.PASSTHROUGH)
    made.open(TRUNK, AGENT, Mode.PASSTHROUGH, lambda: 0x1234567, recorded=False, now=0.0, guard_keys=2)
    for slot in (TRUNK, AGENT):
        made.update(slot, USUAL, {encoding: payload_type for payload_type, encoding in USUAL.items()}, 20)
    passed, latched, sequence = [], 0, 0
    for press in range(4):
        for duration, end in ((160, False), (320, False), (320, True)):
            sequence += 1
            now = 0.2 * press + duration / 8000
            data = packet(sequence, 160 + 4000 * press, event(press + 1, duration, end), pt=101)
            out = run(made, [(TRUNK, data)], now)
            passed += [data[12] for _, data in out if fields(data)[0] == 101]
            latched += len(made.latched)
    assert passed == [1, 1, 1, 2, 2, 2]
    assert latched == 1
    assert made.mode[TRUNK] == Mode.GUARDED


def test_egress_numbers_run_forwards_through_everything() -> None:
    """One SSRC; timestamps never go back; sequence numbers step by what was lost."""
    made = engine()
    rng = np.random.default_rng(8)
    sequence, timestamp, ssrc, out = 65500, 2**32 - 8000, 7, []
    for i in range(400):
        chance = rng.random()
        if chance < 0.03:
            ssrc, timestamp, sequence = ssrc + 1, int(rng.integers(2**32)), int(rng.integers(65536))
        elif chance < 0.06:
            timestamp += int(rng.integers(-40000, 40000))
        elif chance < 0.12:
            sequence, timestamp = sequence + 1, timestamp + 160
        pt, body = (101, event(i % 16, 160)) if chance > 0.95 else (0, SPEECH[:160].tobytes())
        out += run(made, [(TRUNK, packet(sequence, timestamp, body, pt, ssrc))])
        sequence, timestamp = sequence + 1, timestamp + 160
    heads = [fields(data) for _, data in out]
    assert len({head[3] for head in heads}) == 1
    for before, after in zip(heads, heads[1:], strict=False):
        assert 0 < (after[1] - before[1]) % 65536 <= 100
        assert 0 < (after[2] - before[2]) % 2**32 < 2**31


def test_a_closed_slot_sends_nothing() -> None:
    made = engine()
    made.close(TRUNK)
    made.close(AGENT)
    assert run(made, [(slot, packet(1, 0, SPEECH[:160].tobytes())) for slot in (TRUNK, AGENT)]) == []


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([TRUNK, AGENT]), st.binary(max_size=700)), max_size=12))
def test_garbage_raises_nothing(packets: list[tuple[int, bytes]]) -> None:
    made = engine(Mode.ARMED)
    for _, data in run(made, packets):
        assert len(data) >= 12


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=600)), max_size=12))
def test_near_rtp_raises_nothing(packets: list[tuple[int, int, bytes]]) -> None:
    made = engine(Mode.ARMED)
    run(made, [(TRUNK, bytes((first, second)) + rest) for first, second, rest in packets])


def test_headers_with_csrcs_extension_and_padding_are_read() -> None:
    made = engine(Mode.PASSTHROUGH)
    body = SPEECH[:160].tobytes()
    extended = struct.pack("!BBHII", 0xB2, 0, 1, 0, 9) + bytes(8) + struct.pack("!HH", 1, 1) + bytes(4) + body
    (out,) = run(made, [(TRUNK, extended + bytes(3) + b"\x04")])
    assert len(out[1]) == 12 + 160
    assert out[1][0] == 0x80


def test_sender_reports_leave_on_time() -> None:
    made = engine()
    run(made, [(TRUNK, packet(0, 0, SPEECH[:160].tobytes()))], now=1.0)
    out = made.process(Rows(), 6.0, 1.7e9)
    reports = [out.slab[i, : out.length[i]].tobytes() for i in range(out.count) if out.control[i]]
    assert [report[1] for report in reports] == [201, 200]  # to the caller, who heard nothing, and to the agent
    assert int.from_bytes(reports[0][8:12]) == 99
    assert int.from_bytes(reports[1][20:24]) == 1


@pytest.mark.parametrize("mode", [Mode.GUARDED, Mode.ARMED])
def test_arming_and_faults_in_midstream_leave_no_tone(mode: Mode) -> None:
    rng = np.random.default_rng(5)
    audio, marks = synth.keying([synth.Press(int(k), 80) for k in rng.integers(0, 16, 30)], rng)
    octets = g711.encode(audio, g711.PCMU)
    made, heard, flats = engine(mode), [], []
    for i in range(len(octets) // 160):
        if i % 7 == 0:
            made.change_mode(TRUNK, ("arm", "guard", "fault", "release")[i // 7 % 4])
        out = run(made, [(TRUNK, packet(i, 160 * i, octets[160 * i : 160 * i + 160].tobytes()))])
        heard.append(np.frombuffer(out[0][1][12:], np.uint8))
        flats.append(made.line.flat(g711.PCMU, fields(out[0][1])[2], 160))
    audio_out, flat = np.concatenate(heard), np.concatenate(flats)
    for start, end in marks[marks[:, 1] + 64 < len(audio_out)]:
        piece = slice(start + 64, end + 64)
        assert ((audio_out[piece] == flat[piece]) | (audio_out[piece] == 0xFF)).all()


@pytest.mark.parametrize("twice", range(10, 16))
def test_a_duplicated_packet_inside_a_key_changes_nothing(twice: int) -> None:
    press = synth.tone_pair(synth.Press(6, 120))
    octets = g711.encode(np.concatenate([np.zeros(1700, np.float32), press, np.zeros(1600, np.float32)]), g711.PCMU)
    made = engine(Mode.ARMED)
    found = 0
    for i in range(len(octets) // 160):
        for _ in range(2 if i == twice else 1):
            run(made, [(TRUNK, packet(i, 160 * i, octets[160 * i : 160 * i + 160].tobytes()))])
            found += len(made.keys)
    assert found == 1


@pytest.mark.parametrize("base", [0, 2**30, 2**31 + 5, 2**32 - 1000])
def test_a_new_clock_after_an_event_does_not_mask_for_hours(base: int) -> None:
    made = engine()
    run(made, [(TRUNK, packet(0, base, event(5, 160, True), pt=101, ssrc=1))])
    quiet = np.full(160, 0xFF, np.uint8)
    out = []
    for i in range(40):
        out = run(made, [(TRUNK, packet(i, 777777 + 160 * i, quiet.tobytes(), ssrc=2))])
    assert out[0][1][12:] == quiet.tobytes()


def test_the_same_capture_played_twice_is_two_presses() -> None:
    made = engine(Mode.ARMED)
    found = 0
    for second in (0.0, 0.5, 1.0):
        for i in range(3):
            run(
                made,
                [(TRUNK, packet(100 + i, 13280, event(1, 320 * (i + 1), i == 2), pt=101, marker=i == 0))],
                second + i * 0.02,
            )
            found += len(made.keys)
    assert found == 3


def test_a_call_may_begin_with_a_key() -> None:
    made = engine(Mode.ARMED)
    found = 0
    for i in range(5):
        run(made, [(TRUNK, packet(i, 500, event(1, 80 * i, i == 4), pt=101, marker=i == 0))], i * 0.02)
        found += len(made.keys)
    assert found == 1


def test_a_long_press_in_segments_is_one_key() -> None:
    made = engine(Mode.ARMED)
    found = 0
    for start, duration in ((800, 65535), (800 + 65535, 1600), (800 + 65535, 3200)):
        run(made, [(TRUNK, packet(start & 0xFF, start, event(4, duration), pt=101))])
        found += len(made.keys)
    assert found == 1


@pytest.mark.parametrize("at", range(0, 160, 16))
def test_leaving_passthrough_in_the_middle_of_a_tone_leaks_nothing_after_it(at: int) -> None:
    press = synth.tone_pair(synth.Press(9, 60))
    lead = np.zeros(1600 - at, np.float32)
    octets = g711.encode(np.concatenate([lead, press, np.zeros(1600, np.float32)]), g711.PCMU)
    made = engine(Mode.PASSTHROUGH)
    for i in range(len(octets) // 160):
        if i == 10:
            made.change_mode(TRUNK, "guard")
        out = run(made, [(TRUNK, packet(i, 160 * i, octets[160 * i : 160 * i + 160].tobytes()))])
        if i >= 10:
            heard = np.frombuffer(out[0][1][12:], np.uint8)
            flat = made.line.flat(g711.PCMU, fields(out[0][1])[2], 160)
            silent = np.abs(g711.decode(heard, g711.PCMU)) < 0.001
            assert ((heard == flat) | silent).all()


def test_what_passed_through_is_wiped_from_the_slab() -> None:
    made = engine(Mode.PASSTHROUGH)
    run(made, [(TRUNK, packet(1, 160, event(5, 160), pt=101))])
    made.out.wipe()
    assert not made.out.slab.any()


def test_the_egress_clock_does_not_follow_a_senders_numbers() -> None:
    """Some senders give every key timestamps of its own: neither numbers nor phase of what leaves may tell them."""
    shapes = []
    for keys in ((1, 2, 3, 4), (4, 0, 0, 9)):
        made = engine()
        shape = []
        for n, key in enumerate(keys):
            for i in range(1, 6):
                data = packet(1000 * key + i, 7919 * (key + 1), event(key, 160 * i, i == 5), pt=101, marker=i == 1)
                shape += [(fields(d)[1:], d[12:]) for _, d in run(made, [(TRUNK, data)], n * 0.3 + i * 0.02)]
        shapes.append(shape)
    assert shapes[0] == shapes[1]


def test_what_went_in_passthrough_is_told_even_where_passthrough_ends_in_the_same_tick() -> None:
    """The recorder keeps such rows silent: they may hold the tone of the key that ended it."""
    made = engine(Mode.PASSTHROUGH)
    made.open(TRUNK, AGENT, Mode.PASSTHROUGH, lambda: 7, recorded=True, now=0.0, guard_keys=1)
    for slot in (TRUNK, AGENT):
        made.update(slot, USUAL, {e: p for p, e in USUAL.items()}, 20)
    tone = g711.encode(synth.tone_pair(synth.Press(4, 400, -10)), 0)

    def tick(packets: list[bytes], now: float) -> list[bool]:
        rows = Rows()
        for data in packets:
            rows.put(TRUNK, data)
        made.process(rows, now, 0.0)
        return [passed for *_, passed in made.heard]

    tick([packet(1, 160, event(5, 160, True), pt=101)], 0.0)
    for i in range(1, 8):
        packets = [packet(1 + i, 160 * i + 8000, tone[160 * i : 160 * i + 160].tobytes())]
        if i == 6:
            packets.append(packet(1 + i, 160 * i + 8400, event(7, 160, False), pt=101))
        told = tick(packets, 0.1 + 0.02 * i)
        assert told[:1] == [True] if i <= 6 else True not in told, i
    assert made.mode[TRUNK] == Mode.GUARDED
