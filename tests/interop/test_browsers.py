"""Browsers and what else speaks WebRTC: two SIP libraries, aiortc, and Kamailio as their registrar. Each hears the
other, whatever is wrong with one hurts nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from numpy.typing import NDArray
from playwright.async_api import Browser
from websockets.asyncio.client import ClientConnection, connect

from dsp import g711
from mediaproxy.demo.phone import Phone
from mediaproxy.demo.site import Site, free_port, listening_port
from tests.fixtures import softphone, webphone
from tests.fixtures.kamailio import Kamailio
from tests.fixtures.live import read_log, read_metrics
from tests.fixtures.registrations import register
from tests.fixtures.softphone import Softphone

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]
LOW, HIGH = 440.0, 1000.0
"""What callers say, and browsers' microphones."""


def humming(seconds: float) -> NDArray[np.uint8]:
    """µ-law of LOW."""
    return g711.encode(
        (0.3 * np.sin(2 * np.pi * LOW * np.arange(int(8000 * seconds)) / 8000)).astype(np.float32), g711.PCMU
    )


def share(audio: NDArray[Any], hz: float, rate: int) -> float:
    """Share of frames of 50 ms in which `hz` carries nine tenths of the energy."""
    size = rate // 20
    frames = audio[: len(audio) // size * size].reshape(-1, size).astype(np.float64)
    turn = np.exp(-2j * np.pi * hz * np.arange(size) / rate)
    power = 2 * np.abs(frames @ turn) ** 2 / size
    return float(len(frames) and np.mean((power >= 0.9 * np.square(frames).sum(axis=1)) & (power > 1e-3)))


@dataclass(slots=True)
class Desk:
    """A site whose agents' phones are browsers, and one Chromium; wss: where they connect to; tokens: by extension."""

    site: Site
    running: Browser
    wss: int
    tokens: dict[str, str]
    callee: int

    @property
    def url(self) -> str:
        return f"wss://127.0.0.1:{self.wss}"

    async def phone(self, number: str, library: str = "jssip", **more: Any) -> Softphone:
        token = self.tokens[number]
        return await Softphone.register(self.running, webphone.script(), self.url, number, token, library, **more)

    def refused(self) -> float:
        return read_metrics(self.site)['flattone_media_refused_total{worker="media-0"}']


@contextlib.asynccontextmanager
async def calling(site: Site, number: str) -> AsyncIterator[Phone]:
    """A call to that number by somebody who hums, up when this is entered. Tries again where flattone is too busy."""
    for _ in range(10):
        caller = Phone("caller")
        await caller.open()
        caller.say(humming(30))
        caller.call(number, site.trunk)
        for _ in range(100):
            await asyncio.sleep(0.1)
            if caller.established.is_set() or caller.ended.is_set():
                break
        if caller.status != 503:
            break
        caller.close()
        await asyncio.sleep(1)
    try:
        assert caller.established.is_set(), caller.status
        yield caller
        caller.hang_up()
    finally:
        caller.close()


@contextlib.asynccontextmanager
async def desk(directory: Path, numbers: list[str], **more: str) -> AsyncIterator[Desk]:
    wss, callee = listening_port(), free_port()
    settings, tokens = webphone.agents(directory, wss, numbers, **more)
    voice = webphone.write(directory / "voice.wav", webphone.hum(HIGH))
    with Site(directory, directory, callee, free_port(), record=False, settings=settings) as site:
        async with softphone.browser(voice) as running:
            yield Desk(site, running, wss, tokens, callee)
        bad = [line for line in read_log(site.log) if line["level"] in ("error", "critical")]
        assert not [line for line in bad if line.get("exit") != -signal.SIGKILL]


@contextlib.asynccontextmanager
async def called(up: Desk) -> AsyncIterator[Phone]:
    """Somebody whom an agent can call, and who hums."""
    callee = Phone("callee", answers=True)
    await callee.open(up.callee)
    callee.say(humming(60))
    try:
        yield callee
    finally:
        callee.close()
        await asyncio.sleep(0.1)  # the port is free on the loop's next turn


async def both_hear(phone: Softphone, caller: Phone, seconds: float = 2.0) -> None:
    """Wait until the page plays what the caller hums and the caller hears the page's microphone; then neither hears
    anything else for a while."""
    await phone.loud()
    async with asyncio.timeout(10):
        while share(g711.decode(caller.heard_audio()[-4000:], g711.PCMU), HIGH, 8000) < 0.5:
            await asyncio.sleep(0.1)
    await phone.page.evaluate("kept.length = 0")
    caller.media.heard.clear()
    await asyncio.sleep(seconds)
    played, heard = await phone.kept(), g711.decode(caller.heard_audio(), g711.PCMU)
    assert share(played, LOW, softphone.RATE) > 0.7
    assert share(heard, HIGH, 8000) > 0.7


def run(scenario: Any) -> None:
    asyncio.run(scenario)


def test_all_browsers_of_an_agent_ring_and_the_first_to_answer_has_the_call(tmp_path: Path) -> None:
    """JsSIP beside SIP.js; then the page that had it is loaded anew, and takes the next call."""

    async def scenario() -> None:
        async with desk(tmp_path, ["204"]) as up:
            waits = await up.phone("204", answers=False)
            takes = await up.phone("204", "sipjs")
            async with calling(up.site, "204") as caller:
                await waits.until("phone.ended")
                assert await waits.page.evaluate("phone.calls") == 1
                await both_hear(takes, caller)
                await takes.hang_up()
                await asyncio.wait_for(caller.ended.wait(), 5)
            await waits.close()
            await takes.close()
            again = await up.phone("204")
            async with calling(up.site, "204") as caller:
                await both_hear(again, caller)
            await again.until("phone.ended")

    run(scenario())


def test_refused_lines_a_false_certificate_and_a_killed_worker_hurt_nobody_else(tmp_path: Path) -> None:
    """What is no audio is refused line by line; another call at the same time shows another certificate than it says,
    and a third's worker is killed."""
    channel = "ua.on('newRTCSession', ({ session }) => session.connection?.createDataChannel('x'));"
    other = "ua.on('newRTCSession', ({ session }) => session.on('sdp', (e) => { if (e.originator === 'local') e.sdp = e.sdp.replace(/(sha-256 )../, '$100'); }));"

    async def scenario() -> None:
        async with desk(tmp_path, ["204", "205"]) as up:
            phone = await up.phone("204", twist=channel)
            async with called(up) as callee:
                await phone.call("4930123", "{ audio: raw, video: true }")
                await phone.until("phone.talking")
                await both_hear(phone, callee)
                said = await phone.page.evaluate("session.connection.remoteDescription.sdp")
                ports = re.findall(r"^m=(?:video|application) (\d+)", said, re.MULTILINE)
                assert ports == ["0", "0"]
                await phone.hang_up()
                await asyncio.wait_for(callee.ended.wait(), 5)

            async with called(up) as callee:
                await phone.page.evaluate("loudAt = 0; phone.talking = 0")
                await phone.call("4930123")
                await phone.until("phone.talking")
                await both_hear(phone, callee)

                stranger = await up.phone("205", twist=other)
                async with calling(up.site, "205") as caller:
                    await asyncio.sleep(3)
                    assert not caller.media.heard
                    assert not await stranger.page.evaluate("globalThis.loudAt")
                    assert up.refused() > 0
                    assert not caller.ended.is_set()
                await both_hear(phone, callee, 1.0)

                worker = up.site.pids()["media-0"]
                os.kill(worker, signal.SIGKILL)
                while up.site.pids()["media-0"] == worker:
                    await asyncio.sleep(0.05)
                callee.media.heard.clear()
                await phone.page.evaluate("kept.length = 0; loudAt = 0")
                await both_hear(phone, callee, 1.0)
                assert await phone.page.evaluate("session.connection.connectionState") == "connected"
                await phone.hang_up()
                await asyncio.wait_for(callee.ended.wait(), 5)

    run(scenario())


def test_kamailio_registers_browsers_and_flattone_speaks_to_them(tmp_path: Path) -> None:
    """The agent peer is a proxy of another make; SIP goes through it, DTLS-SRTP ends here."""
    pbx = listening_port()

    async def scenario() -> None:
        voice = webphone.write(tmp_path / "voice.wav", webphone.hum(HIGH))
        settings = {"desk": 'srtp = "dtls"\n'}
        with (
            Site(tmp_path, tmp_path, free_port(), pbx, record=False, settings=settings) as site,
            Kamailio(tmp_path / "k", pbx, f"sip:127.0.0.1:{site.agent[1]}"),
        ):
            async with softphone.browser(voice) as running:
                phone = await Softphone.register(running, webphone.script(), f"ws://127.0.0.1:{pbx}", "204", "none")
                async with calling(site, "204") as caller:
                    await both_hear(phone, caller)
                    await phone.hang_up()
                    await asyncio.wait_for(caller.ended.wait(), 5)

    run(scenario())


class AiortcPhone:
    """A phone of `websockets` and aiortc's RTCPeerConnection: registers, takes one call, counts what it hears."""

    def __init__(self, stream: ClientConnection, number: str) -> None:
        self._stream, self._number = stream, number
        self._connection = RTCPeerConnection()
        self.heard: list[NDArray[np.int16]] = []
        self.over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def register(self, token: str) -> str:
        """The status line of the answer."""
        await self._stream.send(register(self._number, token, "127.0.0.1", secrets.token_hex(8)))
        return str(await self._stream.recv()).partition("\r\n")[0]

    async def answer(self) -> None:
        """Take the call that comes, until it ends."""
        async for message in self._stream:
            head, _, body = str(message).partition("\r\n\r\n")
            kept = [
                line
                for line in head.split("\r\n")[1:]
                if re.match(r"(?i)(via|from|to|call-id|cseq|record-route):", line)
            ]
            if head.startswith("INVITE"):
                self._connection.on("track", lambda track: self._tasks.append(asyncio.create_task(self._hear(track))))
                await self._connection.setRemoteDescription(RTCSessionDescription(body, "offer"))
                self._connection.addTrack(AudioStreamTrack())
                await self._connection.setLocalDescription(await self._connection.createAnswer())
                kept = [line + ";tag=aiortc" if line.lower().startswith("to:") else line for line in kept]
                kept.append(f"Contact: <sip:{self._number}@aiortc.invalid;transport=ws>")
                await self._reply(kept, self._connection.localDescription.sdp)
            elif head.startswith("BYE"):
                await self._reply(kept)
                break
        self.over.set()
        await self._connection.close()

    async def _reply(self, headers: list[str], body: str = "") -> None:
        kind = ["Content-Type: application/sdp"] if body else []
        lines = ["SIP/2.0 200 OK", *headers, *kind, f"Content-Length: {len(body)}"]
        await self._stream.send("\r\n".join(lines) + "\r\n\r\n" + body)

    async def _hear(self, track: Any) -> None:
        with contextlib.suppress(Exception):  # the track's end is an exception
            while True:
                self.heard.append((await track.recv()).to_ndarray().reshape(-1, 2)[:, 0])


def test_aiortc_takes_a_call(tmp_path: Path) -> None:
    """Neither Chromium nor OpenSSL's own words: another ICE, DTLS with its certificate of another kind."""

    async def scenario() -> None:
        wss = listening_port()
        settings, tokens = webphone.agents(tmp_path, wss, ["204"])
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with Site(tmp_path, tmp_path, free_port(), free_port(), record=False, settings=settings) as site:
            async with connect(f"wss://127.0.0.1:{wss}", ssl=context, subprotocols=["sip"]) as stream:  # type: ignore[list-item]
                phone = AiortcPhone(stream, "204")
                assert await phone.register(tokens["204"]) == "SIP/2.0 200 OK"
                answering = asyncio.create_task(phone.answer())
                async with calling(site, "204") as caller:
                    async with asyncio.timeout(10):
                        while len(phone.heard) < 150 or len(caller.media.heard) < 100:
                            await asyncio.sleep(0.1)
                    assert share(np.concatenate(phone.heard[50:150]) / 32768, LOW, 48_000) > 0.9
                await asyncio.wait_for(phone.over.wait(), 5)
                await answering
            assert not [line for line in read_log(site.log) if line["level"] in ("error", "critical")]

    run(scenario())
