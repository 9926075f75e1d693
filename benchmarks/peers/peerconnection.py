"""aiortc's RTCPeerConnection as a gateway from G.711 to a browser, written the way its documentation suggests: a track
that the trunk's packets feed, and one that is read, resampled and sent on. It masks nothing.

As a program it speaks JSON by lines: an offer in, an answer out, with the UDP port of the trunk's side.
"""

from __future__ import annotations

import asyncio
import fractions
import json
import struct
import sys
from typing import Any

import av
import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

from dsp import g711

_HEAD = struct.Struct("!BBHII")


class Trunk(asyncio.DatagramProtocol):
    """The G.711 side of a call."""

    def __init__(self, remote: tuple[str, int]) -> None:
        self.remote = remote
        self.queue: asyncio.Queue[bytes] = asyncio.Queue(50)
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self.queue.full():
            self.queue.put_nowait(data[12:])


class FromTrunk(MediaStreamTrack):
    """What the caller says."""

    kind = "audio"

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self._trunk, self._at = trunk, 0

    async def recv(self) -> av.AudioFrame:
        payload = np.frombuffer(await self._trunk.queue.get(), np.uint8)
        frame = av.AudioFrame.from_ndarray(g711.DECODE_INT16[g711.PCMU][payload][None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, self._at, fractions.Fraction(1, 8000)
        self._at += len(payload)
        return frame


async def to_trunk(track: Any, trunk: Trunk) -> None:
    """Send on what the browser says."""
    down = av.AudioResampler(format="s16", layout="mono", rate=8000, frame_size=160)
    number = 0
    while True:
        for frame in down.resample(await track.recv()):
            octets = g711.ENCODE[g711.PCMU][frame.to_ndarray()[0].view(np.uint16)].tobytes()
            head = _HEAD.pack(0x80, 0, number & 0xFFFF, number * 160 & 0xFFFFFFFF, 9)
            trunk.transport.sendto(head + octets, trunk.remote)
            number += 1


async def answer(offer: str, remote: tuple[str, int], kept: list[Any]) -> dict[str, Any]:
    """Take one call; `kept` holds what must live as long as it does."""
    loop = asyncio.get_running_loop()
    transport, trunk = await loop.create_datagram_endpoint(lambda: Trunk(remote), ("127.0.0.1", 0))
    connection = RTCPeerConnection()
    connection.on("track", lambda track: kept.append(loop.create_task(to_trunk(track, trunk))))
    await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    connection.addTrack(FromTrunk(trunk))
    await connection.setLocalDescription(await connection.createAnswer())
    kept.append(connection)
    return {"sdp": connection.localDescription.sdp, "port": transport.get_extra_info("sockname")[1]}


async def serve() -> None:
    """Answer every offer until the input ends."""
    kept: list[Any] = []
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        print(json.dumps(await answer(asked["sdp"], ("127.0.0.1", asked["trunk"]), kept)), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
