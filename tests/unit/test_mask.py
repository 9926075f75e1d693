"""The look-back line: exact delay, no original tone, nothing changed that need not be, gaps by timestamp."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsp import g711, synth
from dsp.gate import Gate, Verdict
from dsp.mask import MaskLine
from mediaproxy import offline

TRUE, FALSE = np.ones(1, np.bool_), np.zeros(1, np.bool_)
SLOT = np.zeros(1, np.intp)


def keying(seed: int, n: int = 40, noise: float = -55.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    presses = [
        synth.Press(
            int(k), rng.uniform(40, 120), rng.uniform(-25, -6), rng.uniform(-8, 6), *rng.uniform(-0.018, 0.018, 2)
        )
        for k in rng.integers(0, 16, n)
    ]
    audio, marks = synth.keying(presses, rng, noise_dbm0=noise)
    return g711.encode(audio, g711.PCMU), marks


def send(octets: np.ndarray, sizes: list[int], gated: bool = True, start: int = 0) -> np.ndarray:
    """Push `octets` through one line in blocks of `sizes`, over and over."""
    line, out, at, i = MaskLine(1), [], 0, 0
    while at + sizes[i % len(sizes)] <= len(octets):
        size = sizes[i % len(sizes)]
        when = np.array([(start + at) & 0xFFFFFFFF], np.uint32)
        gate = TRUE if gated else FALSE
        out.append(line.push(SLOT, octets[None, at : at + size], SLOT, when, gate, FALSE).octets[0])
        at, i = at + size, i + 1
    return np.concatenate(out)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 500), min_size=1, max_size=6),
    start=st.sampled_from([0, 1, 2**31 - 500, 2**32 - 500]),
)
def test_the_delay_is_8_ms_for_every_packetisation(sizes: list[int], start: int) -> None:
    octets = np.random.default_rng(0).integers(0, 256, 3000).astype(np.uint8)
    out = send(octets, sizes, gated=False, start=start)
    assert (out[128:] == octets[64 : len(out) - 64]).all()
    assert (out[:128] == g711.SILENCE[g711.PCMU]).all()  # nothing is known before the first packet


@pytest.mark.parametrize("size", [80, 160, 240, 320, 480])
@pytest.mark.parametrize("phase", [0, 3, 77])
def test_no_original_tone_leaves(size: int, phase: int) -> None:
    octets, marks = keying(size + phase)
    octets, marks = octets[phase:], marks - phase
    out = send(octets, [size])
    flat = MaskLine(1).flat(g711.PCMU, 0, len(out))
    for start, end in marks[marks[:, 1] + 64 < len(out)]:
        assert (out[start + 64 : end + 64] == flat[start + 64 : end + 64]).all()


def test_what_is_not_masked_is_the_octets_as_they_came() -> None:
    octets, marks = keying(9)
    out = send(octets, [160])
    flat = MaskLine(1).flat(g711.PCMU, 0, len(out))
    same = out[128:] == octets[64 : len(out) - 64]
    assert (same | (out[128:] == flat[128:])).all()
    assert same.mean() > 0.2
    assert len(marks) == 40


def test_results_do_not_depend_on_how_streams_are_batched() -> None:
    streams = [keying(seed, 12)[0][:9600] for seed in range(6)]
    alone = [send(stream, [160]) for stream in streams]
    line, out = MaskLine(8), []
    slots = np.array([5, 2, 7, 0, 1, 4])
    rng = np.random.default_rng(1)
    for at in range(0, 9600, 160):
        order = rng.permutation(6)
        block = line.push(
            slots[order],
            np.stack([streams[i][at : at + 160] for i in order]),
            np.zeros(6, np.intp),
            np.full(6, at, np.uint32),
            np.ones(6, np.bool_),
            np.zeros(6, np.bool_),
        )
        out.append(block.octets[np.argsort(order)])
    together = np.concatenate(out, axis=1)
    assert all((together[i] == alone[i]).all() for i in range(6))


def test_more_triggers_never_unmask() -> None:
    octets, _ = keying(3)
    rng = np.random.default_rng(2)
    line, more, flat = MaskLine(1), MaskLine(1), MaskLine(1)
    for at in range(0, len(octets) - 160, 160):
        block, when = octets[None, at : at + 160], np.array([at], np.uint32)
        forced = np.array([rng.random() < 0.2])
        plain = line.push(SLOT, block, SLOT, when, TRUE, FALSE).octets[0]
        masked = more.push(SLOT, block, SLOT, when, TRUE, forced).octets[0]
        tone = flat.flat(g711.PCMU, at, 160)
        assert ((plain != tone) | (masked == tone)).all()


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.2])
def test_loss_leaks_nothing(loss: float) -> None:
    rng = np.random.default_rng(int(loss * 100))
    octets, marks = keying(int(loss * 1000), 150)
    line = MaskLine(1)
    flat, silence = line.flat(g711.PCMU, 0, len(octets)), g711.SILENCE[g711.PCMU]
    heard = np.full(len(octets), silence, np.uint8)
    for at in range(0, len(octets) - 160, 160):
        if rng.random() >= loss:
            block = line.push(SLOT, octets[None, at : at + 160], SLOT, np.array([at], np.uint32), TRUE, FALSE)
            heard[at : at + 160] = block.octets[0]
    for start, end in marks:
        piece = slice(start + 64, end + 64)
        assert ((heard[piece] == flat[piece]) | (heard[piece] == silence)).all()


def test_late_and_repeated_blocks_send_nothing() -> None:
    octets, _ = keying(1)
    line = MaskLine(1)
    late = [
        bool(line.push(SLOT, octets[None, at : at + 160], SLOT, np.array([at], np.uint32), TRUE, FALSE).late[0])
        for at in (0, 160, 320, 160, 320, 0, 480)
    ]
    assert late == [False, False, False, True, True, True, False]


@pytest.mark.parametrize("sizes", [[161], [47], [200, 33, 160], [1, 159], [960]], ids=str)
def test_odd_sizes_are_judged_like_any_other(sizes: list[int]) -> None:
    octets, marks = keying(4)
    out = send(octets, sizes)
    flat = MaskLine(1).flat(g711.PCMU, 0, len(out))
    assert not (out == flat).all()
    for start, end in marks[marks[:, 1] + 64 < len(out)]:
        assert (out[start + 64 : end + 64] == flat[start + 64 : end + 64]).all()


def test_a_slot_forgets_its_audio() -> None:
    octets, _ = keying(1)
    line = MaskLine(1)
    for at in range(0, 1600, 160):
        line.push(SLOT, octets[None, at : at + 160], SLOT, np.array([at], np.uint32), TRUE, FALSE)
    line.reset(0)
    block = line.push(SLOT, octets[None, :160], SLOT, np.array([1600], np.uint32), FALSE, FALSE)
    assert (block.octets[0, :128] == g711.SILENCE[g711.PCMU]).all()


def test_a_change_of_law_in_midstream_keeps_the_delay() -> None:
    octets = np.random.default_rng(0).integers(0, 256, 640).astype(np.uint8)
    line = MaskLine(1)
    line.push(SLOT, octets[None, :160], SLOT, np.array([0], np.uint32), FALSE, FALSE)
    line.push(SLOT, octets[None, 160:320], SLOT, np.array([160], np.uint32), FALSE, FALSE)
    block = line.push(SLOT, octets[None, 320:480], SLOT + 1, np.array([320], np.uint32), FALSE, FALSE)
    assert (block.octets[0, :64] == g711.TRANSCODE[g711.PCMU][octets[256:320]]).all()
    assert (block.octets[0, 64:] == octets[320:416]).all()


@pytest.mark.parametrize("fill", [0x00, 0x80, 0xFF, 0x7F])
def test_extreme_octets_raise_nothing(fill: int) -> None:
    send(np.full(3200, fill, np.uint8), [160])


def test_a_gate_that_says_yes_more_often_masks_no_less() -> None:
    """Any superset of the gate's yeses, at random places."""
    octets, _ = keying(8)
    rng = np.random.default_rng(4)
    plain, more = MaskLine(1), MaskLine(1)
    judge = more.gate.judge

    def eager(audio: np.ndarray) -> Verdict:
        verdict = judge(audio)
        extra = rng.random(1) < 0.15
        yes = verdict.yes + extra * rng.integers(1, 9)
        return Verdict(yes, np.where(extra, np.maximum(verdict.last, rng.integers(1, 161)), verdict.last))

    more.gate.judge = eager
    for at in range(0, len(octets) - 160, 160):
        block, when = octets[None, at : at + 160], np.array([at], np.uint32)
        a = plain.push(SLOT, block, SLOT, when, TRUE, FALSE).octets[0]
        b = more.push(SLOT, block, SLOT, when, TRUE, FALSE).octets[0]
        assert ((b == a) | (b == plain.flat(g711.PCMU, at, 160))).all()


