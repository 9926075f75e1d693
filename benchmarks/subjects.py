"""What is loaded in `benchmarks.calls`: proxies on one core, and the generator on the other that loads and judges them.

Every subject opens calls between two loopback sockets of the generator and says by which ports.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks import material
from benchmarks.peers import rtpengine
from dsp import g711, synth
from mediaproxy.config import MediaConfig
from mediaproxy.ipc import messages as m
from tests.fixtures.worker import WorkerProcess

PROXY_CORE, GENERATOR_CORE = 1, 0
TRUNK_PORT, AGENT_PORT = 11000, 11002
FIRST_PORT, LAST_PORT = 12000, 32767
STRETCHES, SECONDS = 200, 10
NATIVE = Path(__file__).parent / "native"


class Proxy(Protocol):
    """A proxy under load."""

    def ports(self, calls: int) -> list[tuple[int, int]]:
        """Open so many calls: the (trunk, agent) port of each."""
        ...

    def cpu_ns(self) -> int:
        """CPU time it has used, in nanoseconds."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator saw. Times in microseconds; cpu: of the proxy, a relayed packet."""

    sent: int
    received: int
    to_agent: int
    to_trunk: int
    worst_call_lost: int
    duplicates: int
    strange: int
    p50: float
    p99: float
    p999: float
    late_p99: float
    late_max: float
    cpu: float = 0.0

    @property
    def void(self) -> bool:
        """The generator itself was late, so that the run says nothing of the proxy."""
        return self.late_p99 > 4000

    @property
    def good(self) -> bool:
        """No packet lost, 99 of 100 relayed within 10 ms."""
        return self.received == self.sent and not self.duplicates and self.p99 < 10_000


def compile_native(directory: Path) -> None:
    """Build generator and relay. Raises SystemExit without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("benchmarks.calls needs a C compiler (Debian: gcc) for its generator")
    for name in ("generator", "relay"):
        subprocess.run([compiler, "-O2", "-Wall", "-o", directory / name, NATIVE / f"{name}.c"], check=True)


def write_audio(path: Path) -> None:
    """Speech of recorded prompts in every stretch, and keys without end in one trunk stretch of ten."""
    rng = np.random.default_rng(4)
    size = SECONDS * 8000
    speech = np.concatenate(material.prompts(material.FINAL))
    starts = rng.integers(0, len(speech) - size, 2 * STRETCHES)
    stretches = np.stack([speech[start : start + size] for start in starts])
    for row in range(0, STRETCHES, 10):
        presses = [synth.Press(int(key), rng.uniform(60, 140), -12) for key in rng.integers(0, 12, 60)]
        audio, _ = synth.keying(presses, rng, (80, 160), 60, -60)
        stretches[row] = np.resize(audio, size)
    path.write_bytes(g711.encode(stretches.astype(np.float32), g711.PCMU).tobytes())


class Bench:
    """Generator, relay and audio in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runs = self.discarded = 0
        self.late = 0.0
        """Worst lateness of the generator (99 of 100 slices) in a run that counts, in microseconds."""
        compile_native(directory)
        write_audio(directory / "audio.raw")

    def load(self, proxy: Proxy, ports: list[tuple[int, int]], seconds: int) -> Load:
        """Load calls that are open on `proxy` for so long."""
        lines = "".join(f"{trunk} {agent}\n" for trunk, agent in ports)
        command = [
            "taskset", "-c", str(GENERATOR_CORE), str(self.directory / "generator"), str(self.directory / "audio.raw"),
            str(STRETCHES), str(len(ports)), str(seconds), str(TRUNK_PORT), str(AGENT_PORT),
        ]  # fmt: skip
        before = proxy.cpu_ns()
        said = subprocess.run(command, input=lines, text=True, capture_output=True, check=True).stdout
        found = json.loads(said)
        if not found["received"]:
            raise SystemExit(f"{type(proxy).__name__} relayed nothing: there is nothing to measure")
        return Load(**found, cpu=(proxy.cpu_ns() - before) / 1000 / max(found["received"], 1))

    def run(self, make: Callable[[], Any], calls: int, seconds: int) -> Load:
        """A fresh proxy under so many calls; again, up to twice, where the generator itself was late."""
        for turn in range(3):
            proxy = make()
            try:
                found = self.load(proxy, proxy.ports(calls), seconds)
            finally:
                proxy.close()
            self.runs += 1
            self.late = max(self.late, found.late_p99 if not found.void or turn == 2 else 0.0)
            if not found.void:
                break
            self.discarded += 1
        return found


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process, by the scheduler's own account."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


