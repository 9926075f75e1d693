"""Requests within a dialog other than INVITE: keys kept here, the rest passed on, some answered here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sip import digits
from sip.b2bua import relay
from sip.b2bua.answers import Answers
from sip.b2bua.call import Call, Fork, Passing
from sip.b2bua.core import Core, too_many
from sip.b2bua.ends import Ends
from sip.b2bua.events import KeyReceived
from sip.b2bua.invites import offered
from sip.b2bua.peers import TRUNK
from sip.b2bua.refresh import GONE, Refresh, timed_by
from sip.b2bua.relay import ALLOW, SDP
from sip.errors import PeerError
from sip.message import Request, Response
from sip.offer_answer import DTLS
from sip.transaction import ResponseReceived, ServerTransaction

_OF_THE_METHOD = {"NOTIFY": ("Subscription-State",), "REFER": ("Refer-To", "Refer-Sub"), "SUBSCRIBE": ("Expires",)}
"""Headers that a request cannot do without and `carry` leaves out, or that end there."""
TRICKLE = "application/trickle-ice-sdpfrag"
"""Candidates that come later (RFC 8840)."""
_OF_THE_SESSION = frozenset({"INFO", "UPDATE"})
"""Requests whose 408 or 481 ends the call (RFC 5057 section 5.1): others may speak of a subscription only."""


@dataclass(slots=True)
class Requests:
    """Everything within a dialog that is no INVITE."""

    core: Core
    ends: Ends
    refresh: Refresh
    answers: Answers

    def take(
        self, call: Call, index: int, fork: Fork, request: Request, transaction: ServerTransaction, now: float
    ) -> None:
        """Answer `request`, or pass it on. Raises PeerError."""
        if request.method == "BYE":
            self.core.layer.respond(transaction, request.response(200), now)
            if call.state == "answered" or index == 0 or len(call.forks) < 2:
                self.ends.end(call, "bye", now, spare=index, status=487, cause=request)
            else:  # one of several phones that ring
                self.answers.forget(call, fork, now)
        elif request.method == "OPTIONS":
            answer = request.response(200)
            answer.headers += [("Allow", ALLOW), ("Accept", SDP), ("Supported", "timer, replaces, 100rel")]
            self.core.layer.respond(transaction, answer, now)
        elif request.method == "PRACK":
            self._prack(call, index, fork, request, transaction, now)
        elif request.method == "UPDATE":
            self._update(call, index, fork, request, transaction, now)
        elif request.method == "INFO" and request.content_type == TRICKLE and call.legs[index].peer.srtp == DTLS:
            self.core.layer.respond(transaction, request.response(200), now)  # nothing is sent there until it asks
        elif not self.keys(call, index, request, transaction, now):
            self._pass_on(call, index, fork, request, transaction, now)

    # Keys

    def keys(self, call: Call, index: int, request: Request, transaction: ServerTransaction, now: float) -> bool:
        """Keep keys that the trunk side sends; returns whether the request has been dealt with. In passthrough they are
        counted and pass."""
        if call.legs[index].peer.side != TRUNK or not request.body or not digits.holds_digits(request):
            return False
        if call.mode == "passthrough":
            self.core.events.append(KeyReceived(call.id, -1, passed=True))
            return False
        found = digits.take(request)
        self.core.counters["digits"] += len(found.events)
        self.core.layer.respond(transaction, request.response(200 if found.good else 400), now)
        ended = not found.begun and found.events == call.pressed  # the end of a press that has been counted
        call.pressed = found.events if found.begun else ()
        if not ended:
            self.core.events += [KeyReceived(call.id, event) for event in found.events]
        return True

    # Reliable provisional answers, offers outside INVITE

    def _prack(
        self, call: Call, index: int, fork: Fork, request: Request, transaction: ServerTransaction, now: float
    ) -> None:
        ex = call.exchange
        words = (request.get("RAck") or "").split()
        if ex is None or ex.source != index or not ex.waiting or len(words) != 3:
            raise PeerError("PRACK fits no provisional answer", 481)
        first = ex.waiting[0]
        if words != [str(first.number), str(ex.server.request.cseq[0]), "INVITE"] or first.fork is not fork:
            raise PeerError("PRACK fits no provisional answer", 481)
        body, described = offered(request), b""
        if first.asked is None:
            answer = request.response(200)
            if body is not None:
                answer.put_body(SDP, self._answer_here(call, index, fork, body))
            self.core.layer.respond(transaction, answer, now)
        else:
            agreed = False
            if body is not None:
                described, agreed = fork.media.pass_(index, body, final=True)
            offer = body is not None and not agreed
            passing = Passing(call, index, transaction, fork, fork.dialogs[1 - index], offer)
            self.answers.prack(call, 1 - index, fork, first.asked, described, now, partial(self._passed, passing))
            call.passing += 1
            if agreed:
                self.core.agreed(call, fork)
        self.answers.acknowledged(ex, now)

    def _update(
        self, call: Call, index: int, fork: Fork, request: Request, transaction: ServerTransaction, now: float
    ) -> None:
        body = offered(request)
        crossing = call.exchange is not None and call.exchange.source != index and call.state == "answered"
        if body is not None and (fork.media.pending or call.waiting or crossing):
            same = fork.media.offered is not None and fork.media.offered[0] == index
            self.core.refuse(transaction, 500 if same else 491, now)  # RFC 3311 section 5.2
            return
        fork.dialogs[index].refresh(request)
        self.core.look_for_guard(call, index, request)
        timed = self.refresh.answer(call, index, request, now) if call.state == "answered" else ""
        here = call.armed or call.capturing or call.transfer is not None
        named = bool(request.lines("P-Asserted-Identity"))  # who is connected now (RFC 5876)
        if (body is not None or named) and not here:
            described = fork.media.pass_(index, body, final=True)[0] if body is not None else b""
            leg = call.legs[1 - index]
            outward = fork.dialogs[1 - index].request("UPDATE")
            self.core.carry(call, 1 - index, request, outward)
            outward.headers += [("Contact", self.core.contact(leg, fork.dialogs[1 - index].peer))]
            outward.headers += [("Allow", ALLOW), ("Supported", "timer")]
            if call.state == "answered":
                self.refresh.ask(leg, outward, True)
            if described:
                outward.put_body(SDP, described)
            passing = Passing(call, index, transaction, fork, fork.dialogs[1 - index], bool(described))
            call.passing += 1
            self.core.send(call, 1 - index, fork, outward, now, partial(self._passed, passing))
            return
        answer = self._own(call, index, fork, request, timed)
        if body is not None:
            answer.put_body(SDP, self._answer_here(call, index, fork, body))
        self.core.layer.respond(transaction, answer, now)

    def _own(self, call: Call, index: int, fork: Fork, request: Request, timed: str = "") -> Response:
        answer = request.response(200)
        contact = self.core.contact(call.legs[index], fork.dialogs[index].peer)
        answer.headers += [("Contact", contact), ("Allow", ALLOW), ("Supported", "timer")]
        return timed_by(answer, timed)

    def _answer_here(self, call: Call, index: int, fork: Fork, body: bytearray) -> bytes:
        described = fork.media.answer_here(index, body)
        self.core.agreed(call, fork)
        return described

    # The rest

    def _pass_on(
        self, call: Call, index: int, fork: Fork, request: Request, transaction: ServerTransaction, now: float
    ) -> None:
        if self.core.withheld(call, index, request, request.method):
            self.core.refuse(transaction, 415, now)
            return
        if too_many(call) or call.state not in ("answered", "inviting", "ringing"):
            self.core.refuse(transaction, 503, now)
            return
        if 1 - index in call.left:
            self.core.refuse(transaction, 480, now)  # the transferor has gone, the new party is not there yet
            return
        self.core.look_for_guard(call, index, request)
        passing = Passing(call, index, transaction, fork, fork.dialogs[1 - index])
        call.passing += 1
        self._send(passing, now)

    def _send(self, passing: Passing, now: float) -> None:
        call, request, index = passing.call, passing.server.request, 1 - passing.source
        leg, dialog = call.legs[index], passing.fork.dialogs[index]
        outward = dialog.request(request.method)
        self.core.carry(call, index, request, outward)
        for name in _OF_THE_METHOD.get(request.method, ()):
            if not outward.lines(name):
                outward.headers += [(name, value) for value in request.lines(name)]
        if request.method in ("REFER", "SUBSCRIBE", "NOTIFY"):
            outward.headers.append(("Contact", self.core.contact(leg, dialog.peer)))
        relay.carry_body(request, outward, self.core.passes(call, index))
        self.core.send(call, index, passing.fork, outward, now, partial(self._passed, passing))

    def refer(
        self, call: Call, index: int, fork: Fork, transaction: ServerTransaction, target: str, now: float
    ) -> None:
        """Pass a REFER on, to `target`."""
        if too_many(call):
            self.core.refuse(transaction, 503, now)
            return
        transaction.request.set("Refer-To", target)
        call.passing += 1
        self._send(Passing(call, index, transaction, fork, fork.dialogs[1 - index]), now)

    def _passed(self, passing: Passing, event: ResponseReceived, now: float) -> None:
        """The answer to a request that was passed on. Whatever it holds, who asked is answered."""
        response, call = event.response, passing.call
        if response.status < 200:
            return
        call.passing -= 1
        request, index = passing.server.request, 1 - passing.source
        if call.ended or passing.fork not in call.forks or passing.fork.dialogs[index] is not passing.dialog:
            stale = 491 if passing.offer else response.status  # whoever answers is no part of the call any more
            self.core.layer.respond(passing.server, request.response(stale), now)
            return
        try:
            if event.local and response.status == 408:
                self.core.layer.abandon(passing.server)
            else:
                self._answer(passing, response, now)
        except PeerError as error:
            self.core.counters["refused"] += 1
            self.core.refuse(passing.server, error.status, now)
        if passing.offer:  # it has been answered, or never will be
            passing.fork.media.withdraw()
        if response.status in GONE and call.state == "answered" and request.method in _OF_THE_SESSION:
            self.ends.end(call, "dialog-lost", now, spare=index)
        else:
            self.refresh.due(call, now)

    def _answer(self, passing: Passing, response: Response, now: float) -> None:
        call, request = passing.call, passing.server.request
        answer = request.response(response.status, self.core.words(call, passing.source, response))
        if request.method == "UPDATE":
            answer = self._updated(passing, response, now)
        elif request.method in ("SUBSCRIBE", "REFER", "NOTIFY") and response.status < 300:
            here = passing.fork.dialogs[passing.source].peer
            answer.headers.append(("Contact", self.core.contact(call.legs[passing.source], here)))
        self.core.carry(call, passing.source, response, answer)
        self._describe(passing, response, answer)
        relay.rule(answer, call.legs[passing.source].peer)
        self.core.layer.respond(passing.server, answer, now)

    def _updated(self, passing: Passing, response: Response, now: float) -> Response:
        """The answer to an UPDATE that was passed on: timers are each leg's own."""
        call, request = passing.call, passing.server.request
        if response.status >= 300 or call.ended:
            return request.response(response.status, self.core.words(call, passing.source, response))
        passing.fork.dialogs[1 - passing.source].refresh(response)
        timed = ""
        if call.state == "answered":
            self.refresh.answered(call, 1 - passing.source, response, now)
            timed = self.refresh.answer(call, passing.source, request, now)
        return self._own(call, passing.source, passing.fork, request, timed)

    def _describe(self, passing: Passing, response: Response, answer: Response) -> None:
        """Body of the answer: a description rebuilt, anything else as policy has it."""
        call, media = passing.call, passing.fork.media
        description = relay.description(response)
        if description is None:
            if not self.core.withheld(call, 1 - passing.source, response, passing.server.request.method):
                relay.carry_body(response, answer, self.core.passes(call, passing.source))
            return
        if not passing.offer or response.status >= 300 or not media.pending or call.ended:
            return
        try:
            body, _ = media.pass_(1 - passing.source, description, final=True)
        except PeerError:
            self.core.counters["refused"] += 1
            media.withdraw()
            answer.status, answer.reason = 488, "Not Acceptable Here"
            return
        answer.put_body(SDP, body)
        self.core.agreed(call, passing.fork)
