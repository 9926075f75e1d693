"""Calls for half an hour (--quick: half a minute): none lost, no memory grows after the first fifth.

sipp places the calls, with speech one way; memory is read of every process.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.table import Row, arguments, finish
from dsp import g711, synth
from mediaproxy.demo.site import Site, free_port
from tests.fixtures import sipp
from tests.fixtures.sipp import Sipp

CALLS = 30
LENGTH_MS = 8000


def memory(site: Site) -> dict[str, int]:
    """Resident kB of each process by name, by the log."""
    found = {}
    for name, pid in site.pids().items():
        status = Path(f"/proc/{pid}/status").read_text()
        found[name] = int(next(row.split()[1] for row in status.splitlines() if row.startswith("VmRSS")))
    return found


def main() -> int:
    args = arguments(__doc__)
    seconds = 40 if args.quick else 1800
    rate = CALLS * 1000 / LENGTH_MS
    total = int(rate * seconds)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        talk = g711.encode(synth.speechlike(LENGTH_MS / 1000, np.random.default_rng(1)), g711.PCMU)
        (directory / "talk.ulaw").write_bytes(talk.tobytes())
        ports = free_port(), free_port()
        with Site(directory, directory, *ports) as site:
            actions = sipp.stream(directory / "talk.ulaw") + sipp.pause(LENGTH_MS)
            limit = ["-l", str(2 * CALLS), "-r", f"{rate:.0f}", "-timeout", f"{seconds + 120}s"]
            with (
                Sipp(directory, "callee", sipp.callee(), ports[1], 17000, calls=total, options=limit[-2:]) as uas,
                Sipp(
                    directory, "caller", sipp.caller(actions), ports[0], 18500, site.trunk, calls=total, options=limit
                ) as uac,
            ):
                time.sleep(seconds / 5 + 5)
                early = memory(site)
                uac.finish(seconds + 120)
                late = memory(site)
                uas.finish(60)
            ended = sum('"reason": "bye"' in line for line in site.log.read_text().splitlines())
            for path in directory.glob("*.wav"):
                path.unlink()
    rows = [Row(f"calls completed of {total}", total, ended, "calls", "higher")]
    for name in early:
        rows.append(Row(f"memory of {name}, late over early", 1.1, late[name] / early[name], "ratio", "lower"))
    return finish(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
