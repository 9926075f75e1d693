"""Every parser against mutated input: only its own error leaves it, and time grows no faster than the input.

`make fuzz` runs a million inputs each; the tests run a few thousand.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sip import sdp
from sip.errors import PeerError
from sip.message import parse
from tests.fixtures.sipnet import CALLER, Net
from tests.unit.test_sip_message import INVITE

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("FLATTONE_FUZZ", "4000"))
SDP = (
    INVITE.partition("\r\n\r\n")[2].encode()
    + b"c=IN IP4 1.2.3.4\r\nm=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n"
)
SPICE = [
    b"\r\n",
    b"\0",
    b'"',
    b"<",
    b">",
    b";",
    b",",
    b":",
    b"\xff",
    b"9" * 40,
    b"Via: ",
    b"m=audio ",
    b"%00",
    b"=",
    b"\\",
]


def mutate(seed: bytes, rng: np.random.Generator) -> bytearray:
    data = bytearray(seed)
    for _ in range(int(rng.integers(1, 6))):
        at, size = int(rng.integers(len(data) + 1)), int(rng.integers(0, 12))
        choice = rng.integers(4)
        if choice == 0:
            data[at : at + size] = rng.bytes(size)
        elif choice == 1:
            data[at:at] = SPICE[int(rng.integers(len(SPICE)))]
        elif choice == 2:
            del data[at : at + size * 4]
        else:
            data[at:at] = data[at : at + size * 6]
    return data


def _message(data: bytearray) -> None:
    parse(data)


def _sdp(data: bytearray) -> None:
    sdp.parse(data)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("target", "seed"), [(_message, INVITE.encode()), (_sdp, SDP)], ids=["sip", "sdp"])
def test_only_a_peer_error_leaves_a_parser(target: Callable[[bytearray], None], seed: bytes) -> None:
    rng = np.random.default_rng(int(time.time()) if "FLATTONE_FUZZ" in os.environ else 1)
    for _ in range(ROUNDS):
        data = mutate(seed, rng)
        try:
            target(data)
        except PeerError:
            continue


@pytest.mark.timeout(3600)
def test_nothing_leaves_the_b2bua() -> None:
    rng = np.random.default_rng(2)
    net = Net()
    net.invite()
    seed = INVITE.replace("192.0.2.1:5062", "192.0.2.1").encode()
    for i in range(ROUNDS // 4):
        net.box.receive(mutate(seed, rng), "trunk", CALLER, net.now)
        net.box.outgoing.clear()
        net.box.events.clear()
        if i % 50 == 0:
            net.now += 5
            net.box.handle_timer(net.now)


def test_coverage_guided_fuzzing_finds_nothing() -> None:
    """A short run of tests/fuzz/sip_stack.py; `make fuzz` does a million."""
    command = [sys.executable, "-m", "tests.fuzz.sip_stack", "6000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    run = re.search(r"number_of_executed_units:\s+(\d+)", done.stderr)
    assert run is not None, done.stderr[-3000:]
    assert int(run[1]) >= 6000  # what was begun when the last of them was due is run as well


@pytest.mark.parametrize(
    "unit", ["Via: SIP/2.0/UDP h;branch=z9hG4bKx\r\n", "X: " + "a,b;" * 5 + "\r\n", '"<' * 10, ";x=y"]
)
def test_time_grows_with_the_input_and_no_faster(unit: str) -> None:
    def spent(n: int) -> float:
        data = INVITE.replace(
            "X-Odd: one\r\n", "X-Odd: one\r\n" + unit * n if unit.endswith("\n") else f"X-Odd: {unit * n}\r\n"
        ).encode()
        best = float("inf")
        for _ in range(7):
            begun = time.process_time()
            for _ in range(20):
                with contextlib.suppress(PeerError):
                    parse(data)
            best = min(best, time.process_time() - begun)
        return best

    assert spent(200) <= 2.5 * spent(100) + 0.002
