"""Floods of signalling against a running flattone: memory stays bounded, and the call that is up goes on."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from mediaproxy.demo.phone import Phone
from mediaproxy.demo.site import Site
from tests.fixtures.live import read_metrics

pytestmark = pytest.mark.interop
STRANGER = 50_000
HALF_OPEN = 5_000
INVITE = (
    "INVITE sip:204@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{n};rport\r\nMax-Forwards: 70\r\n"
    "From: <sip:f{n}@example.org>;tag={n}\r\nTo: <sip:204@example.com>\r\nCall-ID: {n}@flood\r\nCSeq: 1 INVITE\r\n"
    "Contact: <sip:f@{host}:{port}>\r\nContent-Type: application/sdp\r\nContent-Length: {size}\r\n\r\n{sdp}"
)
SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n"


class Desk(Phone):
    """Answers its first call; of any other it says nothing at all."""

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not (self.media.remote is not None and data.startswith(b"INVITE ")):
            super().datagram_received(data, addr)


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def flood(at: tuple[str, int], host: str, count: int) -> int:
    """INVITEs from `host`, nobody listening for answers; returns how many answers came all the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.setblocking(False)
        port, answers = sock.getsockname()[1], 0
        for n in range(count):
            sock.sendto(INVITE.format(host=host, port=port, n=n, size=len(SDP), sdp=SDP).encode(), at)
            if n % 20 == 0:
                await asyncio.sleep(0.002)
                while True:
                    try:
                        answers += bool(sock.recv(2000))
                    except BlockingIOError:
                        break
        return answers


@pytest.mark.timeout(180)
def test_a_strangers_flood_and_half_open_calls_of_a_peer_harm_no_running_call(tmp_path: Path) -> None:
    """50,000 INVITEs from an unknown address, then 5,000 of a peer whose callee never answers: as many as the box has
    room for (100 here) stay half open, the others get 503."""

    async def scene() -> None:
        caller, desk = Phone("caller"), Desk("204", answers=True)
        await caller.open()
        await desk.open()
        site = Site(tmp_path, tmp_path, caller.sip_port, desk.sip_port, calls=100, record=False)
        with site:
            caller.call("204", site.trunk)
            await asyncio.wait_for(caller.established.wait(), 5)
            await asyncio.sleep(2)
            pid = site.pids()["signalling"]
            before = resident_mb(pid)
            caller.say(np.tile(np.repeat(np.array([0x80, 0x00], np.uint8), 40), 100 * 60))
            assert await flood(site.trunk, "127.0.0.2", STRANGER) == 0
            await asyncio.sleep(1.2)
            after_strangers = resident_mb(pid)
            heard = len(desk.media.heard)
            answers = await flood(site.trunk, "127.0.0.1", HALF_OPEN)
            await asyncio.sleep(2)
            metrics = await asyncio.to_thread(read_metrics, site)
            after = resident_mb(pid)
            assert len(desk.media.heard) > heard + 50, "the running call fell silent"
            sequence = [packet.sequence for packet in desk.media.heard]
            gaps = sum((b - a) % 65536 != 1 for a, b in zip(sequence, sequence[1:], strict=False))
            assert gaps <= len(sequence) // 100
            assert not caller.ended.is_set()
            strangers = metrics['flattone_signalling_strangers_total{worker="signalling"}']
            assert strangers > STRANGER / 2  # the kernel may drop some before anybody sees them
            assert after_strangers - before < 8
            assert after - before < 120
            assert answers > 0
            assert (
                metrics['flattone_signalling_calls{worker="signalling"}'] > 90
            )  # half open, beside the one that is up
            print(
                f"memory {before:.0f} -> {after_strangers:.0f} -> {after:.0f} MB, {gaps} gaps in {len(sequence)} packets"
            )
            caller.hang_up()
            await asyncio.wait_for(desk.ended.wait(), 5)
        assert '"signalling-bug"' not in site.log.read_text()
        caller.close()
        desk.close()

    asyncio.run(scene())
