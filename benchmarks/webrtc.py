"""Agents in browsers: what a masked call costs, what a browser hears of keys, how soon and how surely it is there.

Cost: one gateway at a time on one core, ratios within the run; rtpengine and RTCPeerConnection mask nothing. The rest
is a whole flattone with Chromium and JsSIP: what the pages have played is attacked by who learns from it (he shares no
code with the masker), and the run is void unless he names keys that are open, and those of which 2 ms are left.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import browsers
from benchmarks.peers import rtpengine
from benchmarks.table import Row, arguments, finish
from dsp import g711, keypad, synth
from mediaproxy.demo.phone import Phone
from mediaproxy.demo.site import Site, free_port, listening_port
from tests.attacker import played
from tests.fixtures import softphone, webphone
from tests.fixtures.network import Network
from tests.fixtures.registrations import Registrations
from tests.fixtures.softphone import Softphone

FIRST = 300
"""Extension of the first browser."""
KEY_MS, GAP_MS = 80, 340
"""Apart enough that no two are under one stretch of flat tone, which is how they are found."""
KEYS = 14
"""In a row: fewer than a card number has."""
FLAT_HZ = 540.0
CALLS, PEER_CALLS = 24, 10
"""On the core of a gateway: what keeps it about half busy, or two thirds."""


# What it costs


def costs(quick: bool) -> list[Row]:
    """Processor time of a call, of that of others."""
    turns, seconds = (1, 2) if quick else (3, 6)
    ours, theirs, naive = [], [], []
    for _ in range(turns):
        ours.append(browsers.cost(browsers.Flattone, CALLS, seconds))
        if rtpengine.available():
            theirs.append(browsers.cost(browsers.RtpEngine, CALLS, seconds))
        naive.append(asyncio.run(browsers.peer_connection(PEER_CALLS, seconds)))
    for name, found in (("flattone", ours), ("rtpengine", theirs), ("RTCPeerConnection", naive)):
        if not all(one.good for one in found):
            raise SystemExit(f"void: {name} has lost packets, or what it sent cannot be read: {found}")
    own = statistics.median(one.cpu for one in ours)
    peer = statistics.median(one.cpu for one in naive)
    rows = [
        Row(f"masked G.711 to Opus and SRTP, {CALLS} calls a core: CPU of a call", 0, own, "ms/s", "lower", True),
        Row("  of RTCPeerConnection's, which masks nothing", 0.4, own / peer, "x", "lower"),
    ]
    if theirs:
        engine = statistics.median(one.cpu for one in theirs)
        rows.append(Row("  of rtpengine's, which masks nothing", 1.0, own / engine, "x", "lower"))
    else:
        print("rtpengine is missing: its row is left out", file=sys.stderr)
    return rows


# What a browser hears


class Caller(Phone):
    """A caller, a share of whose packets is lost."""

    def __init__(self, loss: float, seed: int) -> None:
        super().__init__("caller")
        self._loss, self._rng = loss, np.random.default_rng(seed)

    def _send(self, first: int, sequence: int, timestamp: int, payload: bytes) -> None:
        if self._rng.random() >= self._loss:
            super()._send(first, sequence, timestamp, payload)


@dataclass(slots=True)
class Heard:
    """What one page has played (float64 at 8 kHz), and the digits of the keys, group by group."""

    audio: NDArray[np.float64]
    digits: list[NDArray[np.int64]]
    began: list[int]
    """When each group was begun, in samples."""
    armed: bool
    loss: float


def keyed(digits: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """µ-law of keys at every level and twist."""
    presses = [synth.Press(keypad.KEYS.index(str(d)), KEY_MS, rng.uniform(-14, -6), rng.uniform(-4, 2)) for d in digits]
    audio, _ = synth.keying(presses, rng, (GAP_MS, GAP_MS), GAP_MS, -60)
    return g711.encode(audio.astype(np.float32), g711.PCMU)


async def listened(site: Site, phone: Softphone, network: Network, armed: bool, loss: float, seconds: float) -> Heard:
    """One call, keyed all the time. Armed: a capture for each few keys, cancelled before its number is whole."""
    rng = np.random.default_rng(int(phone.number) + 7)
    network.loss = loss
    caller = Caller(loss, int(phone.number))
    await caller.open()
    spoken: list[NDArray[np.int64]] = []
    began: list[int] = []
    waiting = np.zeros(0, np.int64)
    await phone.page.evaluate("globalThis.kept = null")
    try:
        caller.call(phone.number, site.trunk)
        await asyncio.wait_for(caller.established.wait(), 10)
        await phone.until("globalThis.kept && kept.length")
        await asyncio.sleep(0.5)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while len(waiting) < KEYS:
                waiting = np.concatenate([waiting, rng.permutation(np.repeat(np.arange(10), 7))])
            digits, waiting = waiting[:KEYS], waiting[KEYS:]  # each as often as any other
            spoken.append(digits)
            if armed:
                asked = {"call": {"extension": phone.number}}
                status, body = await asyncio.to_thread(site.request, "POST", "/v1/captures", asked)
                if status != 201:
                    raise SystemExit(f"void: no capture: {status} {body}")
            began.append(int(time.monotonic() * played.RATE))
            caller.say(keyed(digits, rng))
            await asyncio.sleep(0.1)
            while not caller.media.idle:
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.2)
            if armed:
                status, body = await asyncio.to_thread(site.request, "POST", f"/v1/captures/{body['id']}/cancel", {})
                if status >= 300:
                    raise SystemExit(f"void: a capture was over before its end: {status} {body}")
        audio = await phone.kept()
    finally:
        caller.hang_up()
        caller.close()
    return Heard(played.narrow(audio, softphone.RATE), spoken, began, armed, loss)


def open_keys(
    count: int, left_ms: float, seed: int = 9
) -> tuple[NDArray[np.float64], list[tuple[int, int]], NDArray[np.int64]]:
    """A control: keys that are open, or hidden but for their first `left_ms`, coded as they are for a browser."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, 10, count)
    octets = keyed(digits, rng)
    if left_ms:
        audio, flat = (
            g711.decode(octets, g711.PCMU).copy(),
            0.1 * np.sin(2 * np.pi * FLAT_HZ / 8000 * np.arange(len(octets))),
        )
        for i in range(count):
            start = 8 * (GAP_MS + i * (KEY_MS + GAP_MS))
            part = slice(start + int(8 * left_ms), start + 8 * KEY_MS)
            audio[part] = flat[part]
        octets = g711.encode(audio.astype(np.float32), g711.PCMU)
    heard = played.through_opus(octets)
    return heard, played.presses(heard, FLAT_HZ if left_ms else 0), digits


