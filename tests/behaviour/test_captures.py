"""Captures on live calls, as agents and callers use them: prompts, muted speech, templates, receipts, tries."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsp import g711, synth
from mediaproxy import wav
from mediaproxy.demo import certificates
from tests.fixtures import gateways, live
from tests.fixtures.live import CARD, CVV, EXPIRY, Live

WRONG = CARD[:-1] + str((int(CARD[-1]) + 1) % 10)
NAMES = ("pan", "expiry", "cvv", "invalid", "muted", "done")


def prompts(directory: Path) -> tuple[str, dict[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    """A set of prompts, each a noise of its own below the keypad's band, and its lines of configuration."""
    audio, lines = {}, ["[prompts.en]"]
    for i, name in enumerate(NAMES):
        noise = np.random.default_rng(900 + i).normal(size=6400 if name == "pan" else 2400)
        spectrum = np.fft.rfft(noise)
        frequencies = np.fft.rfftfreq(len(noise), 1 / 8000)
        spectrum[(frequencies < 100) | (frequencies > 400)] = 0
        shaped = np.fft.irfft(spectrum, len(noise))
        audio[name] = (0.15 * shaped / shaped.std()).astype(np.float32)
        wav.write(directory / f"{name}.wav", (audio[name] * 32767).astype(np.int16))
        lines.append(f'{name} = "{directory / name}.wav"')
    return "\n".join(lines), audio


def heard(packets: list[Any]) -> Any:
    return g711.decode(np.frombuffer(b"".join(p.octets for p in packets), np.uint8), g711.PCMU)


def share(said: Any, prompt: Any) -> float:
    """How much of `prompt` is in `said`, at the best place: 1 where it is there as it is."""
    if len(said) < len(prompt):
        return 0.0
    return float(np.correlate(said, prompt, "valid").max() / np.dot(prompt, prompt))


def run(scenario: Any) -> None:
    asyncio.run(scenario)


@pytest.mark.parametrize("to_agent", [False, True])
def test_the_caller_is_told_what_to_key_and_keying_ends_the_prompt(tmp_path: Path, to_agent: bool) -> None:
    more, audio = prompts(tmp_path)
    policy = 'prompts = "en"\n' + ("prompts_to_agent = true" if to_agent else "")

    async def scenario() -> None:
        async with live.call(tmp_path, settings={"inbound": policy, "more": more}) as up:
            capture = await up.start()
            await asyncio.sleep(1.2)
            for keys in (WRONG, CARD, EXPIRY, CVV):
                up.key(keys)
                await up.silent()
                await asyncio.sleep(1.4)
            assert (await up.ended(capture))["state"] == "token"
            await asyncio.sleep(0.6)
            caller, agent = heard(up.caller.media.heard), heard(up.desk.media.heard)
            found = {name: share(caller, prompt) for name, prompt in audio.items()}
            print(found)
            assert all(found[name] > 0.9 for name in NAMES if name != "muted"), found
            assert found["muted"] < 0.5
            overheard = share(agent, audio["expiry"])
            assert overheard > 0.42 if to_agent else overheard < 0.35
            assert up.leaked() == []
            assert len({packet.ssrc for packet in up.caller.media.heard}) == 1  # they rode on the agent's packets

    run(scenario())


def test_a_prompt_ends_when_the_caller_keys_and_is_heard_though_the_agent_sends_nothing(tmp_path: Path) -> None:
    more, audio = prompts(tmp_path)

    async def scenario() -> None:
        async with live.call(tmp_path, settings={"inbound": 'prompts = "en"', "more": more}) as up:
            capture = await up.start()
            up.key(CARD[0])
            await up.silent()
            await asyncio.sleep(1)
            assert share(heard(up.caller.media.heard), audio["pan"]) < 0.8  # it was cut short
            assert up.desk._talking is not None
            up.desk._talking.cancel()  # the agent's phone falls silent
            await asyncio.sleep(0.2)
            before = len(up.caller.media.heard)
            await up.api("POST", f"/v1/captures/{capture}/fields/pan/reset")
            await asyncio.sleep(1.5)
            packets = up.caller.media.heard[before:]
            assert share(heard(packets), audio["pan"]) > 0.9
            gaps = np.diff([p.at for p in packets])
            assert len(packets) == len(audio["pan"]) // 160
            assert abs(float(np.mean(gaps)) - 0.02) < 0.004
            assert np.unique(np.diff([p.timestamp for p in packets]).astype(np.uint32)).tolist() == [160]

    run(scenario())


