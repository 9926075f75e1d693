"""Captures in numbers: how soon a key counts, how many callers can key at once, how soon a token comes, what is left.

Real processes throughout: a media worker under 300 calls, the vault, the reference token server over TLS. Keys are
measured from the end of their tone, which is when the last sample of it has been sent, to the record that leaves for
the vault, and from there to the capture by the vault's own histogram.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks import subjects
from benchmarks.subjects import Bench, bench
from benchmarks.table import Row, arguments, finish
from dsp import g711, keypad, synth
from mediaproxy.config import CaptureConfig, FieldConfig, MediaConfig
from mediaproxy.demo import certificates
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.key import KeyReceiver
from tests.fixtures import gateways, keyed, memory
from tests.fixtures.live import CVV, EXPIRY
from tests.fixtures.vault import TokenServer, VaultProcess
from tests.fixtures.worker import Line, WorkerProcess

CALLS = 300
KEYING = 8
"""Calls beside those, on which somebody keys and is measured."""


def p99(values: list[float]) -> float:
    """The 99th percentile, in milliseconds; nothing where there is none."""
    return 1000 * float(np.percentile(values, 99)) if values else float("inf")


def late(timing: m.Timing, bound: float) -> int:
    """How many took longer than `bound`, one of the histogram's."""
    return sum(timing.counts[timing.bounds.index(bound) + 1 :])


def key_to_found(run: Bench, quick: bool) -> tuple[float, list[Row]]:
    """Tones among 300 calls with audio, until the worker has told."""
    seconds = 6 if quick else 30
    media = MediaConfig(ports=f"{subjects.FIRST_PORT}-{subjects.LAST_PORT}", workers=1, max_calls=CALLS + KEYING)
    with WorkerProcess(media, core=subjects.PROXY_CORE) as worker:
        loaded = _Loaded(worker)
        ports = loaded.ports(CALLS)
        lines = [Line.through(worker, f"keying{i}") for i in range(KEYING)]
        for i, line in enumerate(lines):
            worker.tell(m.SetMode(line.name, "armed", i + 1))
        rng = np.random.default_rng(5)
        tracks = [_track(rng, seconds) for _ in lines]
        load = threading.Thread(target=lambda: run.load(loaded, ports, seconds + 2), daemon=True)
        load.start()
        time.sleep(0.5)
        ends, found = _talk(worker, lines, tracks, seconds)
        load.join()
        for line in lines:
            line.close()
    waits = [wait for i in range(KEYING) for end in ends[i] for wait in _wait(end, found[i])]
    keys, heard = sum(map(len, ends)), len(waits)
    return p99(waits), [
        Row(f"{keys} tones of 50 ms beside {CALLS} calls: found, of those keyed", 1.0, heard / keys, "", "higher"),
        Row("  tone's end to key found, p99", 0, p99(waits), "ms", "lower", published=True),
    ]


def _wait(end: float, found: list[float]) -> list[float]:
    """How long after the end of its tone a key was found; nothing where it was not. Tones are 220 ms apart or more."""
    return [at - end for at in found if -0.05 < at - end < 0.16][:1]


