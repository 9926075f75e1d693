"""The demo itself: two calls, a timeline of what the agent sees, and what an attacker gets."""

from __future__ import annotations

import asyncio
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsp import g711, keypad, synth
from dsp.mask import FLAT_DBM0, FLAT_HZ
from mediaproxy import offline, wav
from mediaproxy.demo import attacker, picture
from mediaproxy.demo.phone import Phone
from mediaproxy.demo.site import EXTENSION, Site
from mediaproxy.scan.look import Options, look
from mediaproxy.verify import command as verify

CARD = "4111111111111111"
"""Visa's published test number."""
ATTACK_KEYS = 1200
_STREAMS = 12


class Failed(Exception):
    """A step of the demo did not do what it must."""


def run(out: Path, keep: bool) -> int:
    """Run the demo; recordings and the picture go to `out`. Returns the exit code."""
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="flattone-") as scratch:
            asyncio.run(_demo(out, Path(scratch), keep, began))
    except Failed as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


async def _demo(out: Path, scratch: Path, keep: bool, began: float) -> None:
    caller, desk = Phone("caller"), Phone(EXTENSION, answers=True)
    await caller.open()
    await desk.open()
    line = Line(began)
    line.say("flattone", "starting: token server (HTTPS), supervisor, signalling, media, vault, agent API, recorder")
    site = await asyncio.to_thread(
        Site(scratch, out, caller.sip_port, desk.sip_port, settings={"api": f'origins = ["{CRM}"]'}).__enter__
    )
    try:
        line.say("flattone", f"ready: SIP trunk side :{site.trunk[1]}, agent side :{site.agent[1]}, API :{site.api}")
        audio, relay = await _call(site, caller, desk, line, "in-band tones", inband=True)
        sent, heard = audio
        caller.close()
        desk.close()
        await asyncio.sleep(0.1)  # asyncio closes sockets a little later
        caller_again, desk_again = Phone("caller"), Phone(EXTENSION, answers=True)
        await caller_again.open(caller.sip_port)
        await desk_again.open(desk.sip_port)
        _, more = await _call(site, caller_again, desk_again, line, "telephone-events", inband=False)
        caller_again.close()
        desk_again.close()
        await asyncio.sleep(1.2)
        await asyncio.to_thread(_report, out, sent, heard, relay + more)
        if not site.alive():
            raise Failed("a process ended during the demo")
        print(f"\nall of it in {time.monotonic() - began:.0f} s")
        if keep:
            await _stay(site, caller.sip_port, desk.sip_port)
    finally:
        code = await asyncio.to_thread(site.stop)
        shutil.copy(site.log, out / "flattone.log")
    if code:
        raise Failed(f"flattone ended with exit code {code}; see {out / 'flattone.log'}")


CRM = "http://127.0.0.1:8000"
"""Where a page of one's own may hold the payment bar: `python -m http.server 8000` beside it."""


async def _stay(site: Site, caller_port: int, agent_port: int) -> None:
    """Leave it running, with a phone that answers, and a caller whenever somebody presses Enter."""
    answering = Phone(EXTENSION, answers=True)
    await answering.open(agent_port)
    print(f"\nagent page    http://127.0.0.1:{site.api}/agent   token {site.agent_token}   extension {EXTENSION}")
    print(f"supervisor    http://127.0.0.1:{site.api}/live    token {site.token}")
    print(f"auditor       GET /v1/audit, token {site.auditor_token}; flattone verify {site.audit}")
    print(f"your own page {CRM} may hold the payment bar (docs/embedding.md)")
    print(f"configuration {site.config}")
    print(f"to call it    sip:{EXTENSION}@127.0.0.1:{site.trunk[1]} over UDP, from any phone on 127.0.0.1 (PCMU);")
    print("              or press Enter: somebody calls, keys a test card once you take a payment, and hangs up")
    print("the agent's phone answers by itself; Ctrl-C ends", flush=True)
    loop, stop, wanted = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if sys.stdin.isatty():

        def pressed() -> None:
            sys.stdin.readline()
            wanted.set()

        loop.add_reader(sys.stdin, pressed)
    callers = asyncio.create_task(_callers(site, caller_port, wanted))
    await stop.wait()
    callers.cancel()
    answering.close()


