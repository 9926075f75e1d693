"""What is loaded in `benchmarks.webrtc`: gateways from G.711 to Opus under SRTP on one core, and what loads them.

The trunk's packets and the agent's are made, coded and sealed beforehand, so that the other core only sends and counts.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import av
import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from pylibsrtp import Policy, Session

from benchmarks import material
from benchmarks.peers import rtpengine
from benchmarks.subjects import FIRST_PORT, PROXY_CORE, cpu_ns
from dsp import g711, synth
from mediaproxy.config import MediaConfig
from mediaproxy.ipc import messages as m
from tests.fixtures.worker import WorkerProcess

SUITE: Final = "AES_CM_128_HMAC_SHA1_80"
OPUS_TYPE: Final = 96
_PROFILE = Policy.SRTP_PROFILE_AES128_CM_SHA1_80
_HEAD = struct.Struct("!BBHII")
_FORMATS = {0: "PCMU/8000", 101: "telephone-event/8000"}
_CODED = {OPUS_TYPE: "opus/48000"}
Media = tuple[list[bytes], list[bytes]]


def coded(seconds: int, seed: int = 5) -> Media:
    """(G.711, Opus) payloads of speech, a packet each 20 ms: the one with keys in one call of ten, the other as Chrome
    codes it: 48 kHz, mono, 32 kbit/s."""
    rng = np.random.default_rng(seed)
    speech = np.concatenate(material.prompts(material.FINAL))
    cut = [speech[at : at + 8000 * seconds] for at in rng.integers(0, len(speech) - 8000 * seconds, 2)]
    octets = g711.encode(cut[0].astype(np.float32), g711.PCMU)
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = 48_000, "mono", "s16", 32_000
    encoder.options = {"application": "voip"}
    wide = np.repeat(cut[1] * 32767, 6).astype(np.int16)
    packets = []
    for at in range(0, len(wide) - 959, 960):
        frame = av.AudioFrame.from_ndarray(wide[None, at : at + 960], format="s16", layout="mono")
        frame.sample_rate = 48_000
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return [octets[at : at + 160].tobytes() for at in range(0, len(octets) - 159, 160)], packets


def keys(seconds: int, seed: int = 6) -> list[bytes]:
    """G.711 payloads of keys without end."""
    rng = np.random.default_rng(seed)
    presses = [synth.Press(int(key), rng.uniform(60, 140), -12) for key in rng.integers(0, 12, 6 * seconds)]
    audio, _ = synth.keying(presses, rng, (80, 160), 60, -60)
    octets = g711.encode(np.resize(audio, 8000 * seconds).astype(np.float32), g711.PCMU)
    return [octets[at : at + 160].tobytes() for at in range(0, len(octets) - 159, 160)]


@dataclass(frozen=True, slots=True)
class Cost:
    """cpu: milliseconds of processor for a second of one call; heard: share of packets that came, of either direction,
    the worse; readable: whether what came to the agent's side could be opened and decoded."""

    cpu: float
    heard: float
    readable: bool

    @property
    def good(self) -> bool:
        return self.heard >= 0.95 and self.readable


