"""sipp -> flattone -> sipp: real SIP and RTP, a real HTTPS gateway, an attacker on what the agent side received."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import numpy as np
import pytest

from dsp import g711, keypad, synth
from mediaproxy.demo import attacker
from mediaproxy.demo.phone import Phone, Sent
from mediaproxy.demo.site import Site, free_port
from tests.fixtures import keyed, sipp
from tests.fixtures.listener import Listener, Packet
from tests.fixtures.live import capture, read_metrics
from tests.fixtures.sipp import Sipp

pytestmark = pytest.mark.interop
FLAT = (540.0, -18.0)
EXPIRY = f"12{(time.gmtime().tm_year + 2) % 100:02d}"


def tones(keys: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A second of noise to align by, then the keys: (µ-law, marks)."""
    rng = np.random.default_rng(seed)
    presses = [
        synth.Press(
            keypad.KEYS.index(k),
            rng.uniform(60, 100),
            rng.uniform(-14, -7),
            rng.uniform(-5, 3),
            *rng.uniform(-0.012, 0.012, 2),
        )
        for k in keys
    ]
    audio, marks = synth.keying(presses, rng, (70, 120), 1000, -50)
    audio[:7200] += rng.normal(0, 0.02, 7200).astype(np.float32)
    octets = g711.encode(audio, g711.PCMU)
    return np.concatenate([octets, np.full(-len(octets) % 160, 0xFF, np.uint8)]), marks


def align(sent: np.ndarray, heard: np.ndarray) -> int:
    """Where in `heard` the first second of `sent` lies. The leg is armed, so only what is outside the keypad's band is
    still the same: the lag of the highest correlation."""
    piece = g711.decode(sent[800:4000], g711.PCMU).astype(np.float64)
    audio = g711.decode(heard, g711.PCMU).astype(np.float64)
    size = len(audio) + len(piece)
    match = np.fft.irfft(np.fft.rfft(audio, size) * np.conj(np.fft.rfft(piece, size)), size)[800 : len(audio) - 3200]
    best = int(match.argmax())
    found = audio[best + 800 : best + 4000]
    assert piece @ found > 0.5 * np.sqrt((piece @ piece) * (found @ found))
    return best


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
@pytest.mark.parametrize("method", ["in-band", "rfc4733", "info"])
def test_a_keyed_card_becomes_a_token_and_the_agent_side_gets_nothing(
    tmp_path: Path, direction: str, method: str
) -> None:
    card = keyed.card(np.random.default_rng([len(direction), len(method)]))
    keys = card + EXPIRY + "737"
    octets, marks = tones(keys, 5)
    (tmp_path / "keys.ulaw").write_bytes(octets.tobytes())
    seconds = len(octets) / 8
    ports = free_port(), free_port()
    caller_media, callee_media = 12000 + free_port() % 1000 * 2, 15000 + free_port() % 700 * 2
    with Listener() as ear, Site(tmp_path, tmp_path, *ports) as site:
        user = "carrier"
        actions = {
            "in-band": sipp.pause(1500) + sipp.stream(tmp_path / "keys.ulaw") + sipp.pause(int(seconds) + 1500),
            "rfc4733": sipp.pause(1500) + sipp.event_keys(keys) + sipp.pause(1500),
            "info": sipp.pause(1500) + sipp.info_keys(keys, user, uas=direction == "outbound") + sipp.pause(1500),
        }[method]
        if direction == "inbound":
            answers = sipp.callee(media_port=str(ear.port))
            calls = sipp.caller(actions, user)
            first, second, remote = ports[1], ports[0], site.trunk
        else:
            answers = sipp.callee(actions, user)
            calls = sipp.caller(
                sipp.pause(int({"in-band": seconds, "rfc4733": 470 * 23, "info": 270 * 23}[method]) + 4200),
                "204",
                str(ear.port),
            )
            first, second, remote = ports[0], ports[1], site.agent
        with (
            Sipp(tmp_path, "callee", answers, first, callee_media) as uas,
            Sipp(tmp_path, "caller", calls, second, caller_media, remote, service="204") as uac,
        ):
            last = capture(site, "204")
            uac.finish()
            uas.finish()
        assert last["state"] == "token", json.dumps(last) + str(
            [e for e in read_metrics(site).items() if "media" in e[0] or "vault" in e[0]]
        )
        assert last["last4"] == card[-4:]
        time.sleep(0.3)
        assert site.request("GET", "/v1/calls")[1] == {"calls": [], "next": None}
        log = site.log.read_text()
        assert site.stop() == 0
    assert '"level":"error"' not in log.replace(" ", "")
    assert card not in log
    assert {p.payload_type for p in ear.packets} <= {0}
    heard = ear.audio()
    flat = attacker.flat_tone(heard, *FLAT) if len(heard) else np.zeros(0, bool)
    if method == "in-band":
        lag = align(octets, heard) - 64
        digits = np.array([int(k) for k in keys])
        heard = (
            np.concatenate([heard[lag:], np.full(4000, 0xFF, np.uint8)])
            if lag >= 0
            else np.concatenate([np.full(-lag, 0xFF, np.uint8), heard])
        )
        verdict = attacker.attack(octets, heard, digits, marks, 64, FLAT)
        assert verdict.valid, verdict
        assert verdict.masked <= 0.1 + 3.3 * np.sqrt(0.09 / len(keys))
        residue = ~attacker.flat_tone(heard, *FLAT)
        assert not any(residue[start + 64 : end + 64].any() for start, end in marks)
    else:
        assert flat.all()  # whatever came is flat tone or silence, to the octet: nothing to name
        assert method == "info" or flat.sum() > 23 * 1000
    recordings = list(tmp_path.glob("*.wav"))
    assert len(recordings) == 1


