"""The B2BUA's host: two UDP sockets, a timer, and messages to the media workers, the vault and the agent process."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import time
from dataclasses import dataclass, field
from ipaddress import ip_network

from mediaproxy import log
from mediaproxy.config import Config, endpoint
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.channel import Channel
from mediaproxy.ipc.key import INFO, Key, KeySender
from mediaproxy.ipc.process import Process
from sip.b2bua.events import CallChanged, KeyReceived, LegMedia, MediaAgreed, MediaWanted
from sip.b2bua.pair import B2bua
from sip.b2bua.peers import AGENT, TRUNK, Peer, Route
from sip.headers.via import Endpoint
from sip.limits import MESSAGE_BYTES

BURST = 64
"""Datagrams read from one socket before the loop looks elsewhere."""


@dataclass(slots=True)
class Record:
    """What the host knows of a call beyond SIP. `opened` and `agreed` rebuild its media after a worker's restart."""

    call: str
    worker: Channel
    opened: m.OpenCall
    untried: list[Channel] = field(default_factory=list)
    """Workers that have not yet refused the call."""
    ports: tuple[int, int] | None = None
    agreed: m.UpdateCall | None = None
    mode: str = "guarded"
    capture: int = 0
    last: m.CallState | None = None


class Host:
    """The signalling process."""

    def __init__(self, process: Process) -> None:
        config = process.config
        self._process, self._config = process, config
        self._agent, self._vault = process.channels["agent"], process.channels["vault"]
        self._keys = KeySender(process.channels["vault-keys"])
        self._workers = [c for name, c in process.channels.items() if name.startswith("media")]
        self._sockets = {side: socket.socket(fileno=fd) for side, fd in process.sockets.items()}
        self._buffer = bytearray(MESSAGE_BYTES + 1)
        peers = {peer.name: peer for peer in config.peers}
        self._rtp = {name: (peer.rtp, peer.rtp_network) for name, peer in peers.items()}
        modes = {route.name: route.mode for route in config.routes}
        self._record_routes = {route.name for route in config.routes if route.record}
        self._emergency_routes = {route.name for route in config.routes if route.emergency}
        self._b2bua = B2bua(
            tuple(_peer(peer.name, peer.side, peer.address, peer.sources) for peer in config.peers),
            tuple(Route(r.name, r.origin, r.target, re.compile(r.users)) for r in config.routes),
            {side: _advertised(config, side) for side in (TRUNK, AGENT)},
            lambda: secrets.token_hex(16),
            lambda route: modes[route.name],
            config.api.correlation_header,
        )
        self._records: dict[str, Record] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = asyncio.Event()
        self._counters = {"calls_total": 0.0, "unsent": 0.0, "bugs": 0.0, "shed": 0.0}

    async def run(self) -> None:
        """Work until told to stop and all calls have ended."""
        loop = asyncio.get_running_loop()
        for side, sock in self._sockets.items():
            sock.setblocking(False)
            loop.add_reader(sock.fileno(), self._datagrams, side, sock)
        for channel in (*self._workers, self._agent, self._vault, self._process.supervisor):
            loop.add_reader(channel.fileno(), self._messages, channel)
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
            try:
                self._b2bua.receive_datagram(datagram, side, source[:2], time.monotonic())
            except Exception as error:  # a bug: this datagram is lost, the calls go on
                self._bug(error)
            finally:
                datagram[:] = bytes(size)  # an INFO may hold a key
        self._after()

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
            if isinstance(event, MediaWanted):
                self._open(event)
            elif isinstance(event, MediaAgreed):
                self._agree(event)
            elif isinstance(event, CallChanged):
                self._changed(event)
            else:
                self._key(event)
        for datagram in self._b2bua.outgoing:
            try:
                self._sockets[datagram.side].sendto(datagram.data, datagram.to)
            except OSError:
                self._counters["unsent"] += 1
        self._b2bua.outgoing.clear()
        when = self._b2bua.get_timer()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._on_timer) if when is not None else None
        if self._b2bua.stopping and not self._b2bua.calls:
            asyncio.get_running_loop().call_later(0.6, self._stopped.set)  # one repetition of a lost BYE

    def _open(self, event: MediaWanted) -> None:
        call = self._b2bua.calls.get(event.call)
        if call is None:
            return
        self._counters["calls_total"] += 1
        loads = {channel.name: 0 for channel in self._workers}
        for record in self._records.values():
            loads[record.worker.name] += 1
        worker = min(self._workers, key=lambda channel: loads[channel.name])
        legs = [
            m.LegSetup(leg.peer.side, self._config.side(leg.peer.side).rtp_address, *self._rtp[leg.peer.name])
            for leg in call.legs
        ]
        for leg in call.legs:
            side = self._config.side(leg.peer.side)
            leg.host = side.rtp_advertise or side.rtp_address
        record_it = call.route.name in self._record_routes
        emergency = call.route.name in self._emergency_routes
        opened = m.OpenCall(call.id, (legs[0], legs[1]), call.mode, record_it, emergency)
        untried = [channel for channel in self._workers if channel is not worker]
        record = Record(call.id, worker, opened, untried, mode=call.mode)
        self._records[call.id] = record
        self._tell(record, "opening")
        if not worker.send(opened):
            self._b2bua.media_failed(call.id, time.monotonic())

    def _agree(self, event: MediaAgreed) -> None:
        record = self._records.get(event.call)
        if record is not None:
            record.agreed = m.UpdateCall(event.call, (_leg_media(event.legs[0]), _leg_media(event.legs[1])))
            record.worker.send(record.agreed)

    def _changed(self, event: CallChanged) -> None:
        record = self._records.get(event.call)
        if record is None:
            return
        self._tell(record, event.state)
        if event.state == "ended":
            record.worker.send(m.CloseCall(event.call))
            if record.capture:
                self._vault.send(m.Act(record.capture, "call-ended"))
            del self._records[event.call]
        log.get().info("call", call=event.call, state=event.state, reason=event.reason)

    def _key(self, event: KeyReceived) -> None:
        record = self._records.get(event.call)
        if record is None or record.mode != "armed":
            return
        if not self._keys.send(Key(record.capture, int(time.monotonic() * 1000), event.event, INFO)):
            self._seal(record, "vault-full")

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
            self._mode_set(message)
        elif isinstance(message, m.Interrupted):
            self._vault.send(m.Act(message.capture, "interrupted"))
            log.get().warning("interrupted", call=message.call, reason=message.reason)
        elif isinstance(message, m.CallOver):
            self._b2bua.hang_up(message.call, message.reason, now)
        elif isinstance(message, m.Arm):
            self._arm(message)
        elif isinstance(message, m.Guard):
            self._guard(message)
        elif isinstance(message, m.CaptureEnded):
            self._disarm(message.capture)
        elif isinstance(message, m.Hello):
            self._restarted(channel)
        elif isinstance(message, m.Ping):
            counters = {name: float(value) for name, value in self._b2bua.counters.items()}
            channel.send(m.Pong(counters | self._counters | {"calls": float(len(self._b2bua.calls))}))
        elif isinstance(message, m.Stop):
            self._stop(message, now)

    def _opened(self, message: m.Opened, now: float) -> None:
        record = self._records.get(message.call)
        if record is None:
            return
        again = record.ports is not None
        record.ports = message.ports
        if again:
            if record.agreed is not None:
                record.worker.send(record.agreed)
        else:
            self._b2bua.media_opened(message.call, message.ports, now)

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

    def _mode_set(self, message: m.ModeSet) -> None:
        record = self._records.get(message.call)
        if record is None:
            return
        if message.capture and message.capture == record.capture and record.mode != "armed":
            self._agent.send(m.Armed(message.call, message.capture, message.mode == "armed"))
        record.mode = message.mode
        call = self._b2bua.calls.get(message.call)
        if call is not None:
            call.mode = message.mode
        if message.mode == "sealed" and record.capture:
            self._vault.send(m.Act(record.capture, "sealed"))
            record.capture = 0
        elif message.mode == "guarded" and message.capture == record.capture:
            record.capture = 0
        self._tell(record)

    def _arm(self, message: m.Arm) -> None:
        record = self._records.get(message.call)
        if record is None or record.mode == "sealed" or record.capture:
            self._agent.send(m.Armed(message.call, message.capture, False))
            return
        record.capture = message.capture
        record.worker.send(m.SetMode(message.call, "armed", message.capture))

    def _disarm(self, capture: int) -> None:
        for record in self._records.values():
            if record.capture == capture:
                record.capture = 0
                record.worker.send(m.SetMode(record.call, "guarded", capture))

    def _guard(self, message: m.Guard) -> None:
        record = self._records.get(message.call)
        if record is not None and record.mode == ("sealed" if message.release else "passthrough"):
            record.worker.send(m.SetMode(message.call, "released" if message.release else "guarded"))
            if message.release and record.capture:  # it was interrupted, and goes on
                record.worker.send(m.SetMode(message.call, "armed", record.capture))

    def _seal(self, record: Record, reason: str) -> None:
        record.worker.send(m.SetMode(record.call, "sealed", record.capture))
        log.get().error("leg-sealed", call=record.call, reason=reason)

    def _restarted(self, channel: Channel) -> None:
        """The process at the far end has forgotten what it knew."""
        if channel is self._agent:
            for record in self._records.values():
                if record.last is not None:
                    channel.send(record.last)
        elif channel is self._vault:
            for record in self._records.values():
                if record.mode == "armed" or record.capture:
                    self._seal(record, "vault-restarted")
        elif channel in self._workers:
            for record in [r for r in self._records.values() if r.worker is channel and r.ports is not None]:
                self._reopen(record)

    def _reopen(self, record: Record) -> None:
        """The same ports in the new worker; what was armed is sealed, and goes on with its capture when released: the
        field that was being keyed is to be keyed again."""
        assert record.ports is not None
        if record.capture:
            self._vault.send(m.Act(record.capture, "interrupted"))
            if record.mode != "armed":  # not yet armed: nothing was keyed
                self._agent.send(m.Armed(record.call, record.capture, False))
                record.capture = 0
            record.mode = "sealed" if record.mode == "armed" else "guarded"
        elif record.mode != "sealed":
            record.mode = "guarded"
        call = self._b2bua.calls.get(record.call)
        if call is not None:
            call.mode = record.mode
        setups = [
            m.LegSetup(leg.side, leg.bind, leg.peer_rule, leg.peer_network, port)
            for leg, port in zip(record.opened.legs, record.ports, strict=True)
        ]
        record.worker.send(m.OpenCall(record.call, (setups[0], setups[1]), record.mode, record.opened.record))
        self._tell(record)
        log.get().warning("media-reopened", call=record.call, mode=record.mode)

    def _stop(self, message: m.Stop, now: float) -> None:
        self._b2bua.stopping = True
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
                (call.legs[0].dialog.call_id, call.legs[1].dialog.call_id), call.route.name, call.began, record.capture,
            )  # fmt: skip
        elif record.last is not None:
            last = record.last
            record.last = m.CallState(
                last.call, state or last.state, record.mode, last.direction, last.number, last.correlation,
                last.sip_call_ids, last.route, last.began, 0,
            )  # fmt: skip
        if record.last is not None:
            self._agent.send(record.last)


def _peer(name: str, side: str, address: str, sources: tuple[str, ...]) -> Peer:
    at = endpoint(address, "peer.address")
    return Peer(name, side, at, tuple(ip_network(source) for source in sources or (at[0],)))


def _advertised(config: Config, side: str) -> Endpoint:
    own = config.side(side)
    return endpoint(own.sip_advertise or own.sip_listen, f"{side}.sip_listen")


def _leg_media(leg: LegMedia) -> m.LegMedia:
    host, port = leg.remote if leg.remote is not None else ("", 0)
    return m.LegMedia(host, port, leg.receive, leg.send, leg.ptime, leg.control_port)
