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