class Relay:
    """The bare C relay."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None

    def ports(self, calls: int) -> list[tuple[int, int]]:
        command = ["taskset", "-c", str(PROXY_CORE), str(self._directory / "relay"), str(calls), str(FIRST_PORT)]
        self._process = subprocess.Popen(
            [*command, str(TRUNK_PORT), str(AGENT_PORT)], stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise SystemExit("the relay did not start")
        return [(FIRST_PORT + 2 * i, FIRST_PORT + 2 * i + 1) for i in range(calls)]

    def cpu_ns(self) -> int:
        assert self._process is not None
        return cpu_ns(self._process.pid)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Worker:
    """One media worker of flattone. One call in twenty is armed; what they key is read and thrown away, as a vault that
    keeps up would."""

    def __init__(self, pure: bool = False, capacity: int = 2500) -> None:
        environment = {"FLATTONE_PURE": "1"} if pure else {}
        ports = f"{FIRST_PORT}-{LAST_PORT}"  # room for more calls than a core carries
        self.process = WorkerProcess(MediaConfig(ports=ports, workers=1, max_calls=capacity), environment, PROXY_CORE)
        self._open = 0
        self.keys = 0
        self._stopping = threading.Event()
        self._vault = threading.Thread(target=self._read_keys, daemon=True)
        self._vault.start()

    def _read_keys(self) -> None:
        sock = self.process.near["vault-keys"].socket
        while not self._stopping.wait(0.01):
            with contextlib.suppress(BlockingIOError):
                while sock.recv(64):
                    self.keys += 1

    def ports(self, calls: int) -> list[tuple[int, int]]:
        """Open calls beside those that are open."""
        names = [f"call{i}" for i in range(self._open, self._open + calls)]
        opened = self.process.open(names)
        for i, name in enumerate(names, self._open):
            self.process.update(name, TRUNK_PORT, AGENT_PORT)
            if i % 20 == 0:
                self.process.tell(m.SetMode(name, "armed", i + 1))
        self._open += calls
        time.sleep(0.3)
        return [opened[name] for name in names]

    def cpu_ns(self) -> int:
        return cpu_ns(self.process.pid)

    def close(self) -> None:
        self._stopping.set()
        self._vault.join()
        self.process.close()


class RtpEngine:
    """rtpengine, plain or with in-band masking of every caller."""

    def __init__(self, mask: bool) -> None:
        self._mask = mask
        self._engine = rtpengine.RtpEngine(PROXY_CORE, FIRST_PORT, 60000)
        self._engine.__enter__()

    def ports(self, calls: int) -> list[tuple[int, int]]:
        remotes = ("127.0.0.1", TRUNK_PORT), ("127.0.0.1", AGENT_PORT)
        return [self._engine.call(i, *remotes, self._mask) for i in range(calls)]

    def cpu_ns(self) -> int:
        return self._engine.cpu_ns()

    def close(self) -> None:
        self._engine.__exit__(None, None, None)


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """A bench in a directory that goes away; as many descriptors as allowed."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("benchmarks.calls needs two cores: one for the proxy, one for the generator")
    with tempfile.TemporaryDirectory() as directory:
        yield Bench(Path(directory))
