"""Every parser of `mediaproxy/media/wire` against random and mutated input: none raises, time grows with the input.

`make fuzz` runs a million inputs each; the tests run a few thousand.
"""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Callable

import numpy as np
import pytest

from mediaproxy.media.engine import Engine
from mediaproxy.media.modes import Mode
from mediaproxy.media.rows import Rows
from mediaproxy.media.wire import rtcp, rtp, telephone_event

ROUNDS = int(os.environ.get("FLATTONE_FUZZ", "4000"))
BATCH = 500
BLOCK = rtcp.Block(7, 3, 20, 70000, 12, 0x1234, 0.5)
COMPOUND = (
    rtcp.sender_report(5, "flattone", 1.7e9, 160, 10, 1600, BLOCK)
    + rtcp.receiver_report(5, "flattone", BLOCK)
    + rtcp.goodbye(5, "flattone")
)


def seed() -> random.Random:
    return random.Random(time.time_ns() if "FLATTONE_FUZZ" in os.environ else 1)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few octets changed, and the end cut off or doubled."""
    out = bytearray(data)
    for _ in range(rng.randrange(5)):
        out[rng.randrange(len(out))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    cut = rng.randrange(4)
    if cut == 0:
        del out[rng.randrange(len(out)) :]
    elif cut == 1:
        out += out[rng.randrange(len(out)) :]
    return bytes(out)


@pytest.mark.timeout(3600)
def test_nothing_leaves_the_rtp_parser() -> None:
    """What is called good lies within its row."""
    rng = np.random.default_rng(seed().randrange(1 << 32))
    for _ in range(max(ROUNDS // BATCH, 1)):
        slab = rng.integers(0, 256, (BATCH, rtp.LARGEST), np.uint8)
        slab[::2, 0] = 0x80 | slab[::2, 0] & 0x3F
        slab[::3, 14:16] = 0, rng.integers(0, 8)  # short extensions
        length = rng.integers(0, rtp.LARGEST + 1, BATCH)
        slab[np.arange(BATCH), np.maximum(length - 1, 0)] &= np.uint8(rng.choice([0, 7, 255]))  # some padding that fits
        head = rtp.parse(slab, length)
        assert (head.start[head.ok] <= head.end[head.ok]).all()
        assert (head.end[head.ok] <= length[head.ok]).all()
        assert (head.start[head.ok] >= rtp.HEADER).all()


@pytest.mark.timeout(3600)
def test_nothing_leaves_the_rtcp_parser() -> None:
    rng, understood = seed(), 0
    for _ in range(ROUNDS):
        found = rtcp.parse(mutate(COMPOUND, rng))
        understood += found is not None
    assert 0 < understood < ROUNDS
    assert rtcp.parse(b"") is None


@pytest.mark.timeout(3600)
def test_nothing_leaves_the_parser_of_events() -> None:
    rng = np.random.default_rng(seed().randrange(1 << 32))
    for size in rng.integers(0, 12, ROUNDS):
        event = telephone_event.parse(rng.integers(0, 256, size, np.uint8))
        assert (event is None) == (size < 4)
        if event is not None:
            assert 0 <= event.code < 256
            assert 0 <= event.duration < 1 << 16


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", list(Mode))
def test_nothing_leaves_the_engine(mode: Mode) -> None:
    """Near RTP and near RTCP on both legs, in every mode: rows out are whole, and of this box's making."""
    rng = seed()
    formats = {0: "PCMU/8000", 8: "PCMA/8000", 13: "CN/8000", 101: "telephone-event/8000", 110: "telephone-event/48000"}
    made = Engine(2)
    made.open(0, 1, mode, lambda: 0x1234567, recorded=True, now=0.0)
    for slot in (0, 1):
        made.update(slot, formats, {encoding: pt for pt, encoding in formats.items()}, 20)
    rows, now = Rows(), 0.0
    for i in range(max(ROUNDS // 40, 50)):
        rows.wipe()
        for k in range(rng.randrange(1, 12)):
            kind = rng.choice((0, 0, 0, 8, 13, 101, 110, rng.randrange(128)))
            size = rng.choice((0, 1, 4, 4, 80, 159, 160, 160, 161, 240, 480, 800))
            head = struct.pack(
                "!BBHII", 0x80, kind | rng.randrange(2) << 7, i + k & 0xFFFF, 160 * (i + k), rng.choice((1, 1, 1, 2))
            )
            data = head + rng.randbytes(size)
            rows.put(rng.randrange(2), mutate(data, rng) if rng.random() < 0.4 else data)
        if rng.random() < 0.2:
            rows.put(rng.randrange(2), mutate(COMPOUND, rng), control=True)
        now += rng.choice((0.005, 0.02, 0.02, 1.0))
        out = made.process(rows, now, 1.7e9)
        for row in range(out.count):
            if int(out.slot[row]) == 1 and not out.control[row]:
                assert out.slab[row, 0] == 0x80
                assert out.slab[row, 8:12].tobytes() == (0x1234567).to_bytes(4)


def _rtp_rows(n: int) -> Callable[[], object]:
    slab = np.zeros((n, rtp.LARGEST), np.uint8)
    slab[:, 0] = 0x90  # with extensions, which are worked one by one
    return lambda: rtp.parse(slab, np.full(n, 1000))


def _rtcp_parts(n: int) -> Callable[[], object]:
    return lambda: rtcp.parse(COMPOUND * n)


def _goodbyes(n: int) -> Callable[[], object]:
    data = struct.pack("!BBH", 0x9F, 203, n) + bytes(4 * n)
    return lambda: rtcp.parse(data)


@pytest.mark.parametrize(("target", "n"), [(_rtp_rows, 2000), (_rtcp_parts, 400), (_goodbyes, 20000)])
def test_time_grows_with_the_input_and_no_faster(target: Callable[[int], Callable[[], object]], n: int) -> None:
    """Twice the input takes at most two and a half times as long: the least of many tries, taken in turn."""
    jobs = [target(n), target(2 * n)]
    for _ in range(5):
        least = [float("inf")] * 2
        for _ in range(15):
            for i, job in enumerate(jobs):
                begun = time.process_time()
                job()
                least[i] = min(least[i], time.process_time() - begun)
        if least[1] <= 2.5 * least[0]:
            return
    raise AssertionError(f"{n} take {least[0]:.6f} s, twice as many {least[1]:.6f} s")
