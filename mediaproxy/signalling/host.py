"""The B2BUA's host: sockets, a timer, and messages to the media workers, the vault and the agent process."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections import deque

from mediaproxy import log
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.channel import Channel
from mediaproxy.ipc.key import INFO, Key, KeySender
from mediaproxy.ipc.process import Process
from mediaproxy.signalling import neighbours
from mediaproxy.signalling.arming import Arming, Record
from mediaproxy.signalling.ladder import Ladder
from mediaproxy.signalling.names import Names
from mediaproxy.signalling.phones import Phones
from mediaproxy.signalling.records import Records as CallRecords
from mediaproxy.signalling.records import Story
from mediaproxy.signalling.streams import Streams
from sip.b2bua.events import CallChanged, Event, GuardWanted, KeyReceived, LegMedia, MediaAgreed, MediaWanted
from sip.b2bua.peers import AGENT, TRUNK
from sip.hop import UDP, WSS, Hop
from sip.limits import MESSAGE_BYTES
from sip.transaction import Outgoing

GARBAGE = (20_000, 20, 10)
"""Calls live for minutes: looking through all of them for cycles every few seconds would cost more than all parsing."""
SWEEP_EVERY = 5.0
"""Seconds between two looks for registrations that are over."""
STRANGERS_EVERY = 10.0
"""Seconds between two lines about strangers."""
ORDER_AGAIN = 0.02
"""Seconds until a full channel is tried again."""
BURST = 64
"""Datagrams read from one socket before the loop looks elsewhere."""


class Host:
    """The signalling process."""

    def __init__(self, process: Process) -> None:
        config = process.config
        self._process, self._config = process, config
        self._agent, self._vault = process.channels["agent"], process.channels["vault"]
        self._keys = KeySender(process.channels["vault-keys"])
        self._workers = [c for name, c in process.channels.items() if name.startswith("media")]
        taken = {name: socket.socket(fileno=fd) for name, fd in process.sockets.items()}
        self._sockets = {side: taken.pop(side) for side in (TRUNK, AGENT)}
        self._listening = taken
        self._buffer = bytearray(MESSAGE_BYTES + 1)
        self._routes = {route.name: route for route in config.routes}
        self._rtp = {peer.name: (peer.rtp, peer.rtp_network) for peer in config.peers}
        self._b2bua = neighbours.b2bua(config)
        self._core = self._b2bua.core
        self._streams = Streams(config, self._from_stream, self._b2bua.admits, self._unsent)
        self._phones = Phones(
            config, self._core.ids, self._send, self._vouch, self._streams.name, self._streams.hang_up
        )
        self._core.locate = self._phones.locate
        self._streams.connection, self._streams.lost = self._phones.connection, self._phones.lost
        self._streams.going = self._going
        self._names = Names(config.peers, config.dns.servers, self._found)
        self._ladder = Ladder(self._core, self._watched)
        self._cdr = CallRecords(config.cdr.file)
        self._records: dict[str, Record] = {}
        self._arming = Arming(self._records, self._b2bua.calls, self._vault, self._agent, self._order, self._tell)
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = asyncio.Event()
        self._next_stranger = 0.0
        self._down: set[Hop] = set()
        self._orders: dict[str, deque[m.Message]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._counters = {"setups_total": 0.0, "unsent": 0.0, "bugs": 0.0, "shed": 0.0}

    async def run(self) -> None:
        """Work until told to stop and all calls have ended."""
        loop = asyncio.get_running_loop()
        forever = self._streams.ping(), self._streams.ping_browsers(), self._sweep()
        self._tasks = [*self._names.start(), *map(loop.create_task, forever)]
        for side, sock in self._sockets.items():
            sock.setblocking(False)
            loop.add_reader(sock.fileno(), self._datagrams, side, sock)
        for name, sock in self._listening.items():
            sock.setblocking(False)
            side, _, transport = name.partition("-")
            if transport:
                await self._streams.listen(side, transport.upper(), sock)
            else:
                await self._ladder.listen(sock)
        for channel in (*self._workers, self._agent, self._vault, self._process.supervisor):
            loop.add_reader(channel.fileno(), self._messages, channel)
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        self._b2bua.start(time.monotonic())
        self._after()
        self._process.begin()
        await self._stopped.wait()

    # SIP

    def _datagrams(self, side: str, sock: socket.socket) -> None:
        for _ in range(BURST):
            try:
                size, source = sock.recvfrom_into(self._buffer)
            except OSError:
                break
            datagram = self._buffer[:size]
            self._buffer[:size] = bytes(size)
            self._receive(datagram, side, Hop(source[0], source[1]))
        self._after()

    def _from_stream(self, message: bytearray, side: str, source: Hop) -> None:
        if source.transport != WSS or not self._phone(message, side, source):
            self._receive(message, side, source)
        self._after()

    def _phone(self, message: bytearray, side: str, source: Hop) -> bool:
        """Whether a message of a browser is about registering."""
        try:
            return self._phones.take(message, side, source, time.monotonic())
        except Exception as error:  # a bug: this message is lost
            self._bug(error)
            return True

    def _going(self, flow: str) -> None:
        """A browser's page is closed: nobody is there to say BYE."""
        try:
            self._b2bua.gone(flow, "page-closed", time.monotonic())
        except Exception as error:  # a bug: it ends when consent does
            self._bug(error)
        self._after()

    def _vouch(self, question: m.Vouch) -> None:
        if not self._agent.send(question):
            self._phones.vouched(m.Vouched(question.question, 503), time.monotonic())

    async def _sweep(self) -> None:
        """Registrations end, whether anybody says so or not."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            self._phones.sweep(time.monotonic())
            self._streams.forget_names()

    def _receive(self, message: bytearray, side: str, source: Hop) -> None:
        try:
            known = self._b2bua.receive(message, side, source, time.monotonic())
            if known is None:
                self._stranger(side, source.host)
            elif self._ladder.watched:
                self._ladder.show(message, side, "in", source)
        except Exception as error:  # a bug: this message is lost, the calls go on
            self._bug(error)
        finally:
            message[:] = bytes(len(message))  # an INFO may hold a key

    def _stranger(self, side: str, address: str) -> None:
        """Tell of somebody who is no peer, not more often than anybody wants to read it."""
        now = time.monotonic()
        if now >= self._next_stranger:
            self._next_stranger = now + STRANGERS_EVERY
            log.get().warning("stranger", side=side, peer=address)

    def _tell_hops(self) -> None:
        """Say which next hops have stopped answering, and which are back."""
        down = set(self._core.down)
        for peer in self._core.peers:
            for hop in peer.hops:
                if (hop in down) != (hop in self._down):
                    word = "hop-down" if hop in down else "hop-up"
                    log.get().warning(word, peer=peer.name, listen=str(hop))
        self._down = down

    def _watched(self, action: str, who: str, call: str) -> None:
        """Somebody has begun or ceased to watch: one call, or every one where none is named."""
        route = self._records[call].route.name if call in self._records else ""
        self._order(self._agent, m.Happened(action, call, route, who, "" if call else "every-call"))

    def _unsent(self, outgoing: Outgoing) -> None:
        self._counters["unsent"] += 1
        try:
            self._b2bua.unsent(outgoing, time.monotonic())
        except Exception as error:
            self._bug(error)
        asyncio.get_running_loop().call_soon(self._after)

    def _found(self, peer: str, hops: list[Hop]) -> None:
        known = self._core.peer(peer)
        if known is not None:
            known.hops = hops

    def _on_timer(self) -> None:
        try:
            self._b2bua.handle_timer(time.monotonic())
        except Exception as error:
            self._bug(error)
        self._after()

    def _bug(self, error: Exception) -> None:
        self._counters["bugs"] += 1
        log.get().error("signalling-bug", exc_info=error)

    def _after(self) -> None:
        """Send what is to be sent, do what is asked, and set the alarm clock."""
        while self._b2bua.events:
            event = self._b2bua.events.pop(0)
            try:
                self._event(event)
            except Exception as error:  # a bug: this event is lost, the others and the calls go on
                self._bug(error)
        while self._b2bua.outgoing:
            self._send(self._b2bua.outgoing.pop(0))
        when = self._b2bua.get_timer()
        if self._timer is None or self._timer.when() != when:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(when, self._on_timer) if when is not None else None
        if self._core.stopping and not self._b2bua.calls:
            asyncio.get_running_loop().call_later(0.6, self._stopped.set)  # one repetition of a lost BYE

    def _event(self, event: Event) -> None:
        if isinstance(event, MediaWanted):
            self._open(event)
        elif isinstance(event, MediaAgreed):
            self._agree(event)
        elif isinstance(event, CallChanged):
            self._changed(event)
        elif isinstance(event, GuardWanted):
            self._arming.end_passthrough(event.call, event.reason)
        else:
            self._key(event)

    def _order(self, worker: Channel, message: m.Message) -> None:
        """Tell a worker something that must not be lost: where its channel is full it waits its turn, in order."""
        waiting = self._orders.setdefault(worker.name, deque())
        if not waiting and worker.send(message):
            return
        waiting.append(message)
        if len(waiting) == 1:
            asyncio.get_running_loop().call_later(ORDER_AGAIN, self._send_orders, worker)

    def _send_orders(self, worker: Channel) -> None:
        waiting = self._orders[worker.name]
        while waiting and worker.send(waiting[0]):
            waiting.popleft()
        if waiting:
            asyncio.get_running_loop().call_later(ORDER_AGAIN, self._send_orders, worker)

    def _send(self, outgoing: Outgoing) -> None:
        if self._ladder.watched:
            self._ladder.show(outgoing.data, outgoing.side, "out", outgoing.to)
        if outgoing.to.transport != UDP:
            self._streams.send(outgoing)
            return
        try:
            self._sockets[outgoing.side].sendto(outgoing.data, outgoing.to[:2])
        except BlockingIOError:  # no room: it will be repeated
            self._counters["unsent"] += 1
        except OSError:
            self._unsent(outgoing)

    def _open(self, event: MediaWanted) -> None:
        call = self._b2bua.calls.get(event.call)
        if call is None:
            return
        self._counters["setups_total"] += 1
        loads = {channel.name: 0 for channel in self._workers}
        for record in self._records.values():
            loads[record.worker.name] += 1
        worker = min(self._workers, key=lambda channel: loads[channel.name])
        legs = [
            m.LegSetup(leg.peer.side, self._config.side(leg.peer.side).rtp_address, *self._rtp[leg.peer.name], ice=ice)
            for leg, ice in zip(call.legs, event.ice, strict=True)
        ]
        route = self._routes[call.route.name]
        opened = m.OpenCall(
            call.id, (legs[0], legs[1]), call.mode, route.record, route.emergency, route.guard_keys, route.name
        )
        untried = [channel for channel in self._workers if channel is not worker]
        story = Story(time.time(), modes=[call.mode])
        record = Record(call.id, worker, opened, route, story, untried, mode=call.mode)
        self._records[call.id] = record
        self._tell(record, "opening")
        if call.mode == "passthrough":
            self._order(self._agent, m.Happened("passthrough", call.id, call.route.name))
        if not worker.send(opened):
            self._b2bua.media_failed(call.id, time.monotonic())

    def _agree(self, event: MediaAgreed) -> None:
        record = self._records.get(event.call)
        if record is not None:
            record.agreed = m.UpdateCall(event.call, (_leg_media(event.legs[0]), _leg_media(event.legs[1])))
            self._order(record.worker, record.agreed)

    def _changed(self, event: CallChanged) -> None:
        record = self._records.get(event.call)
        if record is None:
            return
        if event.state == "answered":
            record.story.answered = time.time()
        elif event.state == "changed":
            record.story.transfers += 1
        if event.state == "ended":
            self._order(record.worker, m.CloseCall(event.call))
            self._arming.ended(record)
            del self._records[event.call]
        self._tell(record, event.state if event.state != "changed" else "")
        if event.state == "ended" and event.summary is not None:
            self._cdr.write(event.call, event.summary, record.story, event.reason, event.status)
        say = log.get().debug if event.state == "ringing" else log.get().info
        say("call", call=event.call, state=event.state, reason=event.reason)

    def _key(self, event: KeyReceived) -> None:
        record = self._records.get(event.call)
        if record is None:
            return
        if event.passed:
            record.passed += 1
            if 0 < record.route.guard_keys <= record.passed:
                self._arming.end_passthrough(event.call, "keys")
            return
        if record.mode != "armed":
            return
        if not self._keys.send(Key(record.capture, int(time.monotonic() * 1000), event.event, INFO)):
            self._arming.seal(record, "vault-full")

    # Messages

    def _messages(self, channel: Channel) -> None:
        for message in channel.receive():
            try:
                self._message(channel, message, time.monotonic())
            except Exception as error:  # a bug: this message is lost, the calls go on
                self._bug(error)
        self._after()

    def _message(self, channel: Channel, message: m.Any_, now: float) -> None:
        if isinstance(message, m.Opened):
            self._opened(message, now)
        elif isinstance(message, m.OpenFailed):
            self._not_opened(message, now)
        elif isinstance(message, m.ModeSet):
            self._arming.mode_set(message)
        elif isinstance(message, m.Interrupted):
            self._arming.interrupted(message)
        elif isinstance(message, m.CallOver):
            self._b2bua.hang_up(message.call, message.reason, now)
        elif isinstance(message, m.Arm):
            self._arming.arm(message)
        elif isinstance(message, m.Guard):
            self._arming.guard(message)
        elif isinstance(message, m.Cue):
            self._arming.cue(message)
        elif isinstance(message, m.CaptureEnded):
            self._arming.disarm(message.capture)
        elif isinstance(message, m.Vouched):
            self._phones.vouched(message, now)
        elif isinstance(message, m.Hello):
            self._restarted(channel)
        elif isinstance(message, m.Ping):
            self._tell_hops()
            channel.send(m.Pong(self._count()))
        elif isinstance(message, m.Reload):
            self._streams.reload()
            self._cdr.reopen()
            log.get().info("reloaded")
            self._order(self._agent, m.Happened("reloaded"))
        elif isinstance(message, m.Stop):
            self._stop(message, now)

    def _count(self) -> dict[str, float]:
        counters = {name: float(value) for name, value in self._b2bua.counters.items()}
        counters["strangers"] += self._streams.strangers
        counters["malformed"] += self._streams.malformed
        counters |= {name: float(value) for name, value in self._phones.registrar.counters.items()}
        now = {"calls": len(self._b2bua.calls), "connections": len(self._streams), "down": len(self._core.down)}
        return counters | self._counters | {name: float(value) for name, value in now.items()}

    def _opened(self, message: m.Opened, now: float) -> None:
        record = self._records.get(message.call)
        if record is None:
            return
        again = record.ports is not None
        record.ports = message.ports
        if again:
            if record.agreed is not None:
                self._order(record.worker, record.agreed)
        else:
            call = self._b2bua.calls.get(message.call)
            if call is not None:
                hosts = [self._advertised(leg.peer.side) for leg in call.legs]
                places = (hosts[0], message.ports[0]), (hosts[1], message.ports[1])
                self._b2bua.media_opened(message.call, places, now, message.fingerprint)

    def _advertised(self, side: str) -> str:
        own = self._config.side(side)
        return own.rtp_advertise or own.rtp_address

    def _not_opened(self, message: m.OpenFailed, now: float) -> None:
        """A worker has no room: the next one is asked, and when none is left the call is refused."""
        record = self._records.get(message.call)
        if record is not None and record.ports is None:
            while record.untried:
                record.worker = record.untried.pop()
                if record.worker.send(record.opened):
                    return
            self._counters["shed"] += 1
        log.get().warning("call-refused", call=message.call, reason=message.reason)
        self._b2bua.media_failed(message.call, now)

    def _restarted(self, channel: Channel) -> None:
        """The process at the far end has forgotten what it knew."""
        if channel is self._agent:
            for record in self._records.values():
                if record.last is not None:
                    channel.send(record.last)
            self._order(channel, m.Told())
        elif channel is self._vault:
            self._arming.vault_restarted()
        elif channel in self._workers:
            theirs = [r for r in self._records.values() if r.worker is channel and r.ports is not None]
            self._arming.worker_restarted(theirs)

    def _stop(self, message: m.Stop, now: float) -> None:
        self._b2bua.stop()
        if message.grace <= 0:
            for call_id in list(self._b2bua.calls):
                self._b2bua.hang_up(call_id, "stopped", now)

    def _tell(self, record: Record, state: str = "") -> None:
        """The agent process's view of a call."""
        call = self._b2bua.calls.get(record.call)
        if call is not None:
            record.last = m.CallState(
                call.id, state or (record.last.state if record.last else "opening"), record.mode,
                "inbound" if call.agent_leg == 1 else "outbound", call.number, call.correlation,
                call.call_ids, call.route.name, call.began, record.capture, record.story.captures,
            )  # fmt: skip
        elif record.last is not None:
            last = record.last
            record.last = m.CallState(
                last.call, state or last.state, record.mode, last.direction, last.number, last.correlation,
                last.sip_call_ids, last.route, last.began, 0, record.story.captures,
            )  # fmt: skip
        if record.last is not None:
            self._agent.send(record.last)


def _leg_media(leg: LegMedia) -> m.LegMedia:
    host, port = leg.remote if leg.remote is not None else ("", 0)
    suite, own, theirs = leg.keys or ("", b"", b"")
    coding = browser = None
    if leg.coding is not None:
        said = leg.coding
        coding = m.Coding(said.encoding, said.audio, said.events, dict(said.parameters))
    if leg.secured is not None:
        browser = m.Browser(leg.secured.ice, leg.secured.ufrag, leg.secured.fingerprint, leg.secured.active)
    return m.LegMedia(
        host, port, leg.receive, leg.send, leg.ptime, leg.control_port, suite, own, theirs, coding, browser
    )
