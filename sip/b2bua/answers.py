"""What the called side answers to an INVITE: passed on, acknowledged, retried at another hop or with credentials."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sip import digest, limits, session_timer
from sip.b2bua import relay
from sip.b2bua.call import Call, Exchange, Fork, Provisional
from sip.b2bua.core import HOP, Core
from sip.b2bua.ends import Ends
from sip.b2bua.events import CallChanged
from sip.b2bua.peers import AGENT
from sip.b2bua.refresh import GONE, Refresh, timed_by
from sip.b2bua.relay import SDP
from sip.errors import PeerError
from sip.headers.params import number
from sip.hop import Hop
from sip.message import Request, Response
from sip.transaction import PROCEEDING, ResponseReceived, ServerTransaction

ATTEMPTS: Final = 3
"""How often one INVITE is sent anew for a better answer."""
_TAKEN: Final = 'SIP;cause=200;text="Call completed elsewhere"'
"""Why others stop ringing (RFC 3326 section 3.1)."""
_ELSEWHERE = frozenset({408, 500, 502, 503, 504})
"""Local or remote failures after which the next hop is tried (RFC 3263 section 4.3)."""


@dataclass(slots=True)
class Answers:
    """retry: sends an INVITE again; next: sends it to the next hop."""

    core: Core
    ends: Ends
    refresh: Refresh
    retry: Callable[[Exchange, float], None] = field(init=False)
    next: Callable[[Exchange, float], None] = field(init=False)

    def take(self, ex: Exchange, event: ResponseReceived, now: float) -> None:
        """An answer to the INVITE of `ex`. One that cannot be worked with ends it, and leaves nothing hanging."""
        try:
            self._take(ex, event, now)
        except PeerError as error:
            self.core.counters["refused"] += 1
            if ex.call.state == "answered":
                ex.fork.media.withdraw()
                self.refuse(ex, error.status, now)
                ex.call.exchange = None
            else:
                self.ends.end(ex.call, "peer-error", now, status=error.status)

    def _take(self, ex: Exchange, event: ResponseReceived, now: float) -> None:
        call, response = ex.call, event.response
        if event.transaction not in ex.clients or self._one_of_several(ex, event, now):
            return
        self.core.alarms.cancel((call.id, HOP))
        if response.status == 100:
            return
        if response.status >= 300:
            self._refused(ex, event, now)
            return
        if call.ended or ex.server.state != PROCEEDING:
            if response.status >= 200:
                self._too_late(ex, response, event.transaction.to, now)
            return
        fork = self._fork(ex, response, now)
        if fork is None:
            return
        if call.state != "answered" and call.legs[1 - ex.source].peer.registered:
            fork.dialogs[1 - ex.source].peer = event.transaction.to
        if response.status < 200:
            self._provisional(ex, fork, response, now)
            return
        for client in ex.clients:
            if client is not event.transaction:
                client.reasons = [_TAKEN]
                self.core.layer.cancel(client, now)
        ex.beside = [client for client in ex.clients if client is not event.transaction]
        ex.client = event.transaction
        self._accepted(ex, fork, response, now)

    def _one_of_several(self, ex: Exchange, event: ResponseReceived, now: float) -> bool:
        """Take note of a refusal of one browser while others ring: the last one decides, or a decline for all (RFC 3261
        section 16.7). Returns whether that was all there is to it."""
        status = event.response.status
        if status < 300 or (not ex.beside and ex.best is None):
            return False
        others = [client for client in ex.clients if client is not event.transaction]
        if ex.accepted is not None:
            ex.beside = [client for client in others if client is not ex.client]
            return event.transaction is not ex.client
        if ex.best is None or status in (486, 603):
            ex.best = event.response
        if others and status < 600:
            ex.client, *ex.beside = others
            return True
        for client in others:
            self.core.layer.cancel(client, now)
        event.response = ex.best
        return False

    def _fork(self, ex: Exchange, response: Response, now: float) -> Fork | None:
        """The early dialog that the answer's tag stands for; a new one for a new tag."""
        call, index, tag = ex.call, 1 - ex.source, response.to.tag
        if call.state == "answered":
            return call.fork
        for fork in call.forks:
            dialog = fork.dialogs[index]
            if not tag or dialog.remote.tag == tag:
                return fork
            if not dialog.remote.tag:
                dialog.remote = response.to
                return fork
        if len(call.forks) >= limits.FORKS:
            if response.status < 200:
                return None
            self.forget(call, call.forks[-1], now)
        first = call.forks[0]
        dialogs = [first.dialogs[ex.source].early(self.core.ids()), first.dialogs[index].early()]
        fork = Fork(dialogs if ex.source == 0 else dialogs[::-1], first.media.early())
        if ex.offer_came and fork.media.offered is None:
            stream = fork.media.ends[ex.source].read(relay.description(ex.server.request) or b"")
            fork.media.offered = (ex.source, stream)
        fork.dialogs[index].remote = response.to
        self.core.enter(call, fork)
        return fork

    # Provisional answers

    def _provisional(self, ex: Exchange, fork: Fork, response: Response, now: float) -> None:
        ex.provisionals += 1
        if ex.provisionals > limits.EARLY_RESPONSES:
            return
        call, index = ex.call, 1 - ex.source
        asked = self._reliable(fork, response)
        if asked == (0, 0):
            return  # again, or out of order (RFC 3262 section 4)
        try:
            if call.state != "answered" and response.to.tag:
                fork.dialogs[index].learn(response)
            answer = self._relayed(ex, fork, response, asked is not None, now)
        except PeerError:  # a description that cannot be used yet need not stop the ringing
            self.core.counters["refused"] += 1
            response.body.clear()
            answer = self._relayed(ex, fork, response, False, now)
        if ex.reliable and (asked is not None or ex.insists) and response.to.tag:
            ex.last_number += 1
            answer.headers += [("Require", "100rel"), ("RSeq", str(ex.last_number))]
            ex.waiting.append(Provisional(fork, answer, ex.last_number, asked))
            ex.answered = ex.answered or bool(answer.body)
            if len(ex.waiting) == 1:
                self.core.layer.respond_reliably(ex.server, answer, now)
        else:
            if asked is not None:
                self.prack(ex.call, index, fork, asked, b"", now)
            self.core.layer.respond(ex.server, answer, now)
        if call.state == "inviting":
            call.state = "ringing"
            self.core.events.append(CallChanged(call.id, "ringing", status=response.status))

    def _reliable(self, fork: Fork, response: Response) -> tuple[int, int] | None:
        """(RSeq, CSeq) of an answer that wants a PRACK; None for one that does not; (0, 0) for one to be dropped."""
        if "100rel" not in response.tokens("Require"):
            return None
        sequence = number(response.get("RSeq") or "", 2**31 - 1)
        if sequence is None or not response.to.tag:
            return None
        if fork.heard >= 0 and sequence != fork.heard + 1:
            return 0, 0
        fork.heard = sequence
        return sequence, response.cseq[0]

    def prack(
        self, call: Call, index: int, fork: Fork, asked: tuple[int, int], body: bytes, now: float,
        answered: Callable[[ResponseReceived, float], None] = lambda event, now: None,
    ) -> None:  # fmt: skip
        """Acknowledge a reliable provisional answer on leg `index`."""
        request = fork.dialogs[index].request("PRACK")
        request.headers.append(("RAck", f"{asked[0]} {asked[1]} INVITE"))
        if body:
            request.put_body(SDP, body)
        self.core.send(call, index, fork, request, now, answered)

    def forget(self, call: Call, fork: Fork, now: float) -> None:
        """One of several early dialogs is over; what waits for its PRACK waits no longer."""
        ex = call.exchange
        if ex is not None and any(p.fork is fork for p in ex.waiting):
            first = ex.waiting[0]
            ex.waiting = deque(p for p in ex.waiting if p.fork is not fork)
            if first.fork is fork:
                self.core.layer.provisional_acknowledged(ex.server)
                self._go_on(ex, now)
        self.core.leave(call, fork)

    def acknowledged(self, ex: Exchange, now: float) -> None:
        """The first reliable provisional answer was acknowledged: the next one, or the 2xx that waits, may go."""
        self.core.layer.provisional_acknowledged(ex.server)
        ex.waiting.popleft()
        self._go_on(ex, now)

    def _go_on(self, ex: Exchange, now: float) -> None:
        if ex.waiting:
            self.core.layer.respond_reliably(ex.server, ex.waiting[0].response, now)
        elif ex.final is not None:
            fork, response = ex.final
            ex.final = None
            self._accepted(ex, fork, response, now)

    # 2xx

    def _accepted(self, ex: Exchange, fork: Fork, response: Response, now: float) -> None:
        call, index = ex.call, 1 - ex.source
        if ex.waiting and any(p.response.body for p in ex.waiting):
            ex.final = fork, response
            return
        first = call.state != "answered"
        self.core.look_for_guard(call, index, response)
        if first and "answer" in call.route.guard_on:
            self.core.guard(call, "answer")
        try:
            if first:
                fork.dialogs[index].learn(response)
                self.core.settle(call, fork)
            else:
                fork.dialogs[index].refresh(response)
            ex.fork = fork
            call.legs[index].allow = response.tokens("Allow") or call.legs[index].allow
            answer = self._relayed(ex, fork, response, True, now)
        except PeerError as error:
            self._unusable(ex, fork, response, error, now)
            return
        self.refresh.answered(call, index, response, now)
        ex.accepted = fork
        call.state = "answered"
        self.core.layer.respond(ex.server, answer, now)
        if first:
            self.core.events.append(CallChanged(call.id, "answered", status=response.status))

    def _unusable(self, ex: Exchange, fork: Fork, response: Response, error: PeerError, now: float) -> None:
        """A 2xx that cannot be passed on: taken and, where it was the first, hung up."""
        call, index = ex.call, 1 - ex.source
        self.core.counters["refused"] += 1
        leg, dialog = call.legs[index], fork.dialogs[index]
        dialog.remote = response.to
        assert ex.client is not None
        ex.ack = self.core.send_ack(leg, dialog, ex.client.request)
        fork.media.withdraw()
        self.refuse(ex, error.status, now)
        if call.state == "answered":
            call.exchange = None
            self.refresh.offer(call, index, now)  # so that both know again what holds
        else:
            self.core.bye(leg, dialog, now)
            self.core.close(call, "unusable-answer", error.status)

    def _too_late(self, ex: Exchange, response: Response, peer: Hop, now: float) -> None:
        """A 2xx again; or one that crossed the CANCEL, or came after another: it is taken and hung up (RFC 3261 section
        13.2.2.4 and 15)."""
        call, index = ex.call, 1 - ex.source
        assert ex.client is not None
        leg, ours = call.legs[index], ex.accepted or (ex.fork if call.state == "answered" else None)
        if ours is not None and response.to.tag == ours.dialogs[index].remote.tag:
            if ex.ack:
                self.core.repeat(leg, ours.dialogs[index], ex.ack)
            elif ex.accepted is None:  # a re-INVITE that was cancelled: both must know again what holds
                ex.ack = self.core.send_ack(leg, ours.dialogs[index], ex.client.request)
                self.refresh.offer(call, index, now)
            return
        self.thank_and_hang_up(ex, response, response.to.tag not in ex.thanked, peer, now)
        ex.thanked.add(response.to.tag)

    def too_late_elsewhere(self, ex: Exchange, event: ResponseReceived, now: float) -> None:
        """An answer from a hop that had been given up."""
        if 200 <= event.response.status < 300:
            self.thank_and_hang_up(ex, event.response, True, event.transaction.to, now)

    def thank_and_hang_up(self, ex: Exchange, response: Response, bye: bool, peer: Hop, now: float) -> None:
        """Acknowledge a 2xx that nobody needs, and hang up."""
        index = 1 - ex.source
        leg, dialog = ex.call.legs[index], (ex.invite_dialog or ex.fork.dialogs[index]).early()
        dialog.remote, dialog.peer = response.to, peer
        try:
            dialog.learn(response)
        except PeerError:
            self.core.counters["refused"] += 1
        assert ex.client is not None
        invite = Request(method="INVITE", uri=dialog.target)
        invite.headers = [("CSeq", response.require("CSeq"))]
        self.core.send_ack(leg, dialog, invite)
        if bye:
            self.core.bye(leg, dialog, now)

    # Refusals

    def _refused(self, ex: Exchange, event: ResponseReceived, now: float) -> None:
        call, index, response = ex.call, 1 - ex.source, event.response
        ex.fork.media.withdraw()
        if call.ended or ex.server.state != PROCEEDING:
            return
        if self._better(ex, response, event.local, now):
            return
        words = self.core.words(call, ex.source, response)
        answer = ex.server.request.response(response.status, words, self._tag(ex, call.fork))
        self.core.carry(call, ex.source, response, answer)
        answer.headers += self._redirection(call, ex.source, response)
        answer.headers += [("Unsupported", value) for value in response.lines("Unsupported")]
        if not self.core.withheld(call, index, response, "INVITE") and relay.description(response) is None:
            relay.carry_body(response, answer, self.core.passes(call, ex.source))
        relay.rule(answer, call.legs[ex.source].peer)
        ex.waiting.clear()
        self.core.layer.respond(ex.server, answer, now)
        call.exchange = None
        if call.state != "answered":
            self.core.close(call, "no-answer" if event.local else "refused", response.status)
        elif response.status in GONE and not (event.local and event.transaction.provisional):
            self.ends.end(call, "dialog-lost", now, spare=index)
        else:
            self.refresh.due(call, now)

    @staticmethod
    def _redirection(call: Call, index: int, response: Response) -> list[tuple[str, str]]:
        """Where a 3xx sends the caller: never an agent past this box."""
        if response.status >= 400 or (call.legs[index].peer.side == AGENT and call.mode != "passthrough"):
            return []
        return [("Contact", value) for value in response.lines("Contact")]

    def _better(self, ex: Exchange, response: Response, local: bool, now: float) -> bool:
        """Whether the INVITE was sent anew, where that may help."""
        call, leg = ex.call, ex.call.legs[1 - ex.source]
        ex.attempts += 1
        if ex.attempts > ATTEMPTS + len(leg.hops):
            return False
        if response.status in (401, 407) and leg.peer.credentials is not None:
            challenge = digest.read(response)
            if challenge is None or (ex.challenge is not None and ex.challenge.nonce == challenge.nonce):
                return False
            ex.challenge = challenge
            self.retry(ex, now)
            return True
        if response.status == 422 and leg.peer.session_seconds:
            least = session_timer.least(response)
            if least <= leg.peer.session_seconds and leg.timer is None:
                return False
            leg.timer, leg.least = session_timer.SessionTimer(least, True, now), least
            self.retry(ex, now)
            return True
        if call.state == "inviting" and leg.hops and response.status in _ELSEWHERE:
            if local and ex.client is not None:
                self.core.down.add(ex.client.to)
            self.core.counters["failovers"] += 1
            self.next(ex, now)
            return True
        return False

    def refuse(self, ex: Exchange, status: int, now: float) -> None:
        """Refuse the INVITE to who sent it."""
        ex.waiting.clear()
        self.core.refuse(ex.server, status, now, self._tag(ex, ex.call.fork))

    def unacknowledged(self, transaction: ServerTransaction, now: float) -> None:
        """No PRACK came (RFC 3262 section 3: the INVITE is refused with a 5xx)."""
        ex = transaction.owner
        if not isinstance(ex, Exchange) or ex.call.ended:
            return
        if ex.call.state != "answered":
            self.ends.end(ex.call, "prack-missing", now, status=504)
            return
        index = 1 - ex.source
        if ex.client is not None and ex.final is not None:
            leg, dialog = ex.call.legs[index], ex.final[0].dialogs[index]
            ex.ack = self.core.send_ack(leg, dialog, ex.client.request)
        elif ex.client is not None:
            self.core.layer.cancel(ex.client, now)
        ex.fork.media.withdraw()
        self.refuse(ex, 504, now)
        ex.call.exchange = None
        self.refresh.offer(ex.call, index, now)

    # Making answers

    def make(self, ex: Exchange, status: int, reason: str, timed: str = "", fork: Fork | None = None) -> Response:
        """An answer to the INVITE of `ex`, with what is this box's own in it."""
        leg, fork = ex.call.legs[ex.source], fork or ex.fork
        request = ex.server.request
        answer = request.response(status, reason, self._tag(ex, fork))
        answer.headers += [("Contact", self.core.contact(leg, fork.dialogs[ex.source].peer)), ("Allow", relay.ALLOW)]
        answer.headers += [("Record-Route", value) for value in request.lines("Record-Route")]
        if status >= 200:
            answer.headers.append(("Supported", "timer, replaces"))
        return timed_by(answer, timed)

    def _relayed(self, ex: Exchange, fork: Fork, response: Response, final: bool, now: float) -> Response:
        """The answer for the leg that asked, SDP rebuilt. `final`: a description in it settles an offer."""
        call, leg = ex.call, ex.call.legs[ex.source]
        timed = self.refresh.answer(call, ex.source, ex.server.request, now) if response.status >= 200 else ""
        answer = self.make(ex, response.status, self.core.words(call, ex.source, response), timed, fork)
        self.core.carry(call, ex.source, response, answer)
        body = self._described(ex, fork, response, final)
        if body:
            relay.put_description(response, answer, body, self.core.passes(call, ex.source))
        elif relay.description(response) is None and not self.core.withheld(call, 1 - ex.source, response, "INVITE"):
            relay.carry_body(response, answer, self.core.passes(call, ex.source))
        relay.rule(answer, leg.peer)
        return answer

    def _described(self, ex: Exchange, fork: Fork, response: Response, final: bool) -> bytes:
        """The description for the leg that asked, nothing where the answer has none."""
        media, told = fork.media, fork.media.ends[ex.source].described
        description = relay.description(response)
        if description is not None and not (ex.offer_came and not media.pending):
            body, agreed = media.pass_(1 - ex.source, description, final)
            if agreed:
                self.core.agreed(ex.call, fork)
                ex.settled = final
            return body
        if description is not None:
            return told  # the answer that went before, again
        if response.status >= 200 and ex.offer_came and not ex.answered:
            media.withdraw()  # the answer came in an 18x and was not repeated
            return told
        return b""

    @staticmethod
    def _tag(ex: Exchange, fork: Fork) -> str:
        return fork.dialogs[ex.source].local.tag