async def _callers(site: Site, port: int, wanted: asyncio.Event) -> None:
    """One caller after another."""
    while True:
        await wanted.wait()
        phone = Phone("caller")
        await phone.open(port)
        try:
            phone.call(EXTENSION, site.trunk)
            await asyncio.wait_for(phone.established.wait(), 5)
            print("a caller is on the line", flush=True)
            for _ in range(1200):
                _, body = await asyncio.to_thread(site.request, "GET", f"/v1/calls?extension={EXTENSION}")
                if phone.ended.is_set() or any(call["capture"] for call in body["calls"]):
                    break
                await asyncio.sleep(0.5)
            await asyncio.sleep(2)
            for keys in (CARD, f"12{(time.gmtime().tm_year + 2) % 100:02d}", "737"):
                phone.key_events(keys)
                while not phone.media.idle and not phone.ended.is_set():
                    await asyncio.sleep(0.1)
                await asyncio.sleep(1.5)
            await asyncio.sleep(8)
            phone.hang_up()
            print("the caller has hung up; Enter for another", flush=True)
            await asyncio.sleep(1)
        except TimeoutError:
            print("the call was not answered", flush=True)
        finally:
            phone.close()
            wanted.clear()


class Line:
    """The timeline."""

    def __init__(self, began: float) -> None:
        self._began = began

    def say(self, who: str, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.2f} s  {who:<9} {text}", flush=True)


async def _call(
    site: Site, caller: Phone, desk: Phone, line: Line, kind: str, inband: bool
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.uint8]], list[float]]:
    """One payment call. Returns ((sent, heard), µ-law from the first packet on) and the relay times in ms."""
    rng = np.random.default_rng(11)
    line.say("caller", f"dials {EXTENSION}; this caller's phone sends {kind}")
    caller.call(EXTENSION, site.trunk)
    await _within(caller.established.wait(), 5, "the call was not answered")
    line.say("agent", "answers; both talk")
    caller.say(g711.encode(synth.speechlike(2.0, rng, -18), g711.PCMU))
    desk.say(g711.encode(synth.speechlike(14.0, rng, -22), g711.PCMU))
    await asyncio.sleep(1.0)
    status, body = await asyncio.to_thread(site.request, "POST", "/v1/captures", {"call": {"extension": EXTENSION}})
    if status != 201:
        raise Failed(f"the capture did not start: {status} {body}")
    line.say("agent", "presses “take payment”")
    follow = asyncio.create_task(asyncio.to_thread(_follow, site, body["id"], line))
    await asyncio.sleep(0.8)
    expiry = f"12{(time.gmtime().tm_year + 2) % 100:02d}"
    for keys in (CARD, expiry, "737"):
        if inband:
            presses = [synth.Press(keypad.KEYS.index(key), 90, -9, -2) for key in keys]
            tones, _ = synth.keying(presses, rng, (80, 110), 100, -60)
            caller.say(g711.encode(tones, g711.PCMU))
        else:
            caller.key_events(keys)
        line.say("caller", f"keys {len(keys)} digits (not shown: the agent does not see them either)")
        while not caller.media.idle:
            await asyncio.sleep(0.05)
    last = await _within(follow, 20, "no token came")
    if last.get("state") != "token":
        raise Failed(f"the capture ended as {last.get('state')} ({last.get('reason')})")
    caller.say(g711.encode(synth.speechlike(1.0, rng, -18), g711.PCMU))
    await asyncio.sleep(1.4)
    caller.hang_up()
    await _within(desk.ended.wait(), 5, "the agent's phone was not told of the end")
    line.say("caller", "hangs up")
    if not caller.media.heard:
        raise Failed("the caller heard nothing of the agent")
    return (caller.sent_audio(), desk.heard_audio()), _relay_times(caller, desk)


def _follow(site: Site, capture: str, line: Line) -> dict[str, Any]:
    """Print what the agent sees; returns the last event."""
    names = {"pan": "card number", "expiry": "expiry date", "cvv": "security code"}
    event: dict[str, Any] = {}
    for event in site.events(capture):
        if event["field"]:
            count = event["digits_received"]
            extra = " ".join(str(event[key]) for key in ("brand", "last4") if key in event)
            words = f"{count} digit{'' if count == 1 else 's'} received"
            if count:
                ready = f"  ✓ {extra}" if event["state"] == "complete" else ""
                line.say("screen", f"{names[event['field']]:<13} {'●' * count:<16} {words}{ready}".rstrip())
        elif event["state"] == "token":
            line.say("screen", f"token {event['token']}  ({event.get('brand')} ending in {event.get('last4')})")
        else:
            wording = {"keying": "waiting for the caller's keys", "complete": "all fields received"}
            text = wording.get(event["state"], f"{event['state']} {event.get('reason', '')}")
            line.say("screen", text.rstrip())
    return event


async def _within(what: Any, seconds: float, otherwise: str) -> Any:
    try:
        return await asyncio.wait_for(what, seconds)
    except TimeoutError:
        raise Failed(otherwise) from None


