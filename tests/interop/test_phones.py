"""Two pjsua2 phones through `flattone serve`, plain or over TLS with SRTP: each hears the other, and not itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from mediaproxy import wav
from mediaproxy.demo import certificates
from mediaproxy.demo.site import Site, free_port, listening_port

pytestmark = pytest.mark.interop
PHONE = Path(__file__).with_name("pjsua2_phone.py")
LOW, HIGH = 440.0, 1000.0


def tone(path: Path, hz: float) -> Path:
    t = np.arange(8000 * 12) / 8000
    wav.write(path, (9000 * np.sin(2 * np.pi * hz * t)).astype(np.int16))
    return path


def share(path: Path, hz: float, last: float = 0.0) -> float:
    """Share of 100 ms frames (of the last seconds) in which `hz` carries nine tenths of the energy."""
    samples, _ = wav.read(path)
    audio = samples[0][-int(8000 * last) :] if last else samples[0]
    frames = audio[: len(audio) // 800 * 800].reshape(-1, 800)
    turn = np.exp(-2j * np.pi * hz * np.arange(800) / 8000)
    power = 2 * np.abs(frames @ turn) ** 2 / 800
    return float(np.mean(power >= 0.9 * np.square(frames).sum(axis=1) + 1e-9))


class Phones:
    """pjsua2 phones that run beside a site; leaving the context ends them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def start(self, name: str, hz: float, port: int, *more: str) -> None:
        """A phone on `port` that says a tone of `hz`; it is ready when this returns."""
        play, heard = tone(self.directory / f"{name}-play.wav", hz), self.directory / f"{name}-heard.wav"
        files = ["--play", str(play), "--record", str(heard)]
        ports = ["--sip-port", str(port), "--rtp-port", str(free_port() & ~1)]
        process = subprocess.Popen(
            [sys.executable, str(PHONE), *ports, *files, *more], stdout=subprocess.PIPE, text=True
        )
        self._running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "READY"

    def finish(self) -> list[int]:
        return [process.wait(40) for process in self._running]

    def heard(self, name: str, hz: float, last: float = 0.0) -> float:
        """Share of what `name` heard (in the last seconds) that is a tone of `hz`."""
        return share(self.directory / f"{name}-heard.wav", hz, last)


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
@pytest.mark.parametrize("direction", ["inbound", "outbound"])
def test_two_phones_hear_each_other(tmp_path: Path, codec: str, direction: str) -> None:
    caller, callee = free_port(), free_port()
    peers = (caller, callee) if direction == "inbound" else (callee, caller)
    with Site(tmp_path, tmp_path, *peers) as site, Phones(tmp_path) as phones:
        via = site.trunk if direction == "inbound" else site.agent
        phones.start("callee", HIGH, callee, "--codec", codec)
        phones.start("caller", LOW, caller, "--codec", codec, "--call", f"sip:204@{via[0]}:{via[1]}")
        assert phones.finish() == [0, 0]
    assert phones.heard("caller", HIGH) > 0.8
    assert phones.heard("callee", LOW) > 0.8
    assert phones.heard("caller", LOW) == 0
    assert len(list(tmp_path.glob("2*.wav"))) == 1


def secured(
    directory: Path, sides: str = "trunk agent", names: str = ""
) -> tuple[Site, tuple[int, int], dict[str, int], list[str]]:
    """A site with TLS and SRTP on `sides`: (site, phones' ports of trunk and agent, its TLS ports, a phone's options)."""
    authority, certificate, key = certificates.make(directory)
    ports, own, settings = (free_port(), free_port()), {}, {}
    for side, peer in (("trunk", "caller"), ("agent", "desk")):
        if side not in sides:
            continue
        own[side] = listening_port()
        settings["more"] = settings.get("more", "") + (
            f'[{side}.tls]\nlisten = "127.0.0.1:{own[side]}"\ncertificate = "{certificate}"\nkey = "{key}"\n'
            f'ca_file = "{authority}"\n'
        )
        settings[peer] = 'transport = "tls"\nsrtp = "required"\n'
    if names:
        settings["caller"] += f'certificate_names = ["{names}"]\n'
    site = Site(directory / "site", directory, *ports, settings=settings)
    (directory / "site").mkdir()
    options = ["--certificate", str(certificate), "--key", str(key), "--authority", str(authority), "--srtp"]
    return site, ports, own, options


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
def test_tls_and_srtp_on_both_sides(tmp_path: Path, direction: str) -> None:
    made, ports, own, options = secured(tmp_path, names="localhost")
    caller, callee = ports if direction == "inbound" else ports[::-1]
    to = own["trunk" if direction == "inbound" else "agent"]
    with made as site, Phones(tmp_path) as phones:
        phones.start("callee", HIGH, callee, *options)
        phones.start("caller", LOW, caller, *options, "--call", f"sip:204@127.0.0.1:{to};transport=tls")
        assert phones.finish() == [0, 0]
        assert '"level":"error"' not in site.log.read_text().replace(" ", "")
        assert '"srtp":[true,true]' in site.cdr.read_text()
    assert phones.heard("caller", HIGH) > 0.8
    assert phones.heard("callee", LOW) > 0.8


def test_srtp_towards_the_trunk_is_plain_on_the_agents_side(tmp_path: Path) -> None:
    made, ports, own, options = secured(tmp_path, "trunk")
    with made as site, Phones(tmp_path) as phones:
        phones.start("callee", HIGH, ports[1])
        phones.start("caller", LOW, ports[0], *options, "--call", f"sip:204@127.0.0.1:{own['trunk']};transport=tls")
        assert phones.finish() == [0, 0]
        assert '"srtp":[true,false]' in site.cdr.read_text()
    assert phones.heard("caller", HIGH) > 0.8
    assert phones.heard("callee", LOW) > 0.8


def test_a_certificate_with_another_name_is_a_stranger(tmp_path: Path) -> None:
    made, ports, own, options = secured(tmp_path, "trunk", names="sbc.carrier.example")
    with made as site, Phones(tmp_path) as phones:
        phones.start("caller", LOW, ports[0], *options, "--call", f"sip:204@127.0.0.1:{own['trunk']};transport=tls")
        assert phones.finish() == [1]
        assert not site.cdr.exists()


def test_srtp_goes_on_when_the_media_worker_is_killed(tmp_path: Path) -> None:
    """No index is used twice, no new keys are needed, and both hear each other again."""
    made, ports, own, options = secured(tmp_path)
    with made as site, Phones(tmp_path) as phones:
        phones.start("callee", HIGH, ports[1], *options)
        to = f"sip:204@127.0.0.1:{own['trunk']};transport=tls"
        phones.start("caller", LOW, ports[0], *options, "--seconds", "9", "--call", to)
        time.sleep(2.5)
        os.kill(site.pids()["media-0"], signal.SIGKILL)
        assert phones.finish() == [0, 0]
    assert phones.heard("caller", HIGH, last=3) > 0.8
    assert phones.heard("callee", LOW, last=3) > 0.8
