"""Agents at home: a real browser as phone, from registering to a whole payment, and what may go wrong on the way."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dsp import g711, keypad, synth
from mediaproxy.demo import certificates
from mediaproxy.demo.phone import Phone
from mediaproxy.demo.site import Site, free_port, listening_port
from tests.attacker import played
from tests.behaviour.test_payment_bar import looked_at, sign_in
from tests.fixtures import sipp, softphone, webphone
from tests.fixtures.browser import Window
from tests.fixtures.issuer import Issuer
from tests.fixtures.live import CARD, CVV, EXPIRY, read_log
from tests.fixtures.registrations import register
from tests.fixtures.scenario import Caller, sdp
from tests.fixtures.sipp import Sipp

FLAT_HZ = 540.0
KEY_MS, GAP_MS = 80, 250
PITCH = 8 * (KEY_MS + GAP_MS)


def run(scenario: Any) -> None:
    asyncio.run(scenario)


async def at_desk(window: Window, site: Site) -> None:
    """Signed in, past the notice, the phone registered."""
    await sign_in(window, site.api, site.agent_token)
    await window.until("bar.state === 'notice'")
    await window.press("I understand")
    await webphone.registered(window)


def keyed(digits: str, seed: int) -> NDArray[np.float32]:
    """Keys of 80 ms, at every level and twist that telephones have."""
    rng = np.random.default_rng(seed)
    presses = [synth.Press(keypad.KEYS.index(d), KEY_MS, rng.uniform(-14, -6), rng.uniform(-4, 2)) for d in digits]
    audio, _ = synth.keying(presses, rng, (GAP_MS, GAP_MS), 200, -60)
    return audio


@pytest.mark.interop
@pytest.mark.timeout(240)
def test_a_browser_takes_a_whole_payment_and_hears_no_key(tmp_path: Path) -> None:
    """sipp calls and keys in-band: card, date and code, and then a hundred digits more. What the page has played tells an
    attacker nothing, who names every key of the same audio unmasked."""
    rng = np.random.default_rng(12)
    further = "".join(map(str, rng.permutation(np.repeat(np.arange(10), 10))))
    parts = [keyed(part, i) for i, part in enumerate((CARD, EXPIRY, CVV, further))]
    files = []
    for i, part in enumerate(parts):
        files.append(tmp_path / f"{i}.ul")
        files[i].write_bytes(g711.encode(part, g711.PCMU).tobytes())
    seconds = [len(part) / 8000 for part in parts]
    actions = sipp.pause(7000)
    for file, length in zip(files, seconds, strict=True):
        actions += sipp.stream(file) + sipp.pause(int(1000 * length) + 1500)
    audio: list[NDArray[np.float32]] = []
    ports = free_port(), free_port()

    async def agent(site: Site) -> None:
        async with webphone.opened() as window:
            await at_desk(window, site)
            started.set()
            await webphone.state(window, "ringing", 30)
            await looked_at(window, "phone-ringing")
            await window.page.get_by_role("button", name="Answer").click()
            await webphone.state(window, "talking")
            await webphone.keep(window)
            await window.until("bar.state === 'ready'")
            await looked_at(window, "phone-talking")
            await window.press("Take payment")
            await window.until("bar.fields.pan?.dots > 3", 30)
            await window.shot("phone-keying")
            bar = await window.until("bar.state === 'token'", 40)
            assert CARD not in await window.page.content() + str(bar)
            await window.shot("phone-token")
            await webphone.state(window, "idle", seconds[3] + 20)
            audio.append(await webphone.kept(window))

    started = asyncio.Event()

    async def scenario() -> None:
        with Site(tmp_path, tmp_path, *ports, settings=webphone.settings(tmp_path)) as site:

            async def call() -> None:
                await started.wait()
                media = 12000 + free_port() % 1000 * 2
                with Sipp(
                    tmp_path, "uac", sipp.caller(actions), ports[0], media, site.trunk, options=("-timeout", "150s")
                ) as caller:
                    await asyncio.to_thread(caller.finish, 150)

            calling = asyncio.create_task(call())
            await agent(site)
            await calling
            assert site.issued() == 1

    run(scenario())
    heard = played.narrow(audio[0], softphone.RATE)
    where, which = played.grouped(
        played.presses(heard, FLAT_HZ), [len(CARD), len(EXPIRY), len(CVV), len(further)], PITCH
    )
    last = which >= len(CARD + EXPIRY + CVV)  # of a card's own digits not each is as likely
    digits = np.array([int(d) for d in further])
    assert last.sum() == len(digits)
    named = played.attack(heard, [one for one, late in zip(where, last, strict=True) if late], digits)
    open_ = played.through_opus(g711.encode(parts[3], g711.PCMU))
    unmasked = played.attack(open_, played.presses(open_, 0), digits)
    assert unmasked.share >= 0.99, unmasked
    assert named.worst <= named.bound(), named


@pytest.mark.interop
@pytest.mark.timeout(120)
def test_the_phone_beside_the_bar_mutes_holds_declines_and_dials(tmp_path: Path) -> None:
    """A caller of sipp sees the hold and its end; the next one is declined; then the agent calls out."""
    ports = free_port(), free_port()
    first = Caller("caller")
    first.invite().ringing().answered()
    first.expect("INVITE", "a=(sendonly|inactive)").reply("200 OK", sdp("a=recvonly", 2)).expect("ACK")
    first.expect("INVITE", lacks=("a=(sendonly|inactive)",)).reply("200 OK", sdp("", 3)).expect("ACK")
    first.expect("BYE").reply("200 OK")
    second = Caller("caller")
    second.invite().ringing().expect(603).request("ACK", 1, refused=True)

    async def scenario() -> None:
        with Site(tmp_path, tmp_path, *ports, settings=webphone.settings(tmp_path)) as site:
            async with webphone.opened(webphone.write(tmp_path / "voice.wav", webphone.beeps(1000.0))) as window:
                await at_desk(window, site)
                page = window.page
                with Sipp(tmp_path, "first", first.xml(), ports[0], 18500, site.trunk) as caller:
                    await webphone.state(window, "ringing", 15)
                    assert await page.get_by_role("button", name="Call", exact=True).is_hidden()
                    assert "☎" in await page.title()
                    await page.get_by_role("button", name="Answer").press("Enter")
                    await webphone.state(window, "talking")
                    assert "☎" not in await page.title()
                    await page.get_by_role("button", name="Hold").click()
                    await page.get_by_text("On hold").wait_for()
                    await looked_at(window, "phone-hold")
                    await page.get_by_role("button", name="Hold").click()
                    await page.get_by_text("Connected").wait_for()
                    await page.get_by_role("button", name="Hang up").click()
                    await asyncio.to_thread(caller.finish, 15)
                await webphone.state(window, "idle")
                with Sipp(tmp_path, "second", second.xml(), ports[0], 18500, site.trunk) as caller:
                    await webphone.state(window, "ringing", 15)
                    await page.get_by_role("button", name="Decline").click()
                    await asyncio.to_thread(caller.finish, 15)
                await webphone.state(window, "idle")
                callee = Phone("callee", answers=True)
                await callee.open(ports[0])
                await page.get_by_label("Number").fill("+49 (30) 123-45")
                await page.get_by_role("button", name="Call", exact=True).click()
                await webphone.state(window, "talking")
                await loud(callee, True)
                await page.get_by_role("button", name="Mute").click()
                await page.get_by_text("Microphone off").wait_for()
                await loud(callee, False)
                await page.get_by_role("button", name="Mute").click()
                await loud(callee, True)
                page.on("dialog", lambda dialog: dialog.accept())  # a page in a call asks before it goes
                await page.reload()
                await asyncio.wait_for(callee.ended.wait(), 5)
                callee.close()
                await webphone.registered(window)

    run(scenario())


async def loud(phone: Phone, wanted: bool) -> None:
    """Wait until the last half second that came is loud, or is not."""
    async with asyncio.timeout(10):
        while True:
            phone.media.heard.clear()
            await asyncio.sleep(0.5)
            audio = g711.decode(phone.heard_audio(), g711.PCMU)
            if len(audio) > 3000 and (audio[1000:].std() > 0.05) == wanted:
                return


async def status(stream: Any, number: str, token: str) -> str:
    """What a registrar says to this token for that number."""
    await stream.send(register(number, token, "127.0.0.1", secrets.token_hex(8)))
    answer = str(await asyncio.wait_for(stream.recv(), 5))
    return answer.split()[1]


def frame(text: str) -> bytes:
    """A WebSocket frame of text, masked with zeros (RFC 6455 section 5.2)."""
    data = text.encode()
    return b"\x81" + bytes([0x80 | 126]) + len(data).to_bytes(2, "big") + bytes(4) + data


def pings_without_end(port: int, context: ssl.SSLContext) -> None:
    """Send 60 MB of pings and read no answer. Raises OSError where the connection is ended."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain) as stream:
        key = base64.b64encode(bytes(16)).decode()
        stream.sendall(
            f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sip\r\n\r\n".encode()
        )
        stream.recv(4096)
        ping = (b"\x89" + bytes([0x80 | 125]) + bytes(4) + b"p" * 125) * 1000
        for _ in range(460):
            stream.sendall(ping)