def _relay_times(caller: Phone, desk: Phone) -> list[float]:
    """ms from a caller's packet leaving to the agent's coming, by timestamp (the box's clock offset is constant)."""
    if not desk.media.heard or not caller.media.sent:
        raise Failed("the agent heard nothing of the caller")
    offset = desk.media.heard[0].timestamp - caller.media.sent[0].timestamp
    left = {packet.timestamp: packet.at for packet in caller.media.sent}
    times = [
        1000 * (packet.at - left[packet.timestamp - offset])
        for packet in desk.media.heard
        if packet.timestamp - offset in left
    ]
    return times


def _look_back_ms(sent: NDArray[np.uint8], heard: NDArray[np.uint8]) -> float:
    """The shift at which most octets are the same, in ms: measured, not assumed."""
    n = min(len(sent), len(heard)) - 400
    loud = sent[:n] != g711.SILENCE[g711.PCMU]
    return max(range(400), key=lambda d: int((heard[d : d + n] == sent[:n])[loud].sum())) / 8


def _attack() -> attacker.Verdict:
    """A longer run of test keys through the same leg, and the attacker on what comes out."""
    rng = np.random.default_rng(23)
    digits = rng.integers(0, 10, ATTACK_KEYS)
    each = ATTACK_KEYS // _STREAMS
    streams, marks = [], []
    for i in range(_STREAMS):
        presses = [
            synth.Press(
                keypad.KEYS.index(str(digit)), rng.uniform(50, 110), rng.uniform(-20, -6), rng.uniform(-6, 4),
                rng.uniform(-0.015, 0.015), rng.uniform(-0.015, 0.015),
            )
            for digit in digits[i * each : (i + 1) * each]
        ]  # fmt: skip
        audio, where = synth.keying(presses, rng, noise_dbm0=-55)
        streams.append(g711.encode(audio, g711.PCMU))
        marks.append(where)
    length = max(map(len, streams))
    sent = np.full((_STREAMS, length), g711.SILENCE[g711.PCMU], np.uint8)
    for row, stream in zip(sent, streams, strict=True):
        row[: len(stream)] = stream
    heard = offline.mask_many(sent).octets
    verdicts = [
        attacker.attack(sent[i], heard[i], digits[i * each : (i + 1) * each], marks[i], 64, (FLAT_HZ, FLAT_DBM0))
        for i in range(_STREAMS)
    ]
    means = [statistics.fmean(getattr(v, name) for v in verdicts) for name in ("masked", "unmasked", "residue")]
    return attacker.Verdict(means[0], means[1], means[2], ATTACK_KEYS)


def _report(out: Path, sent: NDArray[np.uint8], heard: NDArray[np.uint8], relay: list[float]) -> None:
    print("\nrecordings")
    found = sorted(out.glob("*.wav"), key=lambda path: path.stat().st_mtime)[-2:]
    if len(found) != 2:
        raise Failed("the two recordings are not there")
    for path in found:
        verdict = look(str(path), Options(seed=None))
        print(f"  {path}  scan: {verdict.state}")
        if verdict.state != "clean":
            raise Failed("a recording is not clean")
    if verify.run([str(path) for path in found]) != 0:
        raise Failed("a recording is not what its manifest says")
    raw = out / "caller-unmasked-test-card.wav"
    wav.write(raw, g711.DECODE_INT16[g711.PCMU][sent])
    verdict = look(str(raw), Options(seed=None))
    raw.unlink()
    print(f"  (control: the caller's own sound, before the mask, scans {verdict.state}: {verdict.keys} keys found)")
    if verdict.state != "dirty" or verdict.keys < 20:
        raise Failed("the scanner did not see the keys of the control")
    print("\nattacker who knows the method, on a longer run of test keys through the same leg")
    result = _attack()
    chance = f"chance 10 % ± {100 * result.margin:.1f}"
    print(f"  behind the mask  {100 * result.masked:5.1f} %  of {result.keys} keys ({chance})")
    print(
        f"  controls         {100 * result.unmasked:5.1f} %  unmasked, {100 * result.residue:.1f} % from 2 ms of tone"
    )
    if not result.valid:
        raise Failed("the attacker's controls did not hold, so its figure means nothing")
    if result.masked > attacker.CHANCE + 2 * result.margin:
        raise Failed("the attacker does better than chance")
    cuts = statistics.quantiles(relay, n=100)
    print("\nadded delay")
    look_back = _look_back_ms(sent, heard)
    print(f"  look-back        {look_back:5.1f} ms  (measured: where the agent's octets equal the caller's)")
    print(f"  tick and relay   {cuts[49]:5.1f} ms  median, {cuts[98]:.1f} ms p99, {len(relay)} packets")
    print(f"  in all           {look_back + cuts[49]:5.1f} ms  median")
    image = out / "what-the-agent-heard.png"
    end = min(len(sent), len(heard))
    picture.draw(image, sent[:end], heard[:end])
    print(f"\npicture  {image}")