@pytest.mark.parametrize("cut", [0, 1, 40, 77, 159])
def test_a_stream_that_starts_inside_a_tone_shows_nothing_of_it(cut: int) -> None:
    tone = g711.encode(synth.tone_pair(synth.Press(6, 100, -12)), g711.PCMU)[cut:]
    octets = np.concatenate([tone, np.full(1600, 0xFF, np.uint8)])
    out = send(octets, [160])
    piece = out[64 : len(tone) + 64]
    flat = MaskLine(1).flat(g711.PCMU, 0, len(out))[64 : len(tone) + 64]
    assert ((piece == flat) | (piece == 0xFF)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_is_a_yes(value: float) -> None:
    gate = Gate()
    audio = np.zeros((3, gate.history + 160), np.float32)
    audio[1, -50] = value
    assert (gate.judge(audio).yes > 0).tolist() == [False, True, False]


def test_flat_tones_of_keys_keep_to_the_grid() -> None:
    """Keys of 45 to 150 ms: the flat tone of each confirmed one is as long as all others."""
    rng = np.random.default_rng(5)
    presses = [synth.Press(int(k), float(rng.uniform(45, 150))) for k in rng.integers(0, 16, 60)]
    audio, _ = synth.keying(presses, rng, (400, 600))
    heard = offline.mask(g711.encode(audio, g711.PCMU), substitution=False)
    flat = MaskLine(1).flat(g711.PCMU, 0, len(heard.octets))
    edges = np.flatnonzero(np.diff(np.r_[0, heard.octets == flat, 0].astype(np.int8)))
    lengths = np.diff(edges)[::2]
    whole = lengths[lengths > 160]
    assert heard.keys == 60
    assert len(whole) == 60
    assert set((whole // 16).tolist()) == {1920 // 16}


@pytest.mark.parametrize("before", ["dial tone", "click", "noise", "hum"])
def test_what_stops_as_a_key_begins_does_not_hide_it(before: str) -> None:
    """Louder than the key, to the sample at which it begins: a dial tone cut off by it, the click of a switch."""
    rng = np.random.default_rng(6)
    presses = [synth.Press(int(k), 60, -20, 0, *rng.uniform(-0.015, 0.015, 2)) for k in rng.integers(0, 16, 60)]
    audio, marks = synth.keying(presses, rng, (80, 140), noise_dbm0=-55)
    t = np.arange(len(audio)) / 8000
    other = {
        "dial tone": np.sin(2 * np.pi * 350 * t) + np.sin(2 * np.pi * 440 * t),
        "click": 4 * rng.standard_normal(len(t)),
        "noise": 1.5 * rng.standard_normal(len(t)),
        "hum": np.sin(2 * np.pi * 50 * t),
    }[before] * g711.amplitude(-14)
    quiet = np.zeros(len(audio), np.bool_)
    for start, end in marks:
        quiet[start:end] = before != "hum"
        if before == "click":
            quiet[end : end + 600] = True
            quiet[start - 600 : start - 16] = True
    octets = g711.encode((audio + np.where(quiet, 0, other)).astype(np.float32), g711.PCMU)
    out = send(octets, [160])
    flat = MaskLine(1).flat(g711.PCMU, 0, len(out))
    left = [int((out[start + 64 : end + 64] != flat[start + 64 : end + 64]).sum()) for start, end in marks]
    assert sum(left) <= (16 if before == "hum" else 0) * len(marks)


def test_no_pair_explains_more_than_the_first_look_allows() -> None:
    """Windows made of a pair and of anything: what is turned away early would have been turned away later."""
    rng = np.random.default_rng(8)
    gate = Gate()
    for window in (gate._short, gate._long):
        rank = window.pairs.shape[1]
        anything = rng.normal(size=(5000, rank))
        pairs = np.einsum(
            "nk,nkr->nr",
            rng.normal(size=(5000, 4)),
            window.pairs.reshape(4, -1, rank)[:, rng.integers(0, 80, 5000)].transpose(1, 0, 2),
        )
        for inside in (anything, pairs, pairs + 0.3 * anything):
            x = inside.astype(np.float32)
            assert (gate._at_most(window, x) >= gate._explained(window, x).max(axis=0)).all()


def test_audio_is_what_came_in_and_zero_before_a_gap() -> None:
    octets, _ = keying(9)
    line, row = MaskLine(2), np.array([0])
    for at, stamp in ((0, 0), (160, 160), (320, 1000), (480, 1160)):
        block = line.push(SLOT, octets[None, at : at + 160], SLOT, np.array([stamp], np.uint32), TRUE, FALSE)
        since = min(block.known[0], line.history)
        heard = block.audio(row)[0]
        assert (heard[line.history - since :] == g711.decode(octets[at - since : at + 160], g711.PCMU)).all()
        assert not heard[: line.history - since].any()
    assert since == 160