def test_the_agent_hears_no_speech_while_what_must_not_be_read_aloud_is_keyed(tmp_path: Path) -> None:
    more, audio = prompts(tmp_path)
    policy = 'prompts = "en"\nspeech = "announced"\nmute_recording = true'

    async def scenario() -> None:
        async with live.call(tmp_path, settings={"inbound": policy, "more": more}) as up:
            speech = g711.encode(synth.speechlike(1.0, np.random.default_rng(3), -18), g711.PCMU)

            async def loud(desk_too: bool = False) -> float:
                before = len(up.desk.media.heard)
                up.caller.say(speech)
                if desk_too:
                    up.desk.say(speech)
                await up.silent()
                await asyncio.sleep(0.3)
                samples = heard(up.desk.media.heard[before:])
                return float(np.sqrt(np.mean(samples**2)))

            usual = await loud()
            capture = await up.start()
            _, shown = await up.api("GET", f"/v1/captures/{capture}")
            await asyncio.sleep(0.2)
            began = time.time()
            assert await loud(desk_too=True) < usual / 50
            _, shown = await up.api("GET", f"/v1/captures/{capture}")
            assert shown["speech"] == "announced"
            assert share(heard(up.caller.media.heard), audio["muted"]) > 0.9
            before = len(up.desk.media.heard)
            up.key(CARD)
            await up.silent()
            flat = heard(up.desk.media.heard[before:])
            assert np.sqrt(np.mean(flat**2)) > 0.01  # the keys' flat tones are heard
            await asyncio.sleep(1)
            muted = time.time() - began
            assert (await up.api("GET", f"/v1/captures/{capture}"))[1]["speech"] == "off"
            assert await loud() > usual / 3  # the expiry date: substitution, but not silence
            up.key(EXPIRY)
            await up.silent()
            await asyncio.sleep(0.8)
            assert await loud() < usual / 50
            up.key(CVV)
            assert (await up.ended(capture))["state"] == "token"
            events = await asyncio.to_thread(lambda: list(up.site.events(capture)))
            assert [e["speech"] for e in events if "speech" in e] == ["announced", "off", "announced", "off"]
            await asyncio.sleep(0.5)
            assert await loud() > usual / 2
            assert up.leaked() == []
            up.caller.hang_up()
            await asyncio.wait_for(up.desk.ended.wait(), 5)
            await asyncio.sleep(1.5)
            (recording,) = tmp_path.glob("*_*.wav") if list(tmp_path.glob("*_*.wav")) else [
                p for p in tmp_path.glob("*.wav") if p.stem not in NAMES
            ]  # fmt: skip
            both, _ = wav.read(recording)
            still = (
                np.abs(both).max(axis=0).reshape(-1)[: both.shape[1] // 800 * 800].reshape(-1, 800).max(axis=1) < 0.002
            )
            longest = max((len(part) for part in "".join("x" if s else " " for s in still).split()), default=0)
            assert longest * 0.1 > muted * 0.8, (longest, muted)  # both ways, for all of the card number

    run(scenario())


def test_only_the_callers_keys_count(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            capture = await up.start()
            up.desk.key_events("4111")
            tones = synth.keying([synth.Press(i, 80, -9, -2) for i in (4, 0, 0, 0)], np.random.default_rng(1))[0]
            up.desk.say(g711.encode(tones, g711.PCMU))
            await asyncio.sleep(2.5)
            _, shown = await up.api("GET", f"/v1/captures/{capture}")
            assert [f["digits_received"] for f in shown["fields"]] == [0, 0, 0]
            assert up.caller.media.events_heard > 0  # they go where the agent meant them to go

    run(scenario())


def test_a_capture_starts_with_the_answer_where_the_route_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path, settings={"inbound": 'start = "answer"'}) as up:
            deadline = time.monotonic() + 5
            capture = None
            while capture is None and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                (shown,) = (await up.api("GET", "/v1/calls"))[1]["calls"]
                capture = shown["capture"]
            assert capture
            up.key(CARD + EXPIRY + CVV)
            assert (await up.ended(capture))["state"] == "token"
            await asyncio.sleep(1)
            (shown,) = (await up.api("GET", "/v1/calls"))[1]["calls"]
            assert (shown["capture"], shown["mode"]) == (None, "guarded")  # one is enough

    run(scenario())


BANK = """
[[field]]
name = "sort-code"
least = 6
most = 6

[[field]]
name = "account"
least = 6
most = 10
mute = true

[[template]]
name = "direct-debit"
fields = ["sort-code", "account"]
gateway = "bank"
"""


def other(server: gateways.Server, pem: tuple[Path, Path, Path], bearer: Path, name: str, lines: str = "") -> str:
    return f"""
[[gateway]]
name = "{name}"
url = "{server.url}/x"
ca_file = "{pem[0]}"
bearer_file = "{bearer}"
{lines}
"""


@pytest.fixture
def pem(tmp_path: Path) -> tuple[Path, Path, Path]:
    (tmp_path / "other").mkdir()
    return certificates.make(tmp_path / "other")


@pytest.fixture
def bearer(tmp_path: Path) -> Path:
    (tmp_path / "other" / "bearer").write_text("s3cret")
    return tmp_path / "other" / "bearer"


def test_a_template_has_its_own_fields_and_gateway(tmp_path: Path, pem: Any, bearer: Path) -> None:
    async def scenario() -> None:
        with gateways.server(pem) as bank:
            bank.answers = [(200, {"token": "mandate_a"})]
            shape = 'body = { bank = { sort = "{sort-code}", number = "{account}" } }'
            more = BANK + other(bank, pem, bearer, "bank", shape)
            settings = {"inbound": 'templates = ["direct-debit"]', "more": more}
            async with live.call(tmp_path, settings=settings) as up:
                for wrong in (
                    {"template": "none"},
                    {"fields": ["account"]},
                    {"template": "direct-debit", "fields": ["pan"]},
                ):
                    status, body = await up.api("POST", "/v1/captures", {"call": {"extension": "204"}} | wrong)
                    assert (status, body["title"] in ("template", "fields")) == (422, True), wrong
                capture = await up.start(template="direct-debit")
                up.key("401276")
                await up.silent()
                up.key("1234567#")
                last = await up.ended(capture)
                assert (last["state"], last["token"]) == ("token", "mandate_a")
                assert bank.requests[-1].json == {"bank": {"sort": "401276", "number": "1234567"}}
                assert "1234567" not in up.files()

    run(scenario())


def test_a_receipt_is_signed_and_sent_until_it_is_taken(tmp_path: Path, pem: Any, bearer: Path) -> None:
    async def scenario() -> None:
        with gateways.server(pem) as crm:
            crm.answers = [(500, {}), None, (204, b"")]
            hook = f'[[webhook]]\nname = "crm"\nurl = "{crm.url}/receipts"\nca_file = "{pem[0]}"\nsecret_file = "{bearer}"\n'
            bearer.write_text("sixteen or more letters")
            async with live.call(tmp_path, settings={"inbound": 'webhook = "crm"', "more": hook}) as up:
                capture = await up.start()
                up.key(CARD + EXPIRY + CVV)
                last = await up.ended(capture)
                deadline = time.monotonic() + 10
                while len(crm.requests) < 3 and time.monotonic() < deadline:
                    await asyncio.sleep(0.1)
                assert len(crm.requests) == 3
                for request in crm.requests:
                    receipt = request.json
                    at = receipt.pop("at")
                    assert abs(at - time.time()) < 20
                    (call,) = (await up.api("GET", "/v1/calls"))[1]["calls"]
                    assert receipt == {
                        "id": capture, "call": call["id"], "correlation": call["correlation"], "route": "inbound",
                        "state": "token", "token": last["token"], "brand": "visa", "last4": CARD[-4:],
                    }  # fmt: skip
                    stamp, _, given = request.headers["flattone-signature"].partition(",v1=")
                    text = f"{stamp.removeprefix('t=')}.{request.body}".encode()
                    assert hmac.digest(b"sixteen or more letters", text, "sha256").hex() == given
                    assert CARD not in request.body
                await asyncio.sleep(1)
                assert len(crm.requests) == 3

    run(scenario())


def test_after_a_decline_the_caller_can_try_again_and_nothing_is_kept(tmp_path: Path, pem: Any, bearer: Path) -> None:
    async def scenario() -> None:
        with gateways.server(pem) as merchant:
            merchant.answers = [(402, {}), (200, {"token": "tok_b"})]
            more = other(merchant, pem, bearer, "other")
            settings = {"outbound": "", "inbound": "", "more": more + TEMPLATE}
            settings["inbound"] = 'templates = ["card"]'
            async with live.call(tmp_path, settings=settings) as up:
                for state, reason in (("failed", "declined"), ("token", None)):
                    capture = await up.start(template="card")
                    up.key(CARD)
                    last = await up.ended(capture)
                    assert (last["state"], last.get("reason")) == (state, reason)
                keys = [request.headers["idempotency-key"] for request in merchant.requests]
                assert len(set(keys)) == 2

    run(scenario())


TEMPLATE = '[[template]]\nname = "card"\nfields = ["pan"]\ngateway = "other"\n'


async def step(up: Live, capture: str, when: str) -> None:
    """Bring a capture to where the vault is to be killed."""
    if when == "started":
        return
    if when == "submitting":
        up.site._processes[0].send_signal(signal.SIGSTOP)  # the gateway has not answered yet
    up.key(CARD[:7] if when == "keying" else CARD + EXPIRY + (CVV if when in ("submitting", "ended") else ""))
    await up.silent()
    if when == "ended":
        await up.ended(capture)
    await asyncio.sleep(0.05 if when == "submitting" else 0.3)


@pytest.mark.parametrize("when", ["started", "keying", "between", "submitting", "ended"])
def test_a_vault_killed_at_any_step_leaves_a_plain_state_and_one_token_a_capture(tmp_path: Path, when: str) -> None:
    """Against the idempotent server: it has never made more tokens than it was asked for by captures."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            capture = await up.start()
            await step(up, capture, when)
            os.kill(up.pid("vault"), signal.SIGKILL)
            await up.until("process-ended", "vault")
            up.site._processes[0].send_signal(signal.SIGCONT)
            last = await up.ended(capture)
            assert last["state"] == ("token" if when == "ended" else "failed")
            assert when == "ended" or last["reason"] in ("vault-restarted", "sealed"), last
            await asyncio.sleep(1)
            (shown,) = (await up.api("GET", "/v1/calls"))[1]["calls"]
            if when != "ended":
                assert shown["mode"] == "sealed"
                assert (await up.api("POST", f"/v1/calls/{shown['id']}/release"))[0] == 202
                await asyncio.sleep(0.3)
            again = await up.start()
            up.key(CARD + EXPIRY + CVV)
            assert (await up.ended(again))["state"] == "token"
            assert up.leaked() == []
            assert CARD not in up.files()
            assert await asyncio.to_thread(up.site.issued) <= 2

    run(scenario())


def test_an_agents_page_is_told_plainly_what_cannot_be_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path, settings={"more": "[capture]\nauto_submit = false\ntries = 2"}) as up:
            capture = await up.start()
            status, body = await up.api("POST", f"/v1/captures/{capture}/submit")
            assert (status, body["title"]) == (409, "not-complete")
            status, _ = await up.api("POST", f"/v1/captures/{capture}/fields/account/reset")
            assert status == 404
            up.key(CARD + EXPIRY + CVV)
            await up.silent()
            await asyncio.sleep(1)
            assert (await up.api("GET", f"/v1/captures/{capture}"))[1]["state"] == "complete"
            assert (await up.api("POST", f"/v1/captures/{capture}/submit"))[0] == 202
            assert (await up.ended(capture))["state"] == "token"
            capture = await up.start()
            for _ in range(2):
                up.key(WRONG)
                await up.silent()
            last = await up.ended(capture)
            assert (last["state"], last["reason"]) == ("failed", "tries")
            assert json.dumps(last).count(WRONG[:6]) == 0

    run(scenario())


def test_keys_during_a_hold_count(tmp_path: Path) -> None:
    """The agent's side puts the caller on hold while armed: it is answered here, and the keys keep coming."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            capture = await up.start()
            up.key(CARD[:8])
            await up.silent()
            assert up.desk._dialog is not None
            hold = up.desk._dialog.request("INVITE")
            body = up.desk._description().replace(b"t=0 0\r\n", b"t=0 0\r\na=sendonly\r\n")
            hold.put_body("application/sdp", body)
            up.desk._layer.send(hold, "phone", up.desk._dialog.peer, time.monotonic())
            up.desk._work(time.monotonic())
            await asyncio.sleep(0.3)
            up.key(CARD[8:] + EXPIRY + CVV)
            last = await up.ended(capture)
            assert last["state"] == "token", last
            assert up.leaked() == []

    run(scenario())
