"""The pair of dialogs: requests and answers in on one leg, out on the other.

Five verbs, none of which waits: `receive_datagram`, `get_timer`, `handle_timer`, and the lists `outgoing` and `events`
that the host empties. Media is asked for with an event and answered with `media_opened` or `media_failed`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from ipaddress import ip_address

from sip import digits, limits
from sip.b2bua.call import Call, Exchange, Leg, Passing
from sip.b2bua.events import CallChanged, Event, KeyReceived, MediaWanted
from sip.b2bua.peers import AGENT, TRUNK, Peer, Route, find_peer, find_route
from sip.b2bua.refusal import answer_unread
from sip.b2bua.relay import ALLOW, METHODS, carry, carry_body
from sip.dialog import Dialog
from sip.errors import PeerError
from sip.headers.address import Address
from sip.headers.params import number
from sip.headers.via import Endpoint
from sip.message import Message, Request, Response, parse
from sip.transaction import (
    PROCEEDING,
    AckMissing,
    Cancelled,
    ClientTransaction,
    Outgoing,
    RequestReceived,
    ResponseReceived,
    ServerTransaction,
    TransactionLayer,
)
from sip.uri import Uri

SDP = "application/sdp"
HARMLESS = frozenset({"application/media_control+xml"})
"""Bodies of INFO that pass to the agent side: picture requests (RFC 5168)."""


class B2bua:
    """All calls of one signalling process.

    advertised: (host, port) of this box by side; ids: gives unguessable tokens; correlation_header: the one that the
    agent side may set to name a call, never taken from the trunk.
    """

    def __init__(
        self,
        peers: tuple[Peer, ...],
        routes: tuple[Route, ...],
        advertised: dict[str, Endpoint],
        ids: Callable[[], str],
        mode_of: Callable[[Route], str] = lambda route: "guarded",
        correlation_header: str = "X-Correlation-ID",
    ) -> None:
        self._peers, self._routes, self._advertised, self._ids = peers, routes, advertised, ids
        self._mode_of, self._correlation = mode_of, correlation_header
        self._layer = TransactionLayer({side: _join(at) for side, at in advertised.items()}, ids)
        self._dialogs: dict[tuple[str, str], tuple[Call, int]] = {}
        self._opening: dict[str, float] = {}
        self.calls: dict[str, Call] = {}
        self.events: list[Event] = []
        self.stopping = False
        self.counters = {"strangers": 0, "malformed": 0, "refused": 0, "digits": 0, "withheld": 0}

    @property
    def outgoing(self) -> list[Outgoing]:
        return self._layer.outgoing

    # What arrives

    def receive_datagram(self, data: bytes | bytearray, side: str, source: Endpoint, now: float) -> None:
        """Take a datagram that came to `side`. Strangers and what cannot be read are counted; nothing is raised."""
        peer = find_peer(self._peers, side, source[0])
        if peer is None:
            self.counters["strangers"] += 1
            return
        if len(data) <= 4:
            return  # keep-alive
        try:
            message = parse(data)
        except PeerError as error:
            self.counters["malformed"] += 1
            self._refuse_unread(data, side, source, error)
            return
        try:
            if isinstance(message, Request):
                self._layer.receive_request(message, side, source, now)
            else:
                self._layer.receive_response(message, now)
        except PeerError:
            self.counters["malformed"] += 1
        self._work(peer, now)
        if message.body and message.content_type != SDP:
            message.wipe()  # it may have held a key: no transaction keeps it

    def _refuse_unread(self, data: bytes | bytearray, side: str, source: Endpoint, error: PeerError) -> None:
        """Answer a request that cannot be read, if it says to whom (RFC 3261 section 8.2)."""
        answer = answer_unread(data, error.status)
        if answer is not None:
            self.outgoing.append(Outgoing(answer.encode(), side, answer.via.reply_to(source)))

    def get_timer(self) -> float | None:
        """When to call `handle_timer`."""
        times = [t for t in (self._layer.get_timer(), min(self._opening.values(), default=None)) if t is not None]
        return min(times, default=None)

    def handle_timer(self, now: float) -> None:
        """Fire what is due."""
        self._layer.handle_timer(now)
        for call_id in [key for key, when in self._opening.items() if when <= now]:
            self.media_failed(call_id, now)
        self._work(None, now)

    def _work(self, peer: Peer | None, now: float) -> None:
        while self._layer.events:
            event = self._layer.events.pop(0)
            try:
                if isinstance(event, RequestReceived):
                    assert peer is not None
                    self._request(event, peer, now)
                elif isinstance(event, ResponseReceived):
                    self._response(event, now)
                elif isinstance(event, Cancelled):
                    self._cancelled(event, now)
                elif isinstance(event, AckMissing) and isinstance(event.transaction.owner, Exchange):
                    self.hang_up(event.transaction.owner.call.id, "ack-missing", now)
            except PeerError as error:
                self.counters["refused"] += 1
                if isinstance(event, RequestReceived) and event.transaction is not None:
                    self._refuse(event.transaction, error.status, now)

    # Requests

    def _request(self, event: RequestReceived, peer: Peer, now: float) -> None:
        request, transaction = event.request, event.transaction
        found = self._find(request, event.side)
        if transaction is None:
            if found is not None:
                self._ack(found[0], found[1], request)
            return
        if request.method not in METHODS:
            self._refuse(transaction, 405, now)
        elif request.every("Require") and request.method != "CANCEL":
            answer = request.response(420, tag=self._ids())
            answer.headers.append(("Unsupported", ", ".join(request.every("Require"))))
            self._layer.respond(transaction, answer, now)
        elif found is not None:
            self._in_dialog(found[0], found[1], request, transaction, now)
        elif request.to.tag:
            self._refuse(transaction, 481, now)
        elif request.method == "OPTIONS" and self.stopping:
            self._refuse(transaction, 503, now)
        elif request.method == "OPTIONS":
            answer = request.response(200, tag=self._ids())
            answer.headers += [("Allow", ALLOW), ("Accept", SDP)]
            self._layer.respond(transaction, answer, now)
        elif request.method == "INVITE":
            self._invite(request, transaction, peer, now)
        else:
            self._refuse(transaction, 481 if request.method in ("BYE", "INFO") else 405, now)

    def _find(self, request: Request, side: str) -> tuple[Call, int] | None:
        """The call and leg of a request within a dialog: Call-ID, both tags and the side must fit."""
        found = self._dialogs.get((request.call_id, request.to.tag)) if request.to.tag else None
        if found is None:
            return None
        leg = found[0].legs[found[1]]
        same = leg.peer.side == side and leg.dialog.remote.tag in ("", request.from_.tag)
        return found if same else None

    def _refuse(self, transaction: ServerTransaction, status: int, now: float) -> None:
        answer = transaction.request.response(status, tag=self._ids())
        if status == 405:
            answer.headers.append(("Allow", ALLOW))
        if status == 415:
            answer.headers.append(("Accept", SDP))
        if status == 503:
            answer.headers.append(("Retry-After", "10"))
        self._layer.respond(transaction, answer, now)

    def _invite(self, request: Request, transaction: ServerTransaction, peer: Peer, now: float) -> None:
        if _hops(request) == 0:
            raise PeerError("Max-Forwards is used up", 483)
        if request.body and request.content_type != SDP:
            raise PeerError("body is not SDP", 415)
        uri = Uri.parse(request.uri)
        route = find_route(self._routes, peer, uri.user)
        if self.stopping or len(self.calls) >= limits.CALLS:
            raise PeerError("no new calls are taken", 503)
        target = next((p for p in self._peers if route is not None and p.name == route.target), None)
        if route is None or target is None:
            raise PeerError("no route fits this call", 404)
        local_tag, remote_tag = self._ids(), self._ids()
        near = Dialog.as_server(request, local_tag, transaction.source)
        far = Dialog(
            self._ids(), request.from_.tagged(remote_tag), request.to, str(uri.at(*target.address)), target.address
        )
        legs = (
            Leg(peer, self._advertised[peer.side][0], near, session=str(int(self._ids()[:12], 16))),
            Leg(target, self._advertised[target.side][0], far, session=str(int(self._ids()[:12], 16))),
        )
        extension = uri.number if target.side == AGENT else _number(request.from_)
        correlation = (request.get(self._correlation) or "")[:128] if peer.side == AGENT else ""
        call = Call(self._ids(), route, legs, self._mode_of(route), extension, correlation, now)
        call.exchange = transaction.owner = Exchange(call, 0, transaction)
        if request.body:
            call.pass_sdp(0, request, final=False)
        self.calls[call.id] = call
        self._dialogs[near.call_id, local_tag] = (call, 0)
        self._dialogs[far.call_id, remote_tag] = (call, 1)
        self._opening[call.id] = now + limits.MEDIA_SECONDS
        self._layer.respond(transaction, request.response(100), now)
        self.events.append(MediaWanted(call.id, (peer.side, target.side)))

    def media_opened(self, call_id: str, ports: tuple[int, int], now: float) -> None:
        """The worker has opened a port a leg, in the order of `MediaWanted.sides`: the INVITE goes on."""
        call = self.calls.get(call_id)
        if call is None or call.exchange is None or call.state != "opening":
            return
        self._opening.pop(call_id, None)
        for leg, port in zip(call.legs, ports, strict=True):
            leg.port = port
        source = call.exchange.server.request
        request = call.legs[1].dialog.request("INVITE")
        request.set("Max-Forwards", str(_hops(source) - 1))
        call.state = "inviting"
        self._forward_invite(call, call.exchange, source, request, now)

    def media_failed(self, call_id: str, now: float) -> None:
        """No ports, no worker: the call is refused."""
        self.hang_up(call_id, "no-media", now, status=503)

    def _forward_invite(self, call: Call, exchange: Exchange, source: Request, request: Request, now: float) -> None:
        leg = call.legs[1 - exchange.source]
        carry(source, request, self._correlation)
        request.headers += [("Contact", self._contact(leg)), ("Allow", ALLOW)]
        if source.body:
            body, _ = call.pass_sdp(exchange.source, source, final=False)
            request.put_body(SDP, body)
        exchange.client = self._layer.send(request, leg.peer.side, self._next_hop(leg), now, exchange)

    def _in_dialog(self, call: Call, index: int, request: Request, transaction: ServerTransaction, now: float) -> None:
        dialog = call.legs[index].dialog
        if not dialog.admit(request):
            self._refuse(transaction, 500, now)
        elif request.method == "BYE":
            self._layer.respond(transaction, request.response(200), now)
            self._end(call, "bye", now, spare=index, cause=request)
        elif request.method == "OPTIONS":
            answer = request.response(200)
            answer.headers += [("Allow", ALLOW), ("Accept", SDP)]
            self._layer.respond(transaction, answer, now)
        elif request.method == "INVITE":
            self._reinvite(call, index, request, transaction, now)
        else:
            self._pass_on(call, index, request, transaction, now)

    def _reinvite(self, call: Call, index: int, request: Request, transaction: ServerTransaction, now: float) -> None:
        if call.exchange is not None:
            self._refuse(transaction, 491, now)
            return
        if request.body and request.content_type != SDP:
            raise PeerError("body is not SDP", 415)
        call.legs[index].dialog.refresh(request)
        exchange = Exchange(call, index, transaction)
        outward = call.legs[1 - index].dialog.request("INVITE")
        self._forward_invite(call, exchange, request, outward, now)
        call.exchange = exchange
        transaction.owner = exchange
        self._layer.respond(transaction, request.response(100), now)

    def _pass_on(self, call: Call, index: int, request: Request, transaction: ServerTransaction, now: float) -> None:
        """INFO and MESSAGE: keys from the trunk stay here; the rest passes."""
        from_trunk = call.legs[index].peer.side == TRUNK and call.mode != "passthrough"
        if from_trunk and digits.holds_digits(request):
            key = digits.take(request)
            self.counters["digits"] += 1
            self._layer.respond(transaction, request.response(200 if key.event >= 0 else 400), now)
            if key.event >= 0:
                self.events.append(KeyReceived(call.id, key.event))
            return
        if from_trunk and self._withheld(call, request, request.method):
            self._refuse(transaction, 415, now)
            return
        if call.passing >= limits.EVENTS_PER_CALL or call.state not in ("answered", "inviting", "ringing"):
            self._refuse(transaction, 503, now)
            return
        leg = call.legs[1 - index]
        outward = leg.dialog.request(request.method)
        carry(request, outward, self._correlation)
        carry_body(request, outward)
        call.passing += 1
        self._layer.send(outward, leg.peer.side, self._next_hop(leg), now, Passing(call, index, transaction))

    def _withheld(self, call: Call, message: Message, method: str) -> bool:
        """Whether a body from the trunk must not reach the agent: any while a capture runs, and in INFO those that
        are not known to be harmless, since a key can be written in many ways."""
        if not message.body:
            return False
        if call.mode in ("armed", "sealed") or (method == "INFO" and message.content_type not in HARMLESS):
            self.counters["withheld"] += 1
            return True
        return False

    def _ack(self, call: Call, index: int, request: Request) -> None:
        exchange = call.exchange
        if exchange is None or exchange.source != index or exchange.answer is None or exchange.client is None:
            return
        if request.cseq[0] != exchange.server.request.cseq[0]:
            return
        self._layer.acknowledged(exchange.server)
        body = b""
        if request.body and call.offered is not None:
            try:
                body, agreed = call.pass_sdp(index, request, final=True)
                if agreed:
                    self.events.append(call.agreed())
            except PeerError:
                self.counters["refused"] += 1
        self._send_ack(call, exchange, body)
        call.exchange = call.offered = None

    def _send_ack(self, call: Call, exchange: Exchange, body: bytes) -> None:
        assert exchange.client is not None
        leg = call.legs[1 - exchange.source]
        ack = leg.dialog.request("ACK", exchange.client.request.cseq[0])
        if body:
            ack.put_body(SDP, body)
        exchange.ack = self._layer.send_ack(ack, leg.peer.side, self._next_hop(leg))

    def _cancelled(self, event: Cancelled, now: float) -> None:
        exchange, reasons = event.transaction.owner, event.request.every("Reason")
        if not isinstance(exchange, Exchange):
            self._refuse(event.transaction, 487, now)
            return
        if exchange.client is not None:
            exchange.client.reasons = reasons
        if exchange.call.state == "answered":  # a re-INVITE: the call goes on as it was
            if exchange.client is not None:
                self._layer.cancel(exchange.client, now)
            self._answer_source(exchange, 487, now)
            exchange.call.exchange = None
            exchange.call.offered = None
        else:
            self.hang_up(exchange.call.id, "cancelled", now, status=487)

    # Answers

    def _response(self, event: ResponseReceived, now: float) -> None:
        owner = event.transaction.owner
        if isinstance(owner, Exchange):
            self._invite_answered(owner, event.response, event.transaction, now)
        elif isinstance(owner, Passing):
            self._passed(owner, event.response, now)

    def _passed(self, passing: Passing, response: Response, now: float) -> None:
        if response.status < 200:
            return
        passing.call.passing -= 1
        answer = passing.server.request.response(response.status, response.reason)
        carry(response, answer, self._correlation)
        to_agent = passing.call.legs[passing.source].peer.side == AGENT and passing.call.mode != "passthrough"
        if not to_agent or not self._withheld(passing.call, response, passing.server.request.method):
            carry_body(response, answer)
        self._layer.respond(passing.server, answer, now)

    def _invite_answered(self, ex: Exchange, response: Response, client: ClientTransaction, now: float) -> None:
        call, leg = ex.call, ex.call.legs[1 - ex.source]
        if response.status == 100:
            return
        if 200 <= response.status < 300 and (ex.ack or ex.answer is not None):
            if ex.ack:
                self.outgoing.append(Outgoing(ex.ack, leg.peer.side, self._next_hop(leg)))
            return
        if call.ended or ex.server.state != PROCEEDING:
            if 200 <= response.status < 300:  # it crossed the CANCEL: take it and hang up (RFC 3261 section 15)
                leg.dialog.remote = response.to
                with contextlib.suppress(PeerError):
                    leg.dialog.learn(response)
                self._send_ack(call, ex, b"")
                if call.ended:
                    self._bye(leg, None, now)
            return
        if response.status < 200:
            self._provisional(ex, response, now)
        elif response.status < 300:
            self._accepted(ex, response, now)
        else:
            answer = ex.server.request.response(response.status, response.reason, self._tag(call, ex.source))
            carry(response, answer, self._correlation)
            answer.headers += [("Contact", c) for c in response.every("Contact") if response.status < 400]
            self._layer.respond(ex.server, answer, now)
            call.exchange = None
            call.offered = None
            if call.state != "answered":
                self._close(call, "refused")

    def _provisional(self, ex: Exchange, response: Response, now: float) -> None:
        ex.provisionals += 1
        if ex.provisionals > limits.EARLY_RESPONSES:
            return
        leg = ex.call.legs[1 - ex.source]
        if ex.call.state != "answered" and response.to.tag:
            leg.dialog.learn(response)
        try:
            answer = self._relayed(ex, response, final=False)
        except PeerError:  # a description that cannot be used yet need not stop the ringing
            response.body.clear()
            answer = self._relayed(ex, response, final=False)
        self._layer.respond(ex.server, answer, now)
        if ex.call.state == "inviting":
            ex.call.state = "ringing"
            self.events.append(CallChanged(ex.call.id, "ringing"))

    def _accepted(self, ex: Exchange, response: Response, now: float) -> None:
        call, leg = ex.call, ex.call.legs[1 - ex.source]
        first = call.state != "answered"
        try:
            if first:
                leg.dialog.learn(response)
            else:
                leg.dialog.refresh(response)
            answer = self._relayed(ex, response, final=True)
        except PeerError as error:
            self.counters["refused"] += 1
            self._send_ack(call, ex, b"")
            self._answer_source(ex, error.status, now)
            call.exchange = None
            if first:
                leg.dialog.remote = response.to
                self._bye(leg, None, now)
                self._close(call, "unusable-answer")
            return
        ex.answer = response
        call.state = "answered"
        self._layer.respond(ex.server, answer, now)
        if first:
            self.events.append(CallChanged(call.id, "answered"))

    def _relayed(self, ex: Exchange, response: Response, final: bool) -> Response:
        """The answer for the leg that asked, SDP rebuilt."""
        call, source = ex.call, ex.call.legs[ex.source]
        answer = ex.server.request.response(response.status, response.reason, self._tag(call, ex.source))
        carry(response, answer, self._correlation)
        answer.headers += [("Contact", self._contact(source)), ("Allow", ALLOW)]
        route = ex.server.request.every("Record-Route")
        answer.headers += [("Record-Route", value) for value in route]
        if response.content_type == SDP:
            body, agreed = call.pass_sdp(1 - ex.source, response, final)
            answer.put_body(SDP, body)
            if agreed:
                self.events.append(call.agreed())
        elif final and call.offered is not None and call.offered[0] == ex.source and source.described:
            answer.put_body(SDP, source.described)  # the answer came in an 18x and was not repeated
            call.offered = None
        elif response.body and call.mode not in ("armed", "sealed"):
            carry_body(response, answer)
        return answer

    # Ends

    def hang_up(self, call_id: str, reason: str, now: float, status: int = 480) -> None:
        """End a call from here: BYE to what is answered, CANCEL or `status` to what is not."""
        call = self.calls.get(call_id)
        if call is not None:
            self._end(call, reason, now, status=status)

    def _end(
        self, call: Call, reason: str, now: float, spare: int = -1, status: int = 487, cause: Message | None = None
    ) -> None:
        """End both legs but `spare`, which has said goodbye itself."""
        ex, answered = call.exchange, call.state == "answered"
        if ex is not None and ex.answer is None:
            self._answer_source(ex, status, now)
            if ex.client is not None:
                self._layer.cancel(ex.client, now)
        elif ex is not None and ex.answer is not None and not ex.ack:
            self._layer.acknowledged(ex.server)
            self._send_ack(call, ex, b"")
        for index, leg in enumerate(call.legs):
            if answered and index != spare:
                self._bye(leg, cause, now)
        self._close(call, reason)

    def _bye(self, leg: Leg, cause: Message | None, now: float) -> None:
        request = leg.dialog.request("BYE")
        if cause is not None:
            carry(cause, request, self._correlation)
        self._layer.send(request, leg.peer.side, self._next_hop(leg), now)

    def _close(self, call: Call, reason: str) -> None:
        call.state = "ended"
        call.exchange = None
        self.calls.pop(call.id, None)
        self._opening.pop(call.id, None)
        for leg in call.legs:
            self._dialogs.pop((leg.dialog.call_id, leg.dialog.local.tag), None)
        self.events.append(CallChanged(call.id, "ended", reason))

    def _answer_source(self, ex: Exchange, status: int, now: float) -> None:
        answer = ex.server.request.response(status, tag=self._tag(ex.call, ex.source))
        if status == 503:
            answer.headers.append(("Retry-After", "10"))
        self._layer.respond(ex.server, answer, now)

    # Small things

    def _tag(self, call: Call, index: int) -> str:
        return call.legs[index].dialog.local.tag

    def _contact(self, leg: Leg) -> str:
        return f"<sip:{_join(self._advertised[leg.peer.side])}>"

    def _next_hop(self, leg: Leg) -> Endpoint:
        """The first route or the target where it is an address of its own; the configured peer otherwise."""
        text = Address.parse(leg.dialog.route[0]).uri if leg.dialog.route else leg.dialog.target
        uri = Uri.parse(text)
        known = leg.peer.address
        if _is_address(uri.host) and leg.peer.speaks_from(uri.host):
            return (uri.host, uri.port or 5060)
        return leg.dialog.peer or known


def _hops(request: Request) -> int:
    hops = number(request.get("Max-Forwards") or "70", 255)
    if hops is None:
        raise PeerError("Max-Forwards cannot be read")
    return hops


def _number(address: Address) -> str:
    try:
        return Uri.parse(address.uri).number
    except PeerError:
        return ""


def _join(at: Endpoint) -> str:
    return f"[{at[0]}]:{at[1]}" if ":" in at[0] else f"{at[0]}:{at[1]}"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
