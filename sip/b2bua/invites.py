"""INVITE as it comes: a new call, a change of a call, its ACK and its CANCEL."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sip import limits, session_timer
from sip.b2bua import relay
from sip.b2bua.answers import Answers
from sip.b2bua.call import Call, Exchange, Fork, Leg, clean
from sip.b2bua.core import HOP, OPENING, Core, hops_left, target_at
from sip.b2bua.ends import Ends
from sip.b2bua.events import MediaWanted
from sip.b2bua.negotiation import Negotiation
from sip.b2bua.peers import AGENT, Peer, find_route
from sip.b2bua.refresh import Refresh
from sip.b2bua.relay import SDP
from sip.dialog import Dialog
from sip.errors import PeerError
from sip.headers.address import Address
from sip.message import Request
from sip.registrar import owner
from sip.transaction import Cancelled, ServerTransaction
from sip.uri import Uri

_IDENTITY = ("P-Asserted-Identity", "Privacy")
"""Headers of the first INVITE that a transfer repeats."""
_SPOKEN = frozenset({SDP, "application/*", "*/*"})


@dataclass(slots=True)
class Invites:
    """The calling side of every INVITE."""

    core: Core
    ends: Ends
    refresh: Refresh
    answers: Answers

    # A new call

    def begin(self, request: Request, transaction: ServerTransaction, peer: Peer, now: float) -> None:
        """Take a call: its media is asked for first. Raises PeerError."""
        core = self.core
        hops_left(request)
        body = offered(request)
        uri = Uri.parse(request.uri)
        if core.stopping or len(core.calls) >= limits.CALLS:
            raise PeerError("no new calls are taken", 503)
        route = find_route(core.routes, request, peer, uri.user)
        target = core.peer(route.target) if route is not None else None
        if route is None or target is None:
            raise PeerError("no route fits this call", 404)
        if peer.registered and owner(transaction.source.name)[1] != _number(request.from_):
            raise PeerError("a browser calls as the extension that it has registered", 403)
        places = core.locate(target, uri.number) if target.registered else []
        hops = core.hops(target) or [hop for hop, _ in places[:1]]
        if not hops:
            raise PeerError(
                "nobody is registered there, or the next hop's name is not known", 480 if target.registered else 503
            )
        session_timer.as_server(request, peer.session_seconds, peer.least_session_seconds, now)
        near = Dialog.as_server(request, core.ids(), transaction.source)
        far = core.outward(target, hops[0], uri, request)
        fork = Fork([near, far], Negotiation([core.end(peer), core.end(target)]))
        if body is not None:
            fork.media.ends[0].read(body)
        caller, called = clean(_number(request.from_)), clean(uri.number)
        extension = called if target.side == AGENT else caller
        correlation = clean(request.get(core.site.correlation) or "")[:128] if peer.side == AGENT else ""
        legs = [Leg(peer, [], request.tokens("Allow")), Leg(target, [] if places else hops, places=places)]
        call = Call(core.ids(), route, legs, fork, route.mode, caller, extension, correlation, now)
        call.called = called
        if not peer.registered:  # what a browser says of itself is not passed on, in a transfer neither
            call.identity = [(name, value) for name in _IDENTITY for value in request.lines(name)]
        call.exchange = transaction.owner = _exchange(call, 0, transaction, fork, body is not None)
        core.calls[call.id] = call
        core.enter(call, fork)
        core.alarms.set((call.id, OPENING), now + limits.MEDIA_SECONDS)
        core.layer.respond(transaction, request.response(100), now)
        ice = fork.media.ends[0].ice, fork.media.ends[1].ice
        core.events.append(MediaWanted(call.id, (peer.side, target.side), ice))

    def opened(self, call: Call, places: tuple[tuple[str, int], tuple[str, int]], fingerprint: str, now: float) -> None:
        """The worker has opened a port a leg: the INVITE goes on."""
        ex = call.exchange
        if ex is None or call.state != "opening":
            return
        self.core.alarms.cancel((call.id, OPENING))
        for end, (host, port) in zip(call.fork.media.ends, places, strict=True):
            end.host, end.port, end.fingerprint = host, port, fingerprint
        call.state = "inviting"
        self.core.look_for_guard(call, 0, ex.server.request)
        self.try_next(ex, now)

    def try_next(self, ex: Exchange, now: float) -> None:
        """Send a first INVITE to the next hop that is left. Raises PeerError (503) where there is none."""
        call, core = ex.call, self.core
        leg, dialog = call.legs[1], call.fork.dialogs[1]
        if leg.places:
            self._ring(ex, now)
            return
        if not leg.hops:
            raise PeerError("no next hop is left", 503)
        hop = leg.hops.pop(0)
        dialog.peer, dialog.target = hop, str(target_at(Uri.parse(dialog.target), hop))
        self.forward(ex, now)
        if leg.hops:
            core.alarms.set((call.id, HOP), now + leg.peer.failover_seconds)

    def _ring(self, ex: Exchange, now: float) -> None:
        """Send a first INVITE to every browser of the number: the first that answers has the call."""
        leg, dialog = ex.call.legs[1], ex.call.fork.dialogs[1]
        (dialog.peer, dialog.target), *others = leg.places
        leg.places = []
        self.forward(ex, now)
        assert ex.client is not None
        sent = ex.client.request
        for hop, target in others:
            request = Request(sent.headers[1:], bytearray(sent.body), "INVITE", target)  # without the first one's Via
            ex.beside.append(self.core.layer.send(request, leg.peer.side, hop, now, partial(self.answers.take, ex)))

    def forward(self, ex: Exchange, now: float) -> None:
        """Send the INVITE on the other leg."""
        call, core, source = ex.call, self.core, ex.server.request
        index = 1 - ex.source
        leg, dialog = call.legs[index], ex.fork.dialogs[index]
        left = hops_left(source) - 1
        body = relay.description(source)
        if body is not None:
            ex.fork.media.withdraw()  # of an attempt before this one
            described, _ = ex.fork.media.pass_(ex.source, body, final=False)
        request = dialog.request("INVITE")
        request.set("Max-Forwards", str(left))
        core.carry(call, index, source, request)
        request.headers += [("Contact", core.contact(leg, dialog.peer)), ("Allow", relay.ALLOW)]
        tags = ["timer", "replaces"] + (["100rel"] if ex.offer_came or ex.reliable else [])
        request.headers.append(("Supported", ", ".join(tags)))
        self.refresh.ask(leg, request, call.state == "answered")
        if body is not None:
            relay.put_description(source, request, described, core.passes(call, index))
        elif source.body and not core.withheld(call, ex.source, source, "INVITE"):
            relay.carry_body(source, request, core.passes(call, index))
        relay.rule(request, leg.peer)
        if ex.challenge is not None:
            core.authorize(leg, request, ex.challenge)
        ex.invite_dialog = dialog
        hop = dialog.peer if call.state == "inviting" else core.next_hop(leg, dialog)
        ex.client = core.layer.send(request, leg.peer.side, hop, now, partial(self.answers.take, ex))

    # A call that changes

    def again(self, call: Call, index: int, request: Request, transaction: ServerTransaction, now: float) -> None:
        """A re-INVITE. Raises PeerError."""
        core, fork = self.core, call.fork
        if call.state != "answered" or (call.exchange is not None and call.exchange.source == index):
            core.refuse(transaction, 500, now)
            return
        if call.exchange is not None or call.waiting or fork.media.pending:
            core.refuse(transaction, 491, now)
            return
        body = offered(request)
        timed = self.refresh.answer(call, index, request, now)
        fork.dialogs[index].refresh(request)
        core.look_for_guard(call, index, request)
        ex = _exchange(call, index, transaction, fork, body is not None)
        if call.armed or call.capturing or call.transfer is not None:
            self._answer_here(ex, body, timed, now)
        else:
            self.forward(ex, now)
            core.layer.respond(transaction, request.response(100), now)
        call.exchange = transaction.owner = ex

    def _answer_here(self, ex: Exchange, body: bytearray | None, timed: str, now: float) -> None:
        """Answer without the other side: while keys are captured nothing may stop their way. Raises PeerError."""
        call, core = ex.call, self.core
        media = ex.fork.media
        described = media.answer_here(ex.source, body) if body is not None else media.offer_here(ex.source)
        ex.here, ex.accepted, ex.settled = True, ex.fork, body is not None
        answer = self.answers.make(ex, 200, "OK", timed)
        answer.put_body(SDP, described)
        core.layer.respond(ex.server, answer, now)
        if body is not None:
            core.agreed(call, ex.fork)

    # ACK and CANCEL

    def acknowledged(self, call: Call, index: int, request: Request, now: float) -> None:
        """The ACK of a 2xx goes on."""
        ex = next((ex for ex in (call.exchange, call.detached) if ex is not None and ex.source == index), None)
        if ex is None or ex.accepted is None or request.cseq[0] != ex.server.request.cseq[0]:
            return
        self.core.layer.acknowledged(ex.server)
        media, body = ex.accepted.media, b""
        try:
            description = relay.description(request)
            if description is not None and not ex.settled:
                if ex.here:
                    media.answered_here(index, description)
                    self.core.agreed(call, ex.accepted)
                elif media.pending:
                    body, _ = media.pass_(index, description, final=True)
                    self.core.agreed(call, ex.accepted)
        except PeerError:
            self.core.counters["refused"] += 1
        if ex.here and not ex.settled and media.ends[index].stream is None:
            self.ends.end(call, "no-answer-in-ack", now)  # it took a leg over and never said where it listens
            return
        if ex is call.detached:
            call.detached = None
        else:
            media.withdraw()
            self.ends.acknowledge(ex, body)
            call.exchange = None
        self.refresh.due(call, now)

    def cancelled(self, event: Cancelled, now: float) -> None:
        """The peer takes its INVITE back."""
        ex, reasons = event.transaction.owner, event.request.lines("Reason")
        if not isinstance(ex, Exchange):
            self.core.refuse(event.transaction, 487, now)
            return
        for client in ex.clients:
            client.reasons = reasons
        call = ex.call
        if call.state != "answered":
            self.ends.end(call, "cancelled", now, status=487, cause=event.request)
            return
        if ex.client is not None:  # a re-INVITE: the call goes on as it was
            self.core.layer.cancel(ex.client, now)
        self.answers.refuse(ex, 487, now)
        call.exchange = None
        ex.fork.media.withdraw()
        self.refresh.due(call, now)


def _exchange(call: Call, source: int, transaction: ServerTransaction, fork: Fork, offer: bool) -> Exchange:
    request = transaction.request
    insists = "100rel" in request.tokens("Require")
    able = insists or "100rel" in request.tokens("Supported")
    return Exchange(call, source, transaction, fork, offer_came=offer, reliable=able, insists=insists)


def offered(request: Request) -> bytearray | None:
    """The description in an INVITE or UPDATE. Raises PeerError (415) for a body that must be understood and is not."""
    body = relay.description(request)
    accepted = request.tokens("Accept")
    if request.method == "INVITE" and accepted and not (accepted & _SPOKEN):
        raise PeerError("the peer does not accept SDP", 406)
    if body is None and request.body:
        optional = "handling=optional" in (request.get("Content-Disposition") or "").lower().replace(" ", "")
        if not optional:
            raise PeerError("body is not SDP", 415)
    return body


def _number(address: Address) -> str:
    try:
        return Uri.parse(address.uri).number
    except PeerError:
        return ""