class Load:
    """Calls of plain RTP on one side and SRTP on the other. The same keys for all, each with a stream of its own."""

    def __init__(self, seconds: int) -> None:
        self.trunk, self.agent = _socket(), _socket()
        self.own = secrets.token_bytes(30)
        self._seconds = seconds
        self.speech, self._opus = coded(seconds)
        self._keys = keys(seconds)

    @property
    def ports(self) -> tuple[int, int]:
        return self.trunk.getsockname()[1], self.agent.getsockname()[1]

    def close(self) -> None:
        self.trunk.close()
        self.agent.close()

    def _sealed(self, calls: int) -> list[list[bytes]]:
        """The agents' packets, by call."""
        policy = Policy(
            key=self.own, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=Policy.SRTP_PROFILE_AES128_CM_SHA1_80
        )
        session = Session(policy)
        return [
            [
                session.protect(_HEAD.pack(0x80, OPUS_TYPE, n & 0xFFFF, 960 * n & 0xFFFFFFFF, 100_000 + call) + payload)
                for n, payload in enumerate(self._opus)
            ]
            for call in range(calls)
        ]

    def run(self, ports: list[tuple[int, int]], used: Callable[[], int], theirs: list[bytes]) -> Cost:
        """Load calls at (trunk, agent) ports. used: processor time so far, ns; theirs: the gateway's key of a call."""
        sealed = self._sealed(len(ports))
        counts = [0, 0]
        last: dict[int, bytes] = {}
        start, before = time.monotonic(), used()
        slots = 50 * self._seconds
        step = max(1, len(ports) // 10)
        for n in range(slots):
            for first in range(0, len(ports), step):  # over the 20 ms, not all at once
                for call in range(first, min(first + step, len(ports))):
                    self.say(call, n, ports[call][0])
                    if n < len(sealed[call]):
                        self.agent.sendto(sealed[call][n], ("127.0.0.1", ports[call][1]))
                self.drain(counts, last)
                due = start + n * 0.02 + 0.02 * (first + step) / len(ports)
                time.sleep(max(0.0, due - time.monotonic()))
        spent = used() - before
        time.sleep(0.3)
        self.drain(counts, last)
        sent = len(ports) * slots
        heard = min(counts[0], counts[1]) / sent
        return Cost(spent / 1e6 / len(ports) / self._seconds, heard, _readable(last, theirs, [a for _, a in ports]))

    def say(self, call: int, n: int, port: int) -> None:
        """A caller's packet number n."""
        payload = (self._keys if call % 10 == 0 else self.speech)[n % len(self.speech)]
        head = _HEAD.pack(0x80, 0, n & 0xFFFF, 160 * n & 0xFFFFFFFF, 200_000 + call)
        self.trunk.sendto(head + payload, ("127.0.0.1", port))

    def drain(self, counts: list[int], last: dict[int, bytes]) -> None:
        for which, sock in enumerate((self.trunk, self.agent)):
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, source = sock.recvfrom(2048)
                    if len(data) > 100 or which:
                        counts[which] += 1
                    if which:
                        last[source[1]] = data


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def _readable(last: dict[int, bytes], theirs: list[bytes], ports: list[int]) -> bool:
    """Whether the last packet of every call opens with that call's key and is Opus of 20 ms."""
    for key, port in zip(theirs, ports, strict=True):
        decoder = av.CodecContext.create("libopus", "r")
        try:
            plain = Session(Policy(key, Policy.SSRC_ANY_INBOUND, srtp_profile=_PROFILE)).unprotect(last[port])
            frames = decoder.decode(av.Packet(plain[12:]))
        except Exception:
            return False
        if sum(frame.samples for frame in frames) != 960:
            return False
    return True


class Flattone:
    """One media worker: G.711 at the trunk, Opus under SRTP at the agent; every caller guarded, one in twenty armed."""

    name = "flattone"

    def __init__(self) -> None:
        self.process = WorkerProcess(
            MediaConfig(ports=f"{FIRST_PORT}-32767", workers=1, max_calls=200), core=PROXY_CORE
        )

    def open(self, calls: int, load: Load) -> tuple[list[tuple[int, int]], list[bytes]]:
        names = [f"call{i}" for i in range(calls)]
        opened = self.process.open(names)
        key = secrets.token_bytes(30)
        trunk, agent = load.ports
        coding = m.Coding("opus/48000", (OPUS_TYPE, OPUS_TYPE), (-1, -1), {"useinbandfec": 1})
        send = {name: number for number, name in _FORMATS.items()}
        for i, name in enumerate(names):
            legs = (
                m.LegMedia("127.0.0.1", trunk, _FORMATS, send, 20, 0),
                m.LegMedia("127.0.0.1", agent, _FORMATS, send, 20, 0, SUITE, key, load.own, coding),
            )
            self.process.tell(m.UpdateCall(name, legs))
            if i % 20 == 0:
                self.process.tell(m.SetMode(name, "armed", i + 1))
        time.sleep(0.3)
        return [opened[name] for name in names], [key] * calls

    def used(self) -> int:
        return cpu_ns(self.process.pid)

    def close(self) -> None:
        self.process.close()


class RtpEngine:
    """rtpengine, which transcodes and masks nothing."""

    name = "rtpengine"

    def __init__(self) -> None:
        self._engine = rtpengine.RtpEngine(PROXY_CORE, FIRST_PORT, 60000).__enter__()

    def open(self, calls: int, load: Load) -> tuple[list[tuple[int, int]], list[bytes]]:
        inline = base64.b64encode(load.own).decode()
        trunk, agent = (("127.0.0.1", port) for port in load.ports)
        made = [self._engine.transcoded(i, trunk, agent, inline) for i in range(calls)]
        return [(a, b) for a, b, _ in made], [base64.b64decode(key + "=" * (-len(key) % 4)) for _, _, key in made]

    def used(self) -> int:
        return self._engine.cpu_ns()

    def close(self) -> None:
        self._engine.__exit__(None, None, None)


def cost(make: Callable[[], Flattone | RtpEngine], calls: int, seconds: int) -> Cost:
    """Processor time of one call on a gateway that carries so many."""
    load = Load(seconds)
    subject = make()
    try:
        ports, theirs = subject.open(calls, load)
        return load.run(ports, subject.used, theirs)
    finally:
        subject.close()
        load.close()


class _Voice(AudioStreamTrack):
    """An agent who speaks."""

    def __init__(self, octets: list[bytes]) -> None:
        super().__init__()
        self._pcm = [g711.DECODE_INT16[g711.PCMU][np.frombuffer(part, np.uint8)].tobytes() for part in octets]
        self._n = 0

    async def recv(self) -> av.AudioFrame:
        frame = await super().recv()
        assert isinstance(frame, av.AudioFrame)
        frame.planes[0].update(self._pcm[self._n % len(self._pcm)])
        self._n += 1
        return frame


async def _count(track: Any, heard: list[int], which: int) -> None:
    while True:
        await track.recv()
        heard[which] += 1


async def peer_connection(calls: int, seconds: int) -> Cost:
    """The same of `RTCPeerConnection`: its far ends are others of its kind, on this core."""
    load = Load(seconds)
    gateway = subprocess.Popen(
        ["taskset", "-c", str(PROXY_CORE), sys.executable, "-m", "benchmarks.peers.peerconnection"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert gateway.stdin is not None
    assert gateway.stdout is not None
    ends: list[RTCPeerConnection] = []
    heard: list[int] = []
    tasks = []
    try:
        ports = []
        for i in range(calls):
            end = RTCPeerConnection()
            ends.append(end)
            heard.append(0)
            end.addTrack(_Voice(load.speech))
            end.on("track", lambda track, i=i: tasks.append(asyncio.ensure_future(_count(track, heard, i))))
            await end.setLocalDescription(await end.createOffer())
            gateway.stdin.write(json.dumps({"sdp": end.localDescription.sdp, "trunk": load.ports[0]}) + "\n")
            gateway.stdin.flush()
            said = json.loads(await asyncio.to_thread(gateway.stdout.readline))
            ports.append(said["port"])
            await end.setRemoteDescription(RTCSessionDescription(said["sdp"], "answer"))
        while any(end.connectionState != "connected" for end in ends):
            await asyncio.sleep(0.05)
        counts = [0, 0]
        before, start = cpu_ns(gateway.pid), time.monotonic()
        heard[:] = [0] * calls
        for n in range(50 * seconds):
            for call, port in enumerate(ports):
                load.say(call, n, port)
            load.drain(counts, {})
            await asyncio.sleep(max(0.0, start + 0.02 * (n + 1) - time.monotonic()))
        spent = cpu_ns(gateway.pid) - before
        share = min(counts[0], sum(heard)) / (calls * 50 * seconds)
        return Cost(spent / 1e6 / calls / seconds, share, readable=True)  # only what was decoded is in the share
    finally:
        for task in tasks:
            task.cancel()
        for end in ends:
            await end.close()
        gateway.kill()
        gateway.wait()
        gateway.stdin.close()
        gateway.stdout.close()
        load.close()