def test_fifty_concurrent_calls_with_media_lose_nothing(tmp_path: Path) -> None:
    """50 sipp calls, and one more from a phone that notes when each of its packets leaves."""
    ports = free_port(), free_port()
    rng = np.random.default_rng(1)
    (tmp_path / "talk.ulaw").write_bytes(g711.encode(synth.speechlike(10, rng), g711.PCMU).tobytes())
    with Listener() as ear, Site(tmp_path, tmp_path, *ports) as site:
        talk = sipp.stream(tmp_path / "talk.ulaw") + sipp.pause(10600)
        answers = sipp.callee(media_port=str(ear.port))
        load = ["-l", "50", "-r", "25"]
        with (
            Sipp(tmp_path, "callee", answers, ports[1], 17000, calls=51) as uas,
            Sipp(tmp_path, "caller", sipp.caller(talk), ports[0], 18500, site.trunk, calls=50, options=load) as uac,
        ):
            time.sleep(3)
            live = site.request("GET", "/v1/calls")[1]["calls"]
            sent = asyncio.run(timed_call(site))
            uac.finish()
            uas.finish()
        assert len(live) == 50
        time.sleep(2.5)
        metrics = read_metrics(site)
    streams: dict[int, list[Packet]] = {}
    for packet in ear.packets:
        streams.setdefault(packet.ssrc, []).append(packet)
    assert len(streams) == 51
    for packets in streams.values():
        assert [(p.sequence - packets[0].sequence) % 65536 for p in packets] == list(range(len(packets)))
    assert sorted(len(packets) for packets in streams.values())[1] >= 498  # 10 s of 20 ms
    mine = next(packets for packets in streams.values() if mark(packets[20].payload))
    offset = mine[0].timestamp - sent[0].timestamp
    left = {packet.timestamp: packet.at for packet in sent}
    relay = [
        1000 * (p.at - left[(p.timestamp - offset) % 2**32]) for p in mine if (p.timestamp - offset) % 2**32 in left
    ]
    assert len(relay) >= 150
    assert metrics['flattone_media_lost_total{worker="media-0"}'] == 0
    assert metrics['flattone_media_overflow_total{worker="media-0"}'] == 0
    p50, p99 = np.percentile(relay, [50, 99])
    print(f"added relay time at 50 calls: median {p50:.1f} ms, p99 {p99:.1f} ms, {len(relay)} packets")


async def timed_call(site: Site) -> list[Sent]:
    """Four seconds of a loud square wave, unlike anything else on the wire."""
    phone = Phone("timed")
    await phone.open()
    phone.call("204", site.trunk)
    await asyncio.wait_for(phone.established.wait(), 5)
    phone.say(np.tile(np.repeat(np.array([0x80, 0x00], np.uint8), 40), 400))
    await asyncio.sleep(4.2)
    phone.hang_up()
    await asyncio.sleep(0.1)
    phone.close()
    return phone.media.sent


def mark(payload: bytes) -> bool:
    return payload.count(0x80) + payload.count(0x00) >= 150


def test_a_full_box_sheds_with_503_and_a_time_to_come_back(tmp_path: Path) -> None:
    """The calls that are up go on; an emergency is taken all the same."""
    ports = free_port(), free_port()
    refused = sipp.caller("", code=503).replace(
        '<recv response="503"/>',
        '<recv response="503"><action><ereg regexp="^ *[0-9]+ *$" search_in="hdr" header="Retry-After:" check_it="true" '
        'assign_to="1"/></action></recv><Reference variables="1"/>',
    )
    with Site(tmp_path, tmp_path, *ports, calls=4, record=False) as site:
        talk = sipp.caller(sipp.pause(4000))
        with (
            Sipp(tmp_path, "callee", sipp.callee(), ports[1], 17000, calls=5) as uas,
            Sipp(
                tmp_path, "caller", talk, ports[0], 18500, site.trunk, calls=4, options=["-l", "4", "-r", "20"]
            ) as uac,
        ):
            time.sleep(1)
            with Sipp(tmp_path, "late", refused, free_port(), 19500, site.trunk) as late:
                late.finish(20)
            with Sipp(tmp_path, "urgent", talk, free_port(), 19900, site.trunk, service="112") as urgent:
                urgent.finish(20)
            uac.finish(20)
            uas.finish(20)
        time.sleep(1.5)
        assert read_metrics(site)['flattone_signalling_shed_total{worker="signalling"}'] == 1
    assert '"call-refused"' in site.log.read_text()
