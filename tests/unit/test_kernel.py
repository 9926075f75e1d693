"""Compiled or not, the verdicts are the same. Without a compiler there is nothing to compare."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from dsp import g711, kernel, synth
from dsp.decoder import Decoder
from dsp.gate import Gate, _tables
from dsp.guard import Guard
from dsp.mask import MaskLine

pytestmark = pytest.mark.skipif(not kernel.COMPILED, reason="dsp._kernel is not built, or FLATTONE_PURE is set")
SIZES = [[160], [80], [240], [161, 47, 20, 7, 1, 960]]


@contextmanager
def pure() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "COMPILED", False)
        yield


def keys(snr: float, n: int = 12, codec: int = g711.PCMU) -> np.ndarray:
    """float32[n, length]: streams that key at that SNR, dB."""
    rows = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        presses = [
            synth.Press(int(k), rng.uniform(40, 120), -12, rng.uniform(-8, 6), *rng.uniform(-0.018, 0.018, 2))
            for k in rng.integers(0, 16, 12)
        ]
        rows.append(synth.keying(presses, rng, noise_dbm0=-9 - snr)[0][:16000])
    audio = np.stack([np.resize(row, 16000) for row in rows]).astype(np.float32)
    return g711.decode(g711.encode(audio, codec), codec)


def material(kind: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    if kind == "keys after tones":
        audio, t = keys(30, 60), np.arange(16000) / 8000
        for row in audio:  # a tone of any kind that stops at some moment, mostly louder than the keys
            tone = 0.4 * rng.uniform() * np.sin(2 * np.pi * rng.uniform(200, 2500) * t)
            loud = np.convolve(np.abs(row), np.ones(80) / 80, "same") > 0.01
            row += np.where(loud, 0, tone)
        return audio.astype(np.float32)
    if kind.startswith("keys"):
        return keys(float(kind.split()[1]))
    noise = rng.normal(0, 0.1, (8, 16000)).astype(np.float32)
    if kind == "not numbers":
        for value in (np.nan, np.inf, -np.inf):
            noise[rng.random(noise.shape) < 0.001] = value
    return {
        "speech": lambda: np.stack([synth.speechlike(4, np.random.default_rng(i))[:16000] for i in range(12)]),
        "noise": lambda: noise,
        "not numbers": lambda: noise,
        "silence": lambda: np.zeros((3, 16000)),
        "quiet": lambda: noise * np.float32(0.007),
    }[kind]().astype(np.float32)


@pytest.mark.parametrize("lanes", kernel.LANES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(
    "kind", ["speech", "keys 9", "keys 15", "keys 30", "keys after tones", "noise", "quiet", "silence", "not numbers"]
)
def test_the_gate_says_the_same_compiled_and_in_numpy(kind: str, sizes: list[int], lanes: int) -> None:
    with pure():
        plain = Gate()
    gate = Gate()
    gate._compiled = kernel.judge(_tables(gate._short), _tables(gate._long), gate._limits(), lanes)
    assert gate._compiled is not None
    assert plain._compiled is None
    audio, at, i, yeses = material(kind), gate.history, 0, 0
    while at + sizes[i % len(sizes)] <= audio.shape[1]:
        size = sizes[i % len(sizes)]
        block = audio[:, at - gate.history : at + size]  # a view: rows lie apart
        found, wanted = gate.judge(block), plain.judge(block)
        sound = np.isfinite(block).all(axis=1)  # of the others only this: what is not a number is a yes
        assert (found.yes == wanted.yes)[sound].all()
        assert (found.last == wanted.last)[sound].all()
        assert ((found.yes > 0) & (wanted.yes > 0))[~np.isfinite(block[:, -size:]).all(axis=1)].all()
        yeses += int(found.yes.sum())
        at, i = at + size, i + 1
    assert (yeses > 0) == (kind.startswith("keys") or kind == "not numbers") or kind == "speech"


def test_no_stream_and_no_audio_are_no_error() -> None:
    gate = Gate()
    assert gate.judge(np.zeros((0, gate.history + 160), np.float32)).yes.shape == (0,)
    assert gate.judge(np.ones((1, gate.history + 1), np.float32)).yes.shape == (1,)
    assert not gate.judge(np.zeros((1, gate.history + 1), np.float32)).yes.any()


@pytest.mark.parametrize("rate", [8000, 16000])
def test_another_sampling_rate_is_judged_the_same(rate: int) -> None:
    with pure():
        plain = Gate(rate)
    audio = np.repeat(keys(15), rate // 8000, axis=1)[:, : plain.history + 480]
    found, wanted = Gate(rate).judge(audio), plain.judge(audio)
    assert (found.yes == wanted.yes).all()
    assert (found.last == wanted.last).all()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_line_and_a_guard_do_the_same_compiled_and_in_numpy(sizes: list[int]) -> None:
    """All that a line is asked: gaps, late and repeated blocks, other codecs, forced masks, slots in any order."""
    audio = np.concatenate([keys(15, 10), material("speech")[:6]])
    octets = g711.encode_rows(audio, np.arange(16) % 2)
    n = len(octets)

    def run(compiled: bool) -> list[np.ndarray]:
        rng = np.random.default_rng(9)
        line, guard, at, seen = MaskLine(n + 2, seed=1), Guard(n + 2), np.zeros(n, np.int64), []
        if not compiled:
            line.gate._compiled = None
        for i in range(120):
            size = sizes[i % len(sizes)]
            rows = rng.permutation(n)[: rng.integers(0, n + 1)]
            slots, codec = rows + 1, (rows % 2 ^ (rng.random(len(rows)) < 0.02)).astype(np.intp)
            block = octets[rows[:, None], (at[rows, None] + np.arange(size)) % octets.shape[1]]
            jump = rng.choice([0, 0, 0, 0, 0, 0, 0, -160, 160, 100000], len(rows))
            stamp = ((at[rows] + jump + 2**32 - 4000) % 2**32).astype(np.uint32)
            gated, forced, armed = (rng.random(len(rows)) < share for share in (0.9, 0.1, 0.2))
            out = line.push(slots, block, codec, stamp, gated, forced, substitute=armed if i % 3 else None)
            alarm = guard.alarms(slots, block if i % 40 else out.octets, codec)
            line.confirm(slots[out.hot & (rng.random(len(rows)) < 0.3)])
            seen += [
                out.octets[~out.late],
                out.late,
                out.masked[~out.late],
                out.hot,
                out.known,
                out.audio(np.arange(len(rows))),
                alarm,
            ]
            at[rows] += np.where(out.late, 0, size)
        for state in (line._line, line._until, line._run, line._heat, line._seen, line._unknown):
            seen.append(state)
        return [*seen, line._known, line._confirmed, line._expected, line._codec, guard._heard, guard._key]

    compiled = run(True)
    with pure():
        plain = run(False)
    assert sum(int(block.sum()) for block in compiled[6::7][:120]) > 0
    for found, wanted in zip(compiled, plain, strict=True):
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)


def heard(decoder: Decoder, audio: np.ndarray, sizes: list[int]) -> list[tuple[int, list, list]]:
    """What is told of each row, push by push: some packets lost, clocks out of step, any slots in any order."""
    rng, (n, total) = np.random.default_rng(11), audio.shape
    phase = rng.integers(0, 2**32 - 20000, n)
    held, known, at, told = np.zeros((n, decoder.span), np.float32), np.zeros(n, np.int64), 0, []
    for turn in range(1 << 30):
        size = sizes[turn % len(sizes)]
        if at + size > total:
            return told
        lost = rng.random(n) < rng.choice([0, 0, 0, 0.1, 0.9])
        held[lost], known[lost] = 0, 0
        rows = rng.permutation(np.flatnonzero(~lost))
        block = np.concatenate([held[rows], audio[rows, at : at + size]], axis=1)
        if rows.size:
            report = decoder.push(rows + 1, block, known[rows], phase[rows] + at)
            told.append((turn, sorted(report.pressed), sorted(report.released)))
        held[rows], at = block[:, -decoder.span :], at + size
        known[rows] += size


@pytest.mark.parametrize("lanes", kernel.LANES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["speech", "keys 9", "keys 15", "keys 30", "noise", "silence"])
def test_the_decoder_tells_the_same_compiled_and_in_numpy(kind: str, sizes: list[int], lanes: int) -> None:
    audio = material(kind)
    with pure():
        plain = Decoder(len(audio) + 1)
    decoder = Decoder(len(audio) + 1)
    decoder._compiled = decoder._compile(lanes)
    assert decoder._compiled is not None
    assert plain._compiled is None
    found = heard(decoder, audio, sizes)
    assert found == heard(plain, audio, sizes)
    assert (sum(len(pressed) for _, pressed, _ in found) > 40) == kind.startswith("keys")
    for name in decoder._runs.dtype.names:
        assert np.allclose(decoder._runs[name], plain._runs[name], rtol=1e-4, atol=1e-6), name


def test_the_guards_first_look_is_the_same_compiled_and_in_numpy() -> None:
    guard, rng = Guard(1), np.random.default_rng(7)
    level = 10 ** rng.uniform(-3.5, 0, (400, 1, 1))
    x = (keys(15, 20)[:, :3200].reshape(400, 1, 160) * level + 0.002 * rng.normal(size=(400, 1, 160)))[:, 0]
    x[5, 3], x[6, 4] = np.nan, np.inf
    limits = guard._norm, 0.5, guard._weakest, 10.0
    rows, power = kernel.look(x.astype(np.float32), guard._bank, guard._hann, *limits)
    with pure(), np.errstate(invalid="ignore"):
        wanted, wanted_power = kernel.look(x.astype(np.float32), guard._bank, guard._hann, *limits)
    assert 20 < len(rows) < 300
    assert np.array_equal(rows, wanted)
    assert np.allclose(power, wanted_power, rtol=1e-4, atol=1e-10)


def test_what_points_outside_is_refused() -> None:
    line, one = MaskLine(2), np.ones(1, np.bool_)
    octets, stamp, zero = np.zeros((1, 160), np.uint8), np.zeros(1, np.uint32), np.zeros(1, np.intp)
    for slots, codec in ((zero + 2, zero), (zero - 1, zero), (zero, zero + 2), (zero, zero - 1)):
        with pytest.raises(IndexError):
            line.push(slots, octets, codec, stamp, one, one)
    decoder = Decoder(2)
    for slot in (2, -1):
        with pytest.raises(IndexError):
            decoder.push(zero + slot, np.zeros((1, 308), np.float32), zero, zero)
    with pytest.raises(ValueError, match="rows"):
        decoder.push(zero, np.zeros((1, 100), np.float32), zero, zero)
