"""The back-to-back user agent: requests and answers in on one leg, out on the other.

Verbs, none of which waits: `receive`, `unsent`, `get_timer`, `handle_timer`, and the lists `outgoing` and `events` that
the host empties. Media is asked for with an event and answered with `media_opened` or `media_failed`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sip import digits
from sip.b2bua.answers import Answers
from sip.b2bua.call import Call, Exchange, Fork
from sip.b2bua.core import GLARE, HOP, OPENING, REFRESH, Core, Site
from sip.b2bua.ends import Ends
from sip.b2bua.events import Event
from sip.b2bua.health import ASK, WAIT, Health
from sip.b2bua.invites import Invites
from sip.b2bua.peers import Peer, Route, find_peer
from sip.b2bua.refresh import Refresh
from sip.b2bua.refusal import answer_unread
from sip.b2bua.relay import ALLOW, METHODS, SDP, TAGS, unsupported
from sip.b2bua.requests import Requests
from sip.b2bua.transfer import DEPARTED, TRANSFER, Transfers
from sip.errors import PeerError
from sip.hop import Hop
from sip.message import Request, parse
from sip.registrar import owner
from sip.transaction import (
    AckMissing,
    Cancelled,
    Outgoing,
    PrackMissing,
    RequestReceived,
    ResponseReceived,
    ServerTransaction,
)
from sip.uri import Uri

_KNOWN = METHODS | {"REGISTER", "PUBLISH"}
"""Methods that are refused with 405 where they have no business, others with 501 (RFC 3261 section 8.2.1)."""
_DESCRIBED = frozenset({"INVITE", "ACK", "PRACK", "UPDATE"})
"""Methods whose bodies are kept for as long as their transaction: they may have to be sent again."""
_OF_A_DIALOG = frozenset({"BYE", "INFO", "PRACK", "UPDATE", "NOTIFY", "REFER"})
_BURST = 2.0
"""Seconds' worth of a peer's requests that may come at once."""


class B2bua:
    """All calls of one signalling process. refuse_strangers: sides on which who is no peer gets 403, not silence."""

    def __init__(
        self,
        peers: tuple[Peer, ...],
        routes: tuple[Route, ...],
        site: Site,
        ids: Callable[[], str],
        refuse_strangers: frozenset[str] = frozenset(),
    ) -> None:
        self._refuse_strangers = refuse_strangers
        self.core = Core(peers, routes, site, ids)
        self.ends = Ends(self.core)
        refresh = Refresh(self.core, self.ends)
        answers = Answers(self.core, self.ends, refresh)
        self._refresh, self._answers = refresh, answers
        self._invites = Invites(self.core, self.ends, refresh, answers)
        self._requests = Requests(self.core, self.ends, refresh, answers)
        self._transfers = Transfers(self.core, self.ends, refresh, answers, self._requests)
        self._health = Health(self.core)
        answers.retry, answers.next = self._invites.forward, self._invites.try_next
        self.ends.before.append(self._transfers.call_ends)
        self._allowances: dict[str, tuple[float, float]] = {}

    @property
    def calls(self) -> dict[str, Call]:
        return self.core.calls

    @property
    def events(self) -> list[Event]:
        return self.core.events

    @property
    def outgoing(self) -> list[Outgoing]:
        return self.core.layer.outgoing

    @property
    def counters(self) -> dict[str, int]:
        return self.core.counters

    def start(self, now: float) -> None:
        """Begin to ask next hops whether they are there."""
        self._health.start(now)

    def stop(self) -> None:
        """Take no new calls."""
        self.core.stopping = True

    # What arrives

    def receive(self, data: bytes | bytearray, side: str, source: Hop, now: float) -> Peer | None:
        """Take a message that came to `side`; returns whose it was. Strangers and what cannot be read are counted;
        nothing is raised."""
        core = self.core
        peer = find_peer(core.peers, side, source)
        if peer is None:
            core.counters["strangers"] += 1
            if side in self._refuse_strangers:
                self._refuse_unread(data, side, source, PeerError("nobody known", 403))
            return None
        if len(data) <= 4:
            return peer  # keep-alive
        try:
            message = parse(data)
        except PeerError as error:
            core.counters["malformed"] += 1
            self._refuse_unread(data, side, source, error)
            return peer
        try:
            if isinstance(message, Request):
                core.layer.receive_request(message, side, source, now)
            else:
                core.layer.receive_response(message, now)
        except PeerError:
            core.counters["malformed"] += 1
        self._work(peer, now)
        if message.body and message.cseq[1] not in _DESCRIBED:
            message.wipe()  # it may have held a key: no transaction keeps it
        elif message.body and digits.holds_digits(message):
            digits.blank(message)
        return peer

    def admits(self, side: str, source: Hop) -> bool:
        """Whether somebody may open a connection."""
        return find_peer(self.core.peers, side, source) is not None or side in self._refuse_strangers

    def unsent(self, outgoing: Outgoing, now: float) -> None:
        """The host could not send this."""
        self.core.layer.unsent(outgoing, now)
        self._work(None, now)

    def _refuse_unread(self, data: bytes | bytearray, side: str, source: Hop, error: PeerError) -> None:
        """Answer a request that cannot be read, if it says to whom (RFC 3261 section 8.2)."""
        answer = answer_unread(data, error.status)
        if answer is not None:
            self.outgoing.append(Outgoing(answer.encode(), side, answer.via.reply_to(source)))

    def get_timer(self) -> float | None:
        """When to call `handle_timer`."""
        times = [t for t in (self.core.layer.get_timer(), self.core.alarms.next()) if t is not None]
        return min(times, default=None)

    def handle_timer(self, now: float) -> None:
        """Fire what is due."""
        self.core.layer.handle_timer(now)
        self._work(None, now)
        for name, what in self.core.alarms.ring(now):
            self._alarm(name, what, now)
        self._work(None, now)

    def _alarm(self, name: str, what: str, now: float) -> None:
        if what == ASK:
            self._health.ask(name, now)
        elif what == WAIT:
            self._health.waited(name)
        elif what == DEPARTED:
            self._transfers.linger_over(name, now)
        call = self.core.calls.get(name)
        if call is None:
            return
        if what == OPENING:
            self.media_failed(name, now)
        elif what == HOP:
            self._hop_is_silent(call, now)
        elif what == GLARE:
            self._refresh.due(call, now)
        elif what == TRANSFER:
            self._transfers.expired(call, now)
        elif what.startswith(REFRESH):
            self._refresh.ring(call, int(what[-1]), now)

    def _hop_is_silent(self, call: Call, now: float) -> None:
        ex = call.exchange
        if ex is None or ex.client is None or call.state != "inviting" or not call.legs[1].hops:
            return
        self.core.layer.leave_behind(ex.client, partial(self._answers.too_late_elsewhere, ex), now)
        self.core.down.add(ex.client.to)
        self.core.counters["failovers"] += 1
        self._invites.try_next(ex, now)

    def _work(self, peer: Peer | None, now: float) -> None:
        events = self.core.layer.events
        while events:
            event = events.pop(0)
            try:
                if isinstance(event, RequestReceived):
                    assert peer is not None
                    self._request(event, peer, now)
                elif isinstance(event, ResponseReceived):
                    if event.transaction.owner is not None:
                        event.transaction.owner(event, now)
                elif isinstance(event, Cancelled):
                    self._invites.cancelled(event, now)
                elif isinstance(event, PrackMissing):
                    self._answers.unacknowledged(event.transaction, now)
                elif isinstance(event, AckMissing) and isinstance(event.owner, Exchange):
                    self._unacknowledged(event.owner, now)
            except PeerError as error:
                self.core.counters["refused"] += 1
                if isinstance(event, RequestReceived) and event.transaction is not None:
                    self.core.refuse(event.transaction, error.status, now)

    def _unacknowledged(self, ex: Exchange, now: float) -> None:
        """No ACK came for a 2xx: the call is over, unless whoever owes it is no part of it any more."""
        if ex.call.exchange is ex:
            self.hang_up(ex.call.id, "ack-missing", now)

    # Requests

    def _request(self, event: RequestReceived, peer: Peer, now: float) -> None:
        request, transaction, core = event.request, event.transaction, self.core
        found = self._find(request, event.side)
        if transaction is None:
            if found is not None:
                self._invites.acknowledged(found[0], found[1], request, now)
            return
        if request.method not in METHODS:
            core.refuse(transaction, 405 if request.method in _KNOWN else 501, now)
        elif unsupported(request):
            core.refuse(transaction, 420, now)
        elif found is not None:
            self._in_dialog(*found, request, transaction, now)
        elif request.to.tag:
            if not self._transfers.departed_says(request, transaction, now):
                core.refuse(transaction, 481, now)
        elif not self._may(peer, now):
            core.counters["limited"] += 1
            core.refuse(transaction, 503, now)
        elif request.method == "OPTIONS":
            self._options(request, transaction, now)
        elif request.method == "INVITE" and request.lines("Replaces"):
            self._transfers.replace(request, transaction, peer, now)
        elif request.method == "INVITE":
            self._invites.begin(request, transaction, peer, now)
        else:
            core.refuse(transaction, 481 if request.method in _OF_A_DIALOG else 405, now)

    def _find(self, request: Request, side: str) -> tuple[Call, int, Fork] | None:
        """The call, leg and dialog of a request: Call-ID, both tags and the side must fit."""
        tag = request.to.tag
        found = self.core.dialogs.get((request.call_id, tag)) if tag else None
        if found is None or found[0].legs[found[1]].peer.side != side:
            return None
        fork = found[0].find(found[1], request, tag)
        return (*found, fork) if fork is not None else None

    def _options(self, request: Request, transaction: ServerTransaction, now: float) -> None:
        Uri.parse(request.uri)
        if self.core.stopping:
            self.core.refuse(transaction, 503, now)
            return
        answer = request.response(200, tag=self.core.ids())
        answer.headers += [("Allow", ALLOW), ("Accept", SDP), ("Supported", ", ".join(sorted(TAGS)))]
        self.core.layer.respond(transaction, answer, now)

    def _may(self, peer: Peer, now: float) -> bool:
        """Whether a peer's rate allows one more request outside a dialog."""
        rate = peer.requests_a_second
        if not rate:
            return True
        left, at = self._allowances.get(peer.name, (_BURST * rate, now))
        left = min(_BURST * rate, left + (now - at) * rate)
        self._allowances[peer.name] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    def _in_dialog(
        self, call: Call, index: int, fork: Fork, request: Request, transaction: ServerTransaction, now: float
    ) -> None:
        dialog, peer = fork.dialogs[index], call.legs[index].peer
        if peer.registered and owner(transaction.source.name) != owner(dialog.peer.name):
            self.core.refuse(transaction, 481, now)  # another browser's
            return
        if not dialog.admit(request):
            self.core.refuse(transaction, 500, now)
            return
        dialog.peer = _from_stream(dialog.peer, transaction.source)
        if request.method == "INVITE":
            self._invites.again(call, index, request, transaction, now)
        elif request.method == "REFER":
            self._transfers.refer(call, index, fork, request, transaction, now)
        elif request.method == "BYE" and self._transfers.hung_up(call, index, now):
            self.core.layer.respond(transaction, request.response(200), now)
        else:
            self._requests.take(call, index, fork, request, transaction, now)

    # What the host says

    def media_opened(
        self, call_id: str, places: tuple[tuple[str, int], tuple[str, int]], now: float, fingerprint: str = ""
    ) -> None:
        """The worker has opened a port a leg, in the order of `MediaWanted.sides`: (address, port) as peers see it;
        fingerprint: SHA-256 of the certificate that it shows to browsers."""
        call = self.core.calls.get(call_id)
        if call is not None:
            try:
                self._invites.opened(call, places, fingerprint, now)
            except PeerError as error:
                self.ends.end(call, "refused", now, status=error.status)

    def media_failed(self, call_id: str, now: float) -> None:
        """No ports, no worker: the call is refused."""
        self.hang_up(call_id, "no-media", now, status=503)

    def hang_up(self, call_id: str, reason: str, now: float, status: int = 480) -> None:
        """End a call from here: BYE to what is answered, CANCEL or `status` to what is not."""
        call = self.core.calls.get(call_id)
        if call is not None:
            self.ends.end(call, reason, now, status=status)

    def gone(self, flow: str, reason: str, now: float) -> None:
        """End the calls of a browser that has said that it goes away."""
        for call in list(self.core.calls.values()):
            for index, dialog in enumerate(call.fork.dialogs):
                if dialog.peer.name == flow and (call.state == "answered" or index == 0):
                    self.ends.end(call, reason, now, spare=index)


def _from_stream(known: Hop, source: Hop) -> Hop:
    """Over a stream the peer is where it spoke from last: its connection may be a new one."""
    return source if source.reliable else known
