"""An ordinary SIP phone over UDP: calls, answers, sends what it is given, keeps what it hears."""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsp import g711, keypad
from sip import offer_answer, sdp
from sip.dialog import Dialog
from sip.hop import UDP, Hop
from sip.message import Request, Response, parse
from sip.transaction import Cancelled, RequestReceived, ResponseReceived, TransactionLayer

FRAME = 160
PT_EVENT = 101
_RTP = struct.Struct("!BBHII")
_FORMATS = {0: "PCMU/8000", PT_EVENT: "telephone-event/8000"}


@dataclass(slots=True)
class Sent:
    """When a packet of audio left."""

    timestamp: int
    at: float
    octets: bytes


@dataclass(slots=True)
class Heard:
    """A packet of audio that came."""

    timestamp: int
    at: float
    octets: bytes
    sequence: int
    ssrc: int


@dataclass(slots=True)
class Media:
    """The phone's RTP. queue: what it will say next, G.711 or (telephone-event code, packets); then silence."""

    queue: list[NDArray[np.uint8] | tuple[int, int]] = field(default_factory=list)
    speaking: bool = False
    sent: list[Sent] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    events_heard: int = 0
    """Packets of telephone-event that came."""
    remote: tuple[str, int] | None = None

    @property
    def idle(self) -> bool:
        return not self.queue and not self.speaking


