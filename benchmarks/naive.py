"""The obvious version, for scale: asyncio, a protocol a leg, numpy for each packet by itself.

It decodes a packet, measures the eight tones by correlation, and sends a flat tone instead where a row and a column
stand out: no look-back, no loss handling, no headers of its own. The table says what a relayed packet costs there, in
the bare C relay and in flattone's worker, in one run.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import cast

import numpy as np

from benchmarks import subjects
from benchmarks.table import Row, arguments, finish
from dsp import g711, keypad

CALLS = 60
_HZ = np.array(keypad.LOW + keypad.HIGH)
_BANK = np.exp(-2j * np.pi * _HZ[:, None] / 8000 * np.arange(160))
_FLAT = g711.encode((0.1 * np.sin(2 * np.pi * 540 / 8000 * np.arange(160))).astype(np.float32), g711.PCMU).tobytes()


class Leg(asyncio.DatagramProtocol):
    """One side of a call."""

    def __init__(self, remote: int, masked: bool) -> None:
        self._remote, self._masked = ("127.0.0.1", remote), masked
        self.peer: Leg | None = None
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, _: object) -> None:
        payload = data[12:]
        if self._masked and len(payload) == 160:
            sound = g711.decode(np.frombuffer(payload, np.uint8), g711.PCMU)
            power = np.abs(_BANK @ sound) ** 2 / 80
            low, high, energy = power[:4].max(), power[4:].max(), float(sound @ sound)
            if energy > 1e-3 and low + high > 0.6 * energy and 0.05 < low / (high + 1e-9) < 20:
                payload = _FLAT
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.sendto(data[:12] + payload, self.peer._remote)


async def serve(calls: int) -> None:
    """Open the ports and run until killed."""
    loop = asyncio.get_running_loop()
    for i in range(calls):
        trunk, agent = Leg(subjects.TRUNK_PORT, True), Leg(subjects.AGENT_PORT, False)
        trunk.peer, agent.peer = agent, trunk
        for leg, port in ((trunk, subjects.FIRST_PORT + 2 * i), (agent, subjects.FIRST_PORT + 2 * i + 1)):
            await loop.create_datagram_endpoint(lambda leg=leg: leg, ("127.0.0.1", port))  # type: ignore[misc]
    print("ready", flush=True)
    await asyncio.Event().wait()


class Naive:
    """It as a subject of the bench."""

    def ports(self, calls: int) -> list[tuple[int, int]]:
        command = ["taskset", "-c", str(subjects.PROXY_CORE), sys.executable, "-m", "benchmarks.naive", "--serve"]
        self._process = subprocess.Popen([*command, str(calls)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise SystemExit("the naive proxy did not start")
        return [(subjects.FIRST_PORT + 2 * i, subjects.FIRST_PORT + 2 * i + 1) for i in range(calls)]

    def cpu_ns(self) -> int:
        return subjects.cpu_ns(self._process.pid)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def main() -> int:
    args = arguments(__doc__)
    seconds = 4 if args.quick else 10
    with subjects.bench() as bench:
        found = {
            name: bench.run(make, CALLS if name == "naive" else 500, seconds).cpu
            for name, make in (
                ("relay", lambda: subjects.Relay(bench.directory)),
                ("naive", Naive),
                ("flattone", subjects.Worker),
            )
        }
    rows = [
        Row(f"naive asyncio: {found['naive']:.1f} us a packet, {CALLS} calls", 0, found["naive"] / found["relay"],
            "x relay", "lower", published=True),
        Row(f"flattone: {found['flattone']:.1f} us a packet, 500 calls", 0, found["flattone"] / found["relay"],
            "x relay", "lower", published=True),
        Row("flattone against the naive version, CPU a packet", 0, found["flattone"] / found["naive"],
            "ratio", "lower", published=True),
    ]  # fmt: skip
    return finish(rows, args.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(int(sys.argv[2])))
    else:
        sys.exit(main())
