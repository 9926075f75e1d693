"""Two pjsua2 phones through `flattone serve`: each hears the other, and not itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mediaproxy import wav
from mediaproxy.demo.site import Site, free_port

pytestmark = pytest.mark.interop
PHONE = Path(__file__).with_name("pjsua2_phone.py")
LOW, HIGH = 440.0, 1000.0


def tone(path: Path, hz: float) -> Path:
    t = np.arange(8000 * 12) / 8000
    wav.write(path, (9000 * np.sin(2 * np.pi * hz * t)).astype(np.int16))
    return path


def share(path: Path, hz: float) -> float:
    """Share of 100 ms frames in which `hz` carries nine tenths of the energy."""
    samples, _ = wav.read(path)
    frames = samples[0][: samples.shape[1] // 800 * 800].reshape(-1, 800)
    turn = np.exp(-2j * np.pi * hz * np.arange(800) / 8000)
    power = 2 * np.abs(frames @ turn) ** 2 / 800
    return float(np.mean(power >= 0.9 * np.square(frames).sum(axis=1) + 1e-9))


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
@pytest.mark.parametrize("direction", ["inbound", "outbound"])
def test_two_phones_hear_each_other(tmp_path: Path, codec: str, direction: str) -> None:
    caller_port, callee_port = free_port(), free_port()
    peers = (caller_port, callee_port) if direction == "inbound" else (callee_port, caller_port)
    with Site(tmp_path, tmp_path, *peers) as site:
        via = site.trunk if direction == "inbound" else site.agent

        def phone(name: str, hz: float, port: int, *more: str) -> subprocess.Popen[str]:
            files = [
                "--play",
                str(tone(tmp_path / f"{name}-play.wav", hz)),
                "--record",
                str(tmp_path / f"{name}-heard.wav"),
            ]
            ports = ["--sip-port", str(port), "--rtp-port", str(free_port() & ~1), "--codec", codec]
            return subprocess.Popen(
                [sys.executable, str(PHONE), *ports, *files, *more], stdout=subprocess.PIPE, text=True
            )

        running = [phone("callee", HIGH, callee_port)]
        try:
            assert running[0].stdout is not None
            assert running[0].stdout.readline().strip() == "READY"
            running.append(phone("caller", LOW, caller_port, "--call", f"sip:204@{via[0]}:{via[1]}", "--seconds", "3"))
            for process in running:
                assert process.wait(30) == 0
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                if process.stdout is not None:
                    process.stdout.close()
    assert share(tmp_path / "caller-heard.wav", HIGH) > 0.8
    assert share(tmp_path / "callee-heard.wav", LOW) > 0.8
    assert share(tmp_path / "caller-heard.wav", LOW) == 0
    recordings = list(tmp_path.glob("2*.wav"))
    assert len(recordings) == 1