@pytest.mark.timeout(60)
def test_who_may_not_register_or_talk_nonsense_hurts_nobody(tmp_path: Path) -> None:
    """Tokens that have ended, are somebody else's or nobody's; no subprotocol, other origins, messages without end,
    octets that are no TLS: each is refused by itself, and a browser that registered before stays registered."""
    (tmp_path / "idp").mkdir()
    wss = listening_port()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def opened(**more: Any) -> Any:
        options = {"ssl": context, "subprotocols": ["sip"], "origin": "https://crm.example.com"} | more
        return connect(f"wss://127.0.0.1:{wss}", **options)

    async def ended(stream: Any) -> None:
        await asyncio.wait_for(stream.wait_closed(), 5)

    async def scenario(idp: Issuer) -> None:
        settings = webphone.settings(
            tmp_path, wss, websocket='origins = ["https://crm.example.com"]\n', more=idp.config("leeway_seconds = 0")
        )
        with Site(tmp_path, tmp_path, free_port(), free_port(), settings=settings) as site:
            async with opened() as good:
                assert await status(good, "204", site.agent_token) == "200"
                for refused in ({"subprotocols": None}, {"origin": "https://evil.example.com"}):
                    with pytest.raises(InvalidStatus):
                        async with opened(**refused):
                            pass
                async with opened() as stream:
                    assert await status(stream, "204", idp.token(exp=int(time.time()) - 5)) == "401"
                    assert await status(stream, "205", idp.token()) == "403"
                    assert await status(stream, "204", site.token) == "403"  # a supervisor's, for every number
                    for _ in range(2):
                        await status(stream, "204", "made-up")
                    await ended(stream)
                async with opened() as stream:  # a hundred guesses in one segment
                    head = b"".join(frame(register("204", "x", "127.0.0.1", str(i) * 8)) for i in range(100))
                    stream.transport.write(head)
                    answers = [str(await asyncio.wait_for(stream.recv(), 5)).split()[1] for _ in range(100)]
                    assert answers.count("503") == 99  # one token is looked at, the others may come again
                async with opened() as stream:
                    await stream.send("hello")
                    await stream.send(b"\xff\x00" * 500)
                    assert await status(stream, "204", idp.token(exp=int(time.time()) + 2)) == "200"
                    await asyncio.sleep(2.5)
                    assert await status(stream, "204", idp.token()) == "200"
                async with opened() as stream:
                    with contextlib.suppress(ConnectionClosed):
                        await stream.send("INVITE " + "x" * 2_000_000)
                    await ended(stream)
                async with opened() as stream:
                    with contextlib.suppress(ConnectionClosed):
                        await stream.send("x" * 8000 for _ in range(1000))
                    await ended(stream)
                with pytest.raises((ConnectionError, ssl.SSLError)):  # what it is owed is not kept for ever
                    await asyncio.to_thread(pings_without_end, wss, context)
                reader, writer = await asyncio.open_connection("127.0.0.1", wss)
                writer.write(b"REGISTER sip:a SIP/2.0\r\n\r\n")
                await asyncio.wait_for(reader.read(), 5)  # it ends
                writer.close()
                assert await status(good, "204", site.agent_token) == "200"
            assert not [line for line in read_log(site.log) if line["level"] in ("error", "critical")]

    with Issuer(certificates.make(tmp_path / "idp")) as idp:
        run(scenario(idp))
