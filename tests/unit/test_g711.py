"""G.711 as ITU-T G.711 has it."""

import numpy as np
import pytest

from dsp import g711


@pytest.mark.parametrize(("codec", "largest"), [(g711.PCMU, 32124), (g711.PCMA, 32256)])
def test_the_largest_code_is_the_standards(codec: int, largest: int) -> None:
    assert g711.DECODE_INT16[codec].max() == largest
    assert g711.DECODE_INT16[codec].min() == -largest


@pytest.mark.parametrize("codec", [g711.PCMU, g711.PCMA])
def test_every_code_survives_decoding_and_encoding(codec: int) -> None:
    codes = np.arange(256, dtype=np.uint8)
    back = g711.encode(g711.decode(codes, codec), codec)
    same = g711.DECODE_INT16[codec][back] == g711.DECODE_INT16[codec][codes]
    assert same.all()  # the two zeros of µ-law may change places
    assert (back != codes).sum() <= 1


@pytest.mark.parametrize("codec", [g711.PCMU, g711.PCMA])
def test_encoding_picks_the_nearest_code(codec: int) -> None:
    values = np.arange(-32768, 32768, 7, dtype=np.int16)
    chosen = g711.DECODE_INT16[codec][g711.ENCODE[codec][values.view(np.uint16)]].astype(int)
    nearest = np.abs(values[:, None].astype(int) - np.unique(g711.DECODE_INT16[codec]).astype(int)).min(axis=1)
    assert (np.abs(chosen - values) == nearest).all()


def test_a_0_dbm0_sine_is_3_17_db_below_the_largest_code() -> None:
    assert 20 * np.log10(32124 / 32768 / g711.amplitude(0.0)) == pytest.approx(3.17, abs=0.001)


def test_what_is_not_a_number_is_silence() -> None:
    octets = g711.encode(np.array([np.nan, np.inf, -np.inf], np.float32), g711.PCMU)
    assert g711.DECODE_INT16[g711.PCMU][octets].tolist() == [0, 32124, -32124]


def test_transcoding_is_decoding_and_encoding() -> None:
    codes = np.arange(256, dtype=np.uint8)
    assert (g711.TRANSCODE[0][codes] == g711.encode(g711.decode(codes, 0), 1)).all()


@pytest.mark.parametrize("length", [160, 161, 1])
@pytest.mark.parametrize("mixed", [False, True])
def test_many_rows_at_once_decode_and_encode_like_one(length: int, mixed: bool) -> None:
    rng = np.random.default_rng(1)
    octets, codec = rng.integers(0, 256, (5, length + 7)).astype(np.uint8), np.array([0, 1, 1, 0, 1]) * mixed
    out = np.full((5, length + 3), np.nan, np.float32)
    g711.linear(octets[:, 7:], codec, out[:, 3:])
    assert np.isnan(out[:, :3]).all()
    assert (out[:, 3:] == [g711.decode(row, law) for row, law in zip(octets[:, 7:], codec, strict=True)]).all()
    back = g711.encode_rows(out[:, 3:], codec)
    assert (back == [g711.encode(row, law) for row, law in zip(out[:, 3:], codec, strict=True)]).all()


def test_what_is_no_number_is_silence_and_what_is_too_much_is_clipped() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 2.0, -2.0, 0.5], np.float32)
    assert g711.to_int16(odd).tolist() == [0, 32767, -32768, 32767, -32768, 16384]
    assert np.isnan(odd[0])
