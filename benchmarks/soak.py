"""300 calls at any time for half an hour (--quick: 60 calls for most of a minute), one in ten of them a payment.

sipp places the calls, each a minute long, with recorded speech one way; in every tenth the caller keys a card in-band
while a capture runs, and the token server answers. None may be lost, and no process may grow after the first five
minutes: memory is read of each one then and at the end.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks import material
from benchmarks.table import Row, arguments, finish
from dsp import g711, keypad, synth
from mediaproxy.demo.site import Site, free_port
from tests.fixtures import sipp
from tests.fixtures.live import CARD, CVV, EXPIRY
from tests.fixtures.sipp import Sipp

EVERY = 10
"""One call of so many is a payment."""


class Desk(threading.Thread):
    """The agents: each tenth call that is answered gets a capture, and its end is waited for."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self._site = site
        self._done = threading.Event()
        self._seen: set[str] = set()
        self._running: set[str] = set()
        self.started = self.tokens = self.refused = 0
        self.failed: dict[str, int] = {}

    def run(self) -> None:
        while not self._done.wait(0.5):
            _, body = self._site.request("GET", "/v1/calls")
            for call in body["calls"]:
                if call["state"] == "answered" and call["id"] not in self._seen:
                    self._seen.add(call["id"])
                    if len(self._seen) % EVERY == 0:
                        self._start(call["id"])
            self._look()

    def _start(self, call: str) -> None:
        status, body = self._site.request("POST", "/v1/captures", {"call": {"call_id": call}})
        if status == 201:
            self._running.add(body["id"])
            self.started += 1
        else:
            self.refused += 1

    def _look(self) -> None:
        for capture in list(self._running):
            _, body = self._site.request("GET", f"/v1/captures/{capture}")
            if body and body.get("state") in ("token", "failed", "cancelled"):
                self._running.discard(capture)
                self.tokens += body["state"] == "token"
                if body["state"] != "token":
                    reason = str(body.get("reason"))
                    self.failed[reason] = self.failed.get(reason, 0) + 1

    def finish(self) -> None:
        """Wait for the captures that run."""
        self._done.set()
        self.join()
        deadline = time.monotonic() + 20
        while self._running and time.monotonic() < deadline:
            self._look()
            time.sleep(0.5)


def memory(site: Site) -> dict[str, int]:
    """Resident kB of each process by name."""
    found = {}
    for name, pid in site.pids().items():
        status = Path(f"/proc/{pid}/status").read_text()
        found[name] = int(next(row.split()[1] for row in status.splitlines() if row.startswith("VmRSS")))
    return found


def talk(seconds: int) -> bytes:
    """What a caller says: speech, after four seconds a card, and speech again. G.711."""
    rng = np.random.default_rng(1)
    speech = np.concatenate(material.prompts(material.FINAL)[:60])
    presses = [synth.Press(keypad.KEYS.index(key), 90, -12) for key in CARD + EXPIRY + CVV]
    keys, _ = synth.keying(presses, rng, (90, 130), 60, -60)
    whole = np.concatenate([speech[:32000], keys, np.resize(speech, seconds * 8000)])
    return g711.encode(whole[: seconds * 8000].astype(np.float32), g711.PCMU).tobytes()


def main() -> int:
    args = arguments(__doc__)
    calls, length, seconds, early_at = (60, 12, 36, 16) if args.quick else (300, 60, 1800, 300)
    rate = calls / length
    total = round(rate * seconds)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        (directory / "talk.ulaw").write_bytes(talk(length))
        ports = free_port(), free_port()
        with Site(directory, directory, *ports, calls=calls + 60, record=False) as site:
            actions = sipp.stream(directory / "talk.ulaw") + sipp.pause(1000 * length)
            limit = ["-l", str(2 * calls), "-r", f"{rate:g}", "-timeout", f"{seconds + length + 120}s"]
            desk = Desk(site)
            desk.start()
            with (
                Sipp(directory, "callee", sipp.callee(), ports[1], 13000, calls=total, options=limit[-2:]),
                Sipp(
                    directory, "caller", sipp.caller(actions), ports[0], 16000, site.trunk, calls=total, options=limit
                ) as uac,
            ):
                time.sleep(early_at)
                early = memory(site)
                time.sleep(max(seconds - early_at, 1))
                late = memory(site)
                uac.wait(length + 180)
                desk.finish()
            ended = sum('"reason":"bye"' in line for line in site.log.read_text().splitlines())
            errors = sum('"level":"error"' in line for line in site.log.read_text().splitlines())
    rows = [
        Row(f"calls completed of {total}", total, ended, "calls", "higher"),
        Row("errors in the log", 0, errors, "lines", "lower"),
        Row(
            f"captures that ended in a token, of {desk.started}",
            0.99,
            desk.tokens / max(desk.started, 1),
            "share",
            "higher",
        ),
        Row("captures that could not begin", 0, desk.refused, "captures", "lower"),
    ]
    if desk.failed:
        print("captures that failed, by reason:", ", ".join(f"{why} {n}" for why, n in sorted(desk.failed.items())))
    for name in early:
        growth = late[name] / early[name]
        what = f"memory of {name} at the end over that after {early_at} s: {late[name] // 1024} MB"
        rows.append(Row(what, 1.15 if args.quick else 1.05, growth, "ratio", "lower"))
    return finish(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
