"""Masked calls on one core: flattone's worker against a bare C relay and rtpengine, in one run on this machine.

A generator on one core loads a proxy on the other with two-way calls of 20 ms packets, keys in one call of ten without
end, one call of twenty armed. N is raised until a packet is lost or one in a hundred takes 10 ms; CPU is read from the
scheduler. Every figure is a ratio within the run, the median of five (--quick: of one); runs in which the generator
itself was late are done again. The relay is C code that passes octets on and masks nothing.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import material
from benchmarks.peers import rtpengine
from benchmarks.subjects import Bench, Relay, RtpEngine, Worker, bench
from benchmarks.table import Row, arguments, finish
from dsp import g711
from mediaproxy.demo.site import Site, free_port
from mediaproxy.ipc import messages as m
from mediaproxy.media.engine import Engine
from mediaproxy.media.modes import Mode
from mediaproxy.media.pump import COMPILED
from mediaproxy.media.rows import Rows
from mediaproxy.media.wire import rtp
from tests.fixtures import sipp
from tests.fixtures.sipp import Sipp

AT = 500
"""Calls at which CPU is compared."""


def capacity(run: Bench, make: Callable[[], Any], guess: int, seconds: int, steps: tuple[float, ...]) -> int:
    """Most calls that are carried without loss and in time: from a guess up or down, with each of `steps` in turn."""
    tried: dict[int, bool] = {}

    def carries(calls: int) -> bool:
        if calls not in tried:
            tried[calls] = run.run(make, calls, seconds).good
        return tried[calls]

    best = guess
    for step in steps:
        while best > 20 and not carries(best):
            best = round(best / step)
        while carries(round(best * step)):
            best = round(best * step)
    return best


def carried(run: Bench, quick: bool) -> list[Row]:
    """Capacity and CPU against the relay."""
    turns, seconds, steps = (1, 2, (1.25,)) if quick else (5, 4, (1.2, 1.06))
    makers: dict[str, Callable[[], Any]] = {"relay": lambda: Relay(run.directory)}
    makers |= {"compiled": Worker} if COMPILED else {}
    makers |= {"pure": lambda: Worker(pure=True)}
    peers: dict[str, Callable[[], Any]] = {}
    if rtpengine.available():
        peers = {"rtpengine tone/60": lambda: RtpEngine(True)}
        peers |= {} if quick else {"rtpengine": lambda: RtpEngine(False)}
    cpu: dict[str, list[float]] = {name: [] for name in (*makers, *peers)}
    calls: dict[str, list[int]] = {name: [] for name in makers}
    for turn in range(turns):
        for name, make in (makers | peers).items():
            cpu[name].append(run.run(make, AT, seconds).cpu)
        for name, make in makers.items():
            # A batch that grows with the calls makes a packet cheaper: a worker carries more than its cost here says.
            first = round({"relay": 8500, "compiled": 13000, "pure": 11500}[name] / cpu[name][0])
            calls[name].append(capacity(run, make, calls[name][-1] if turn else first, seconds, steps))
    rows = []
    for name, goal, dear in (("compiled", 0.70, 1.3), ("pure", 0.55, 1.6)):
        if name not in makers:
            print(f"no {name} pump in this installation: its rows are left out", file=sys.stderr)
            continue
        told = f"{median(calls[name]):.0f} of {median(calls['relay']):.0f}"
        share = median(a / b for a, b in zip(calls[name], calls["relay"], strict=True))
        rows.append(Row(f"masked calls on a core, {name}, of the bare relay's: {told}", goal, share, "ratio", "higher"))
        told = f"{median(cpu[name]):.2f} against {median(cpu['relay']):.2f} us"
        ratio = median(a / b for a, b in zip(cpu[name], cpu["relay"], strict=True))
        rows.append(Row(f"CPU a relayed packet, {name}, {AT} calls: {told}", dear, ratio, "x relay", "lower"))
    if peers:
        best = "compiled" if COMPILED else "pure"
        masked = median(cpu["rtpengine tone/60"])
        plain = f" (plain forwarding {median(cpu['rtpengine']):.2f})" if "rtpengine" in peers else ""
        ratio = median(a / b for a, b in zip(cpu[best], cpu["rtpengine tone/60"], strict=True))
        told = f"{median(cpu[best]):.2f} against {masked:.2f} us{plain}"
        rows.append(Row(f"CPU a packet against rtpengine tone/60: {told}", 0.35, ratio, "ratio", "lower"))
    else:
        print("rtpengine (Debian rtpengine-daemon) is not installed: its row is left out", file=sys.stderr)
    return rows


def _engine_alone(core: int, frames: int, gate: Any, found: Any) -> None:
    """Frames of 300 calls through one sans-IO engine on a core; puts the seconds into `found`."""
    os.sched_setaffinity(0, {core})
    n = 300
    engine = Engine(2 * n)
    for slot in range(n):
        engine.open(slot, n + slot, Mode.GUARDED, lambda: 1, recorded=False, now=0.0)
        for leg in (slot, n + slot):
            engine.update(leg, {0: "PCMU/8000"}, {"PCMU/8000": 0}, 20)
    speech = np.concatenate(material.prompts(material.FINAL)[:40])
    octets = g711.encode(np.resize(speech, (n, 50 * 160)), g711.PCMU)
    rows = Rows()
    rows.slot[: 2 * n], rows.length[: 2 * n] = np.arange(2 * n), 172
    zero, one = np.zeros(2 * n, np.uint8), np.ones(2 * n, np.uint32)
    gate.wait()
    began = time.perf_counter()
    for i in range(frames):
        rows.count = 2 * n
        stamp = np.full(2 * n, 160 * i, np.uint32)
        rtp.write(rows.slab[: 2 * n], zero, np.full(2 * n, i & 0xFFFF, np.uint16), stamp, one)
        rows.slab[: 2 * n, 12:172] = np.tile(octets[:, i % 50 * 160 : (i % 50 + 1) * 160], (2, 1))
        engine.process(rows, i * 0.02)
    found.put(time.perf_counter() - began)


def two_cores(quick: bool) -> list[Row]:
    """What two engines in two processes do in the time of one."""
    ratios = []
    context = multiprocessing.get_context("spawn")
    for _ in range(1 if quick else 5):
        took = []
        for cores in ((0,), (0, 1)):
            gate, found = context.Barrier(len(cores)), context.Queue()
            workers = [
                context.Process(target=_engine_alone, args=(core, 60 if quick else 400, gate, found)) for core in cores
            ]
            for worker in workers:
                worker.start()
            took.append(max(found.get() for _ in workers))
            for worker in workers:
                worker.join()
        ratios.append(2 * took[0] / took[1])
    return [Row("engines in two processes on two cores, against one", 1.9, median(ratios), "x", "higher")]


def churn(run: Bench, quick: bool) -> list[Row]:
    """What running calls feel when 50 others a second come and go."""
    seconds, ratios, told = 2 if quick else 12, [], ""
    for _ in range(1 if quick else 5):
        worst = []
        for busy in (False, True):
            worker = Worker()
            try:
                ports = worker.ports(300)
                stop = threading.Event()
                comings = threading.Thread(target=_come_and_go, args=(worker, stop if busy else None))
                comings.start()
                worst.append(run.load(worker, ports, seconds).p999)
                stop.set()
                comings.join()
            finally:
                worker.close()
        ratios.append(worst[1] / worst[0])
        told = f"{worst[1] / 1000:.1f} against {worst[0] / 1000:.1f} ms"
    return [Row(f"p99.9 of 300 calls while 50 a second come and go: {told}", 1.3, median(ratios), "ratio", "lower")]


def _come_and_go(worker: Worker, stop: threading.Event | None) -> None:
    if stop is None:
        return
    names: list[str] = []
    for i in itertools.count():
        if stop.wait(0.02):
            return
        names.append(f"guest{i}")
        worker.process.open(names[-1:])
        worker.process.update(names[-1], 9, 11)
        if len(names) > 100:
            worker.process.tell(m.CloseCall(names.pop(0)))


def memory(quick: bool) -> list[Row]:
    """Kilobytes that another call takes, in media and in signalling, with real SIP calls and audio."""
    few, many = (40, 140) if quick else (100, 500)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        ports = free_port(), free_port()
        talk = g711.encode(material.prompts(material.FINAL)[0][:40000], g711.PCMU)
        (directory / "talk.ulaw").write_bytes(np.resize(talk, 80000).tobytes())
        with Site(directory, directory, *ports, calls=many, record=False) as site:
            actions = sipp.stream(directory / "talk.ulaw") + sipp.pause(600_000)
            options = ["-l", str(many), "-r", "50"]
            with (
                Sipp(directory, "callee", sipp.callee(), ports[1], 13000, calls=many, options=["-timeout", "300s"]),
                Sipp(
                    directory, "caller", sipp.caller(actions), ports[0], 16000, site.trunk, calls=few, options=options
                ),
            ):
                time.sleep(few / 50 + 3)
                early = _private_kb(site)
                with Sipp(
                    directory, "more", sipp.caller(actions), free_port(), 18000, site.trunk,
                    calls=many - few, options=options,
                ):  # fmt: skip
                    time.sleep((many - few) / 50 + 3)
                    late = _private_kb(site)
                    up = len(site.request("GET", "/v1/calls")[1]["calls"])
                    if up != many:
                        raise SystemExit(f"{up} of {many} calls are up: the figure would say nothing")
    rows = []
    for name, goal in (("media-0", 42.0), ("signalling", 60.0)):
        slope = (late[name] - early[name]) / (many - few)
        rows.append(Row(f"memory a call, {name}, {few} to {many} calls", goal, slope, "kB", "lower"))
    return rows


def _private_kb(site: Site) -> dict[str, int]:
    found = {}
    for name, pid in site.pids().items():
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found[name] = sum(int(row.split()[1]) for row in text.splitlines() if row.startswith("Private_Dirty"))
    return found


def main() -> int:
    args = arguments(__doc__, only=True)
    if os.environ.get("FLATTONE_PURE"):
        raise SystemExit("benchmarks.calls runs both pumps by itself: unset FLATTONE_PURE")
    rows: list[Row] = []
    with bench() as run:
        parts: dict[str, Callable[[], list[Row]]] = {
            "calls": lambda: carried(run, args.quick),
            "cores": lambda: two_cores(args.quick),
            "churn": lambda: churn(run, args.quick),
            "memory": lambda: memory(args.quick),
        }
        for name, part in parts.items():
            if not args.only or args.only == name:
                rows += part()
        noise = f"{run.runs} runs, {run.discarded} done again since the generator was late"
        rows.append(Row(f"generator's own lateness, p99: {noise}", 4.0, run.late / 1000, "ms", "lower"))
    print(f"{_machine()}; run {secrets.token_hex(2)}")
    return finish(rows, args.json)


def _machine() -> str:
    """What this was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    kernel = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.split("-")[0].strip()
    return f"{model}, {os.cpu_count()} cores, Linux {kernel}, load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    sys.exit(main())