class Phone(asyncio.DatagramProtocol):
    """One line. `answers`: take incoming calls at once."""

    def __init__(self, user: str, answers: bool = False) -> None:
        self.user, self._answers = user, answers
        self.media = Media()
        self.established = asyncio.Event()
        self.ended = asyncio.Event()
        self.status = 0
        self._dialog: Dialog | None = None
        self._sip: asyncio.DatagramTransport | None = None
        self._rtp: asyncio.DatagramTransport | None = None
        self._talking: asyncio.Task[None] | None = None
        self.sip_port = self.rtp_port = 0
        self._ssrc = secrets.randbits(32)

    async def open(self, port: int = 0) -> None:
        """Bind on loopback; SIP on `port`, or where the system chooses."""
        loop = asyncio.get_running_loop()
        self._sip, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", port))
        self._rtp, _ = await loop.create_datagram_endpoint(lambda: _Listener(self.media), local_addr=("127.0.0.1", 0))
        self.sip_port = self._sip.get_extra_info("sockname")[1]
        self.rtp_port = self._rtp.get_extra_info("sockname")[1]
        self._layer = TransactionLayer({("phone", UDP): f"127.0.0.1:{self.sip_port}"}, lambda: secrets.token_hex(12))
        self._clock = loop.create_task(self._timers())

    def close(self) -> None:
        """Stop everything."""
        for task in (self._talking, self._clock):
            if task is not None:
                task.cancel()
        for transport in (self._sip, self._rtp):
            if transport is not None:
                transport.close()

    # SIP

    def datagram_received(self, data: bytes, addr: Any) -> None:
        message = parse(data)
        now = time.monotonic()
        if isinstance(message, Request):
            self._layer.receive_request(message, "phone", Hop(*addr[:2]), now)
        else:
            self._layer.receive_response(message, now)
        self._work(now)

    async def _timers(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self._layer.handle_timer(time.monotonic())
            self._work(time.monotonic())

    def _work(self, now: float) -> None:
        while self._layer.events:
            event = self._layer.events.pop(0)
            if isinstance(event, RequestReceived) and event.transaction is not None:
                answer = self._answer(event.request, event.source)
                self._layer.respond(event.transaction, answer, now)
                if event.request.method == "BYE":
                    self._over(200)
            elif isinstance(event, ResponseReceived) and event.transaction.invite:
                self._invited(event.response, event.transaction.request, now)
            elif isinstance(event, Cancelled):
                self._over(487)
        for datagram in self._layer.outgoing:
            if self._sip is not None:
                self._sip.sendto(datagram.data, datagram.to[:2])
        self._layer.outgoing.clear()

    def _answer(self, request: Request, source: Hop) -> Response:
        if request.method != "INVITE":
            return request.response(200)
        if not self._answers or self._dialog is not None:
            return request.response(486, tag=secrets.token_hex(6))
        tag = secrets.token_hex(6)
        self._dialog = Dialog.as_server(request, tag, source)
        self._hear(request)
        answer = request.response(200, tag=tag)
        answer.headers.append(("Contact", f"<sip:{self.user}@127.0.0.1:{self.sip_port}>"))
        answer.put_body("application/sdp", self._description())
        self._start()
        return answer

    def call(self, number: str, proxy: tuple[str, int]) -> None:
        """Dial `number` through `proxy`."""
        request = Request(method="INVITE", uri=f"sip:{number}@{proxy[0]}:{proxy[1]}")
        call_id, tag = secrets.token_hex(12), secrets.token_hex(6)
        request.headers = [
            ("Max-Forwards", "70"),
            ("From", f"<sip:{self.user}@127.0.0.1>;tag={tag}"),
            ("To", f"<sip:{number}@{proxy[0]}>"),
            ("Call-ID", call_id),
            ("CSeq", "1 INVITE"),
            ("Contact", f"<sip:{self.user}@127.0.0.1:{self.sip_port}>"),
        ]
        request.put_body("application/sdp", self._description())
        at = Hop(*proxy)
        self._dialog = Dialog(call_id, request.from_, request.to, request.uri, at, [], 1)
        self._layer.send(request, "phone", at, time.monotonic())
        self._work(time.monotonic())

    def _invited(self, response: Response, request: Request, now: float) -> None:
        if response.status < 200:
            return
        self.status = response.status
        if response.status >= 300 or self._dialog is None:
            self._over(response.status)
            return
        if not self.established.is_set():
            self._dialog.learn(response)
            self._hear(response)
            self._start()
        self._layer.send_ack(self._dialog.request("ACK", request.cseq[0]), "phone", self._dialog.peer)

    def hang_up(self) -> None:
        """Say BYE."""
        if self._dialog is not None:
            self._layer.send(self._dialog.request("BYE"), "phone", self._dialog.peer, time.monotonic())
            self._work(time.monotonic())
        self._over(200)

    def _over(self, status: int) -> None:
        self.status = status
        if self._talking is not None:
            self._talking.cancel()
        self._dialog = None
        self.ended.set()

    def _description(self) -> bytes:
        stream = offer_answer.Stream("127.0.0.1", self.rtp_port, 0, "sendrecv", _FORMATS, {PT_EVENT: "0-15"}, 20)
        return sdp.write(offer_answer.offer(stream, offer_answer.Far("127.0.0.1", self.rtp_port)), "1", 1)

    def _hear(self, message: Request | Response) -> None:
        stream = offer_answer.read(sdp.parse(message.body))
        self.media.remote = (stream.address, stream.port)

    # Audio

    def _start(self) -> None:
        self.established.set()
        self._talking = asyncio.get_running_loop().create_task(self._talk())

    async def _talk(self) -> None:
        """A packet every 20 ms."""
        loop = asyncio.get_running_loop()
        silence = np.full(FRAME, g711.SILENCE[g711.PCMU], np.uint8)
        sequence, timestamp, begun = secrets.randbits(15), secrets.randbits(31), loop.time()
        tick, event, event_start = 0, None, 0
        line = np.zeros(0, np.uint8)
        while True:
            tick += 1
            await asyncio.sleep(max(0.0, begun + tick * 0.02 - loop.time()))
            queue = self.media.queue
            while event is None and len(line) < FRAME and queue:
                item = queue.pop(0)
                if isinstance(item, tuple):
                    event, event_start, line = item, timestamp, line[:0]
                else:
                    line = np.concatenate([line, item])
            if event is not None:
                code, packets = event
                duration = timestamp - event_start + FRAME
                last = duration == packets * FRAME
                body = struct.pack("!BBH", code, 10 | (0x80 if last else 0), duration)
                for _ in range(3 if last else 1):  # the end three times (RFC 4733 section 2.5.1.4)
                    self._send(PT_EVENT | (0x80 if duration == FRAME else 0), sequence, event_start, body)
                    sequence += 1
                event = None if last else event
            else:
                frame = np.concatenate([line, silence])[:FRAME]
                line = line[FRAME:]
                self._send(0, sequence, timestamp, frame.tobytes())
                self.media.sent.append(Sent(timestamp, time.perf_counter(), frame.tobytes()))
                sequence += 1
            self.media.speaking = event is not None or len(line) > 0
            timestamp += FRAME

    def _send(self, first: int, sequence: int, timestamp: int, payload: bytes) -> None:
        if self.media.remote is not None and self._rtp is not None:
            header = _RTP.pack(0x80, first, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, self._ssrc)
            self._rtp.sendto(header + payload, self.media.remote)

    def say(self, octets: NDArray[np.uint8]) -> None:
        """Queue G.711 µ-law."""
        self.media.queue.append(octets)

    def key_events(self, keys: str, packets: int = 4, pause: int = 4) -> None:
        """Queue telephone-events of `packets` * 20 ms, with pauses of as many silent packets between."""
        for key in keys:
            self.media.queue.append((keypad.EVENTS.index(key), packets))
            self.say(np.full(pause * FRAME, g711.SILENCE[g711.PCMU], np.uint8))

    def heard_audio(self) -> NDArray[np.uint8]:
        """What was heard, laid out by timestamp from the first packet on; gaps are silence."""
        return _lay_out(self.media.heard)

    def sent_audio(self) -> NDArray[np.uint8]:
        """What was said, likewise."""
        return _lay_out(self.media.sent)


def _lay_out(packets: Sequence[Sent | Heard]) -> NDArray[np.uint8]:
    if not packets:
        return np.zeros(0, np.uint8)
    start = packets[0].timestamp
    offsets = [(packet.timestamp - start + 0x80000000 & 0xFFFFFFFF) - 0x80000000 for packet in packets]
    audio = np.full(max(offsets) + FRAME, g711.SILENCE[g711.PCMU], np.uint8)
    for offset, packet in zip(offsets, packets, strict=True):
        if offset >= 0:
            data = np.frombuffer(packet.octets, np.uint8)
            audio[offset : offset + len(data)] = data[: len(audio) - offset]
    return audio


class _Listener(asyncio.DatagramProtocol):
    """The RTP socket."""

    def __init__(self, media: Media) -> None:
        self._media = media

    def datagram_received(self, data: bytes, _: Any) -> None:
        if len(data) < _RTP.size:
            return
        _, payload_type, sequence, timestamp, ssrc = _RTP.unpack_from(data)
        self._media.events_heard += payload_type & 127 == PT_EVENT
        if payload_type & 127 == 0:
            self._media.heard.append(Heard(timestamp, time.perf_counter(), data[_RTP.size :], sequence, ssrc))