def recovery(heard: list[Heard], quick: bool) -> list[Row]:
    """How many keys are named, by condition; controls first."""
    count = 120 if quick else 1200
    rows = []
    for what, left in (("unmasked", 0.0), ("2 ms left of each", 2.0)):
        named = played.attack(*open_keys(count, left))
        goal = 0.99 if not left else 0.6 if quick else 0.95
        rows.append(Row(f"control: {what}, n={named.keys}", 100 * goal, 100 * named.share, "%", "higher"))
    for modes in ((False, True),) if quick else ((False,), (True,)):  # few keys are attacked together
        for loss in sorted({one.loss for one in heard}):
            named = together([one for one in heard if one.armed in modes and one.loss == loss])
            bound = max(11, 100 * named.bound())  # of so few keys more may be named by chance
            mode = " and ".join("armed" if armed else "guarded" for armed in modes)
            name = f"{mode}, {loss:.0%} loss on both legs, n={named.keys}: keys named"
            rows.append(Row(name, bound, 100 * named.share, "%", "lower"))
    return rows


def together(parts: list[Heard]) -> played.Named:
    """One attack on what several pages have played."""
    audio, where, digits, at = [], [], [], 0
    for part in parts:
        keys = [len(one) for one in part.digits]
        presses = played.presses(part.audio, FLAT_HZ)
        found, which = played.grouped(presses, keys, 8 * (KEY_MS + GAP_MS), part.began)
        if len(which) < 0.9 * sum(keys):
            raise SystemExit(f"void: {len(which)} of {sum(keys)} keys were found; armed={part.armed}, loss={part.loss}")
        where += [(a + at, b + at) for a, b in found]
        digits.append(np.concatenate(part.digits)[which])
        audio.append(part.audio)
        at += len(part.audio)
    return played.attack(np.concatenate(audio), where, np.concatenate(digits))


# How soon it is there