class _Loaded:
    """What the load generator has to know of a proxy."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker

    def ports(self, calls: int) -> list[tuple[int, int]]:
        names = [f"call{i}" for i in range(calls)]
        opened = self._worker.open(names)
        for name in names:
            self._worker.update(name, subjects.TRUNK_PORT, subjects.AGENT_PORT)
        return [opened[name] for name in names]

    def cpu_ns(self) -> int:
        return subjects.cpu_ns(self._worker.pid)

    def close(self) -> None:
        return


def _track(rng: np.random.Generator, seconds: int) -> tuple[bytes, list[int]]:
    """(µ-law with a digit about four times a second, the sample after the last of each)."""
    presses = [synth.Press(keypad.KEYS.index(str(d)), 50, -12, 0) for d in rng.integers(0, 10, 4 * seconds)]
    audio, marks = synth.keying(presses, rng, (170, 230), noise_dbm0=-60)
    audio, kept = audio[: 8000 * seconds // 160 * 160], [int(end) for _, end in marks if end < 8000 * seconds - 1600]
    return g711.encode(audio, g711.PCMU).tobytes(), kept


def _talk(
    worker: WorkerProcess, lines: list[Line], tracks: list[tuple[bytes, list[int]]], seconds: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Say every track in real time: when each tone ended, and when each key was found."""
    receiver = KeyReceiver(worker.near["vault-keys"])
    ends: list[list[float]] = [[] for _ in lines]
    found: list[list[float]] = [[] for _ in lines]
    stop = threading.Event()

    def listen() -> None:
        while not stop.is_set():
            while (key := receiver.receive()) is not None:
                found[key.capture - 1].append(time.monotonic())
            time.sleep(0.0005)

    listener = threading.Thread(target=listen)
    listener.start()
    due = time.monotonic()
    for at in range(0, len(tracks[0][0]) - 159, 160):
        for line, (octets, marks), told in zip(lines, tracks, ends, strict=True):
            line.say(octets[at : at + 160])
            for end in marks:
                if at < end <= at + 160:  # a phone sends a packet when its last sample has been heard
                    told.append(time.monotonic() - (at + 160 - end) / 8000)
        due += 0.02
        time.sleep(max(0.0, due - time.monotonic()))
    time.sleep(0.3)
    stop.set()
    listener.join()
    return ends, found


def keying_at_once(tokens: TokenServer, quick: bool) -> tuple[float, list[Row]]:
    """500 captures at five keys a second each: fifteen digits, `*`, and again."""
    captures, seconds = 500, 4 if quick else 20
    field = FieldConfig(name="reference", least=16, most=16)
    with VaultProcess(tokens.gateway, CaptureConfig(field_seconds=600, total_seconds=600), (field,)) as vault:
        for number in range(1, captures + 1):
            vault.begin(number, ("reference",))
        before = vault.pong().timings["key"]
        began, sent = time.monotonic(), 0
        rng = np.random.default_rng(7)
        digits = rng.integers(0, 10, 1000).astype(str)
        while (elapsed := time.monotonic() - began) < seconds:
            wanted = int(elapsed * 5 * captures)
            for i in range(sent, wanted):
                turn = i // captures
                vault.key(i % captures + 1, "*" if turn % 16 == 15 else str(digits[i % 1000]))
            sent = max(sent, wanted)
            vault.hear(0.001)
        time.sleep(1)
        pong = vault.pong()
        after = pong.timings["key"]
        taken = pong.counters["keys"]
        counts = tuple(b - a for a, b in zip(before.counts, after.counts, strict=True))
        beyond = late(m.Timing(after.bounds, counts, 0.0), 0.02)
        mean = 1000 * (after.seconds - before.seconds) / max(sum(counts), 1)
    most = 1000 * next(
        bound for bound in after.bounds if late(m.Timing(after.bounds, counts, 0.0), bound) <= taken / 100
    )
    return most, [
        Row(f"{captures} captures keying at once, 5 keys/s each: lost of {sent}", 0, sent - taken, "keys", "lower"),
        Row("  keys later than 20 ms from worker to capture", 0, beyond, "keys", "lower"),
        Row("  found to capture, mean", 0, mean, "ms", "lower", published=True),
    ]


def submit_to_token(tokens: TokenServer, quick: bool) -> list[Row]:
    """Complete captures submitted fifty a second, each with a card of its own, over a TLS connection of its own."""
    many, rate = (150, 50) if quick else (1500, 50)
    rng = np.random.default_rng(11)
    sent: dict[int, float] = {}
    with VaultProcess(tokens.gateway, CaptureConfig(auto_submit=False)) as vault:
        for number in range(1, many + 1):
            vault.begin(number, ("pan", "expiry", "cvv"))
            vault.key(number, keyed.card(rng) + EXPIRY + CVV)
        vault.wait(lambda: all(vault.state(n) == "complete" for n in range(1, many + 1)))
        began = time.monotonic()
        while len(sent) < many:
            if (time.monotonic() - began) * rate >= len(sent):
                number = len(sent) + 1
                sent[number] = time.monotonic()
                vault.act(number, "submit")
            vault.hear(0.001)
        vault.wait(lambda: all(vault.state(n) in ("token", "failed") for n in range(1, many + 1)))
        waits = [vault.told[n, "token"] - at for n, at in sent.items() if (n, "token") in vault.told]
    return [
        Row(f"submit to token at {rate} a second, p99 of {many}", 50, p99(waits), "ms", "lower"),
        Row("  median", 0, 1000 * float(np.median(waits)), "ms", "lower", published=True),
        Row("  tokens that did not come", 0, many - len(waits), "", "lower"),
    ]


