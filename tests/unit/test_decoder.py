"""The decoder against the clauses of ITU-T Q.24 Annex A."""

import numpy as np
import pytest

from benchmarks import conditions
from dsp import decoder, keypad, synth

N = 150


def keyed(rng: np.random.Generator, noise: float = -50.0, pause: tuple[float, float] = (45, 100), **how: float):
    keys = rng.integers(0, 16, N)
    audio, marks = synth.keying([synth.Press(int(k), **how) for k in keys], rng, pause, noise_dbm0=noise)
    return keys, audio, marks


def names(keys: np.ndarray) -> str:
    return "".join(keypad.KEYS[k] for k in keys)


ATT = keypad.ATT


@pytest.mark.parametrize(
    "how",
    [
        {"ms": ATT.tone_accept_ms},
        {"ms": 200},
        {"level_dbm0": ATT.level_accept_dbm[0]},
        {"level_dbm0": -3.0},
        {"twist_db": ATT.twist_db[0]},
        {"twist_db": ATT.twist_db[1]},
        {"low_offset": ATT.frequency_accept, "high_offset": -ATT.frequency_accept},
        {"low_offset": -keypad.NTT.frequency_accept, "high_offset": keypad.NTT.frequency_accept},
    ],
    ids=str,
)
def test_what_must_be_accepted_is(how: dict[str, float]) -> None:
    keys, audio, _ = keyed(np.random.default_rng(1), **how)
    assert "".join(k.key for k in decoder.decode_keys(audio, 8000)) == names(keys)


@pytest.mark.parametrize(
    "how",
    [
        {"ms": ATT.tone_reject_ms},
        {"low_offset": ATT.frequency_reject},
        {"high_offset": -ATT.frequency_reject},
        {"level_dbm0": ATT.level_reject_dbm},
    ],
    ids=str,
)
def test_what_must_be_rejected_is(how: dict[str, float]) -> None:
    _, audio, _ = keyed(np.random.default_rng(2), noise=-75, **how)
    assert decoder.decode_keys(audio, 8000) == []


def test_a_pause_of_40_ms_parts_two_presses_and_an_interruption_of_10_ms_does_not() -> None:
    press = synth.tone_pair(synth.Press(5, 60))
    pause, blink = np.zeros(320, np.float32), np.zeros(80, np.float32)
    edge = np.zeros(800, np.float32)
    assert len(decoder.decode_keys(np.concatenate([edge, press, pause, press, edge]), 8000)) == 2
    assert len(decoder.decode_keys(np.concatenate([edge, press, blink, press, edge]), 8000)) == 1


def test_start_and_end_are_within_8_ms() -> None:
    _, audio, marks = keyed(np.random.default_rng(3), ms=80)
    found = decoder.decode_keys(audio, 8000)
    assert np.abs(np.array([(k.start, k.end) for k in found]) - marks).max() < 64


@pytest.mark.parametrize("kind", ["speech", "noise", "silence", "one tone", "three tones", "empty", "nan"])
def test_what_is_no_key_is_none(kind: str) -> None:
    rng = np.random.default_rng(4)
    t = np.arange(80000) / 8000
    audio = {
        "speech": synth.speechlike(30, rng),
        "noise": rng.normal(0, 0.1, 80000),
        "silence": np.zeros(8000),
        "one tone": 0.3 * np.sin(2 * np.pi * 770 * t),
        "three tones": 0.2 * sum(np.sin(2 * np.pi * hz * t) for hz in (770, 1336, 1800)),
        "empty": np.zeros(0),
        "nan": np.full(8000, np.nan),
    }[kind]
    assert decoder.decode_keys(audio.astype(np.float32), 8000) == []


def test_other_shapes_and_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="mono"):
        decoder.decode_keys(np.zeros((2, 100), np.float32), 8000)
    with pytest.raises(ValueError, match="8000"):
        decoder.decode_keys(np.zeros(100, np.float32), 11025)


def test_the_rate_is_a_parameter() -> None:
    rng = np.random.default_rng(5)
    keys = rng.integers(0, 16, 40)
    audio, _ = synth.keying([synth.Press(int(k)) for k in keys], rng, rate=16000)
    assert "".join(k.key for k in decoder.decode_keys(audio, 16000)) == names(keys)


def test_results_depend_neither_on_batching_nor_on_packets() -> None:
    batch = conditions.batch(conditions.Condition("", tone_ms=60, pause_ms=60), 60, 3, streams=6)
    alone = [conditions.hear(decoder.Decoder(1), batch.audio[i : i + 1]) for i in range(6)]
    rng = np.random.default_rng(8)
    for packets in ((160,), (80,), (480,), (161, 47, 240)):
        order = rng.permutation(6)
        together = conditions.hear(decoder.Decoder(6), batch.audio[order], packets)
        for i in range(6):
            mine = [key for stream, key, _ in together if order[stream] == i]
            assert mine == [key for _, key, _ in alone[i]] == batch.keys[i].tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 1.0])
def test_extremes_raise_nothing(value: float) -> None:
    audio, _ = synth.keying([synth.Press(3)] * 3, np.random.default_rng(9))
    audio[500:900] = value
    decoder.decode_keys(audio, 8000)