async def set_up(site: Site, phone: Softphone, calls: int) -> list[float]:
    """Seconds from INVITE to a tone in the page, call by call."""
    tone = g711.encode((0.3 * np.sin(2 * np.pi * 440 / 8000 * np.arange(8000))).astype(np.float32), g711.PCMU)
    found = []
    for _ in range(calls):
        await phone.page.evaluate("globalThis.loudAt = 0")
        caller = Phone("caller")
        await caller.open()
        try:
            for _ in range(5):
                caller.say(tone)
            begun = time.time()
            caller.call(phone.number, site.trunk)
            found.append(await phone.loud() - begun)
        finally:
            caller.hang_up()
            caller.close()
        await phone.until("!phone.talking")
        await asyncio.sleep(0.3)
    return found


# How surely


async def outage(site: Site, phones: list[Softphone], network: Network, seconds: float) -> tuple[float, int]:
    """(seconds until a browser is back whose network was gone for so long, packets that another call has lost)."""
    gone, other = phones
    callers = [Phone("caller"), Phone("caller")]
    for caller, phone in zip(callers, phones, strict=True):
        await caller.open()
        caller.call(phone.number, site.trunk)
        await asyncio.wait_for(caller.established.wait(), 10)
    try:
        await asyncio.sleep(2)
        before = len(callers[1].media.heard)
        first = callers[1].media.heard[before - 1].sequence
        network.down = True
        network.cut()
        await gone.until("phone.lost")
        await asyncio.sleep(seconds)
        network.down = False
        back = time.time()
        quiet = len(callers[0].media.heard)
        registered = await gone.until("phone.registered", 30) / 1000 - back
        deadline = time.time() + 10
        while len(callers[0].media.heard) < quiet + 5 and time.time() < deadline:
            await asyncio.sleep(0.02)
        audio = time.time() - back
        await asyncio.sleep(1)
        heard = callers[1].media.heard[before:]
        lost = (heard[-1].sequence - first & 0xFFFF) - len(heard)
        if not callers[0].established.is_set() or callers[0].ended.is_set():
            raise SystemExit("void: the call of the browser whose network was gone has ended")
        return max(registered, audio), lost
    finally:
        for caller in callers:
            caller.hang_up()
            caller.close()
        await other.until("!phone.talking")


async def browsing(quick: bool) -> list[Row]:
    """Everything that needs a browser."""
    pages, seconds, calls, registrations, gone = (4, 11.0, 4, 200, 2.0) if quick else (8, 200.0, 40, 200, 10.0)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        wss = listening_port()
        numbers = [str(FIRST + i) for i in range(registrations + pages)]
        more, tokens = webphone.agents(directory, wss, numbers)
        script = webphone.script()
        with Site(directory, directory, free_port(), free_port(), record=False, settings=more) as site:
            async with softphone.browser() as running:
                networks = [await Network(("127.0.0.1", wss)).open() for _ in range(pages)]
                phones = [
                    await Softphone.register(
                        running, script, network.url, number, tokens[number], network=network, size=256
                    )
                    for number, network in zip(numbers, networks, strict=False)
                ]
                took = await set_up(site, phones[0], calls)
                p95 = 1000 * float(np.percentile(took, 95))
                rows.append(Row(f"INVITE to audio in the browser, p95 of {calls}", 800, p95, "ms", "lower"))
                async with Registrations.opened(("127.0.0.1", wss), {n: tokens[n] for n in numbers[pages:]}) as others:
                    back, lost = await outage(site, phones[:2], networks[0], gone)
                    what = f"beside {others.count} registrations, network gone {gone:g} s: back after"
                    rows.append(Row(what, 2, back, "s", "lower"))
                    rows.append(Row("  packets that another call has lost", 0, lost, "packets", "lower"))
                    rows.append(Row("  other registrations that have ended", 0, others.ended, "", "lower"))
                heard = await asyncio.gather(
                    *(
                        listened(site, phone, network, i % 2 == 1, (0.0, 0.05)[i // 2 % 2], seconds)
                        for i, (phone, network) in enumerate(zip(phones, networks, strict=True))
                    )
                )
                for network in networks:
                    network.close()
    return rows + recovery(heard, quick)


def main() -> int:
    asked = arguments(__doc__)
    os.sched_setaffinity(0, {0})
    rows = costs(asked.quick)
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    rows += asyncio.run(browsing(asked.quick))
    return finish(rows, asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