def left_behind(tokens: TokenServer, quick: bool) -> list[Row]:
    """Unique cards, and a search of all the vault's memory for each in every encoding, whole and strided."""
    many = 4 if quick else 20
    rng = np.random.default_rng(13)
    cards = [keyed.card(rng) for _ in range(many)]
    with VaultProcess(tokens.gateway, CaptureConfig(auto_submit=False)) as vault:
        for number, card in enumerate(cards, 1):
            vault.begin(number, ("pan", "expiry", "cvv"))
            vault.key(number, card + EXPIRY + CVV)
        vault.wait(lambda: all(vault.state(n) == "complete" for n in range(1, many + 1)))
        there = sum(bool(memory.search(vault.pid, card)) for card in cards[:2])
        for number in range(1, many + 1):
            vault.act(number, "submit")
        vault.wait(lambda: all(vault.state(n) == "token" for n in range(1, many + 1)))
        ended = time.monotonic()
        last = 0.0
        while time.monotonic() - ended < 0.9:
            data = [region for _, region in memory.regions(vault.pid)]
            seen = time.monotonic() - ended
            if any(card.encode() in region for card in cards for region in data):
                last = 1000 * seen
        time.sleep(max(0.0, 1.0 - (time.monotonic() - ended)))
        hits = [hit for card in cards for hit in memory.search(vault.pid, card)]
        locked = vault.pong().counters["memory_locked"]
        during = _while_asked(vault_of=tokens, card=keyed.card(rng))
    print(f"memory for digits locked: {'yes' if locked else 'no'}", file=sys.stderr)
    return [
        Row("cards that the search finds while they are kept (control)", 2, there, "of 2", "higher"),
        Row(f"copies of {many} cards in the vault 1 s after (OpenSSL's included)", 0, len(hits), "", "lower"),
        Row("  copies of one while the answer is waited for", 0, during, "", "lower", published=True),
        Row("  last seen in ASCII after the last token", 0, last, "ms", "lower", published=True),
    ]


def _while_asked(vault_of: TokenServer, card: str) -> int:
    """How many times a card is in the vault's memory after it has been sent and before the answer has come."""
    with tempfile.TemporaryDirectory() as scratch:
        pem = certificates.make(Path(scratch))
        with gateways.server(pem) as slow:
            slow.answers, slow.pause = [(200, {"token": "tok_a"})], 3.0
            config = msgspec.structs.replace(vault_of.gateway, url=slow.url, ca_file=str(pem[0]))
            with VaultProcess(config, CaptureConfig()) as vault:
                vault.begin(1, ("pan", "expiry", "cvv"))
                vault.key(1, card + EXPIRY + CVV)
                vault.wait(lambda: bool(slow.requests))
                time.sleep(0.3)
                return sum(region.count(card.encode()) for _, region in memory.regions(vault.pid))


def main() -> int:
    args = arguments(__doc__)
    with bench() as run:
        found, rows = key_to_found(run, args.quick)
    with tempfile.TemporaryDirectory() as scratch:
        tokens = TokenServer(Path(scratch))
        try:
            taken, more = keying_at_once(tokens, args.quick)
            rows += [
                Row("  tone's end to capture state, p99: that and the vault's", 60, found + taken, "ms", "lower"),
                *more,
            ]
            rows += submit_to_token(tokens, args.quick)
            rows += left_behind(tokens, args.quick)
        finally:
            tokens.close()
    return finish(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
