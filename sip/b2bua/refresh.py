"""Requests of this box's own within a dialog: session refreshes (RFC 4028) and offers made here, with the back-off
that a glare asks for (RFC 3261 section 14.1)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial

from sip import session_timer
from sip.b2bua import relay
from sip.b2bua.call import Call, Leg
from sip.b2bua.core import GLARE, REFRESH, Core
from sip.b2bua.ends import Ends
from sip.b2bua.relay import SDP
from sip.dialog import Dialog
from sip.errors import PeerError
from sip.message import Message, Request, Response
from sip.session_timer import SessionTimer
from sip.transaction import ResponseReceived

BUSY = 5.0
"""Seconds until a refresh is tried again that met an INVITE on its way."""
GONE = frozenset({408, 481})
"""Answers after which a dialog is over (RFC 3261 section 12.2.1.2)."""


@dataclass(slots=True)
class Refresh:
    """Timers of both legs of every call."""

    core: Core
    ends: Ends

    def ask(self, leg: Leg, request: Request, again: bool) -> None:
        """Put Session-Expires into an INVITE or UPDATE of this box's (section 7.1)."""
        seconds, peer, refresher = leg.peer.session_seconds, leg.peer, ""
        if leg.timer is not None:
            seconds = leg.timer.interval
            if again:
                refresher = f";refresher={'uac' if leg.timer.mine else 'uas'}"
        if seconds:
            request.headers.append(("Session-Expires", f"{max(seconds, peer.least_session_seconds)}{refresher}"))
            request.headers.append(("Min-SE", str(max(peer.least_session_seconds, leg.least))))

    def answer(self, call: Call, index: int, request: Request, now: float) -> str:
        """Set the timer of the leg whose INVITE or UPDATE is about to be accepted; returns Session-Expires for the
        answer, or nothing. Raises TooSmall."""
        leg = call.legs[index]
        peer = leg.peer
        timer, text = session_timer.as_server(request, peer.session_seconds, peer.least_session_seconds, now)
        self._set(call, index, timer)
        return text

    def answered(self, call: Call, index: int, response: Response, now: float) -> None:
        """Set the timer of the leg that has accepted this box's INVITE or UPDATE."""
        try:
            timer = session_timer.as_client(response, now)
        except PeerError:
            timer = None
        self._set(call, index, timer)

    def _set(self, call: Call, index: int, timer: SessionTimer | None) -> None:
        call.legs[index].timer = timer
        if timer is None:
            self.core.alarms.cancel((call.id, f"{REFRESH}{index}"))
        else:
            self.core.alarms.set((call.id, f"{REFRESH}{index}"), timer.due)

    def start(self, call: Call, index: int) -> None:
        """A leg has come with its timer."""
        self._set(call, index, call.legs[index].timer)

    def ring(self, call: Call, index: int, now: float) -> None:
        """A timer is due: refresh, or give up."""
        timer = call.legs[index].timer
        if timer is None or call.state != "answered":
            return
        if not timer.mine or now >= timer.since + timer.interval - 1:
            cause = Message([("Reason", 'SIP;cause=408;text="Session expired"')])
            self.ends.end(call, "session-expired", now, cause=cause)
        elif call.exchange is not None or call.waiting or call.fork.media.pending:
            self.core.alarms.set((call.id, f"{REFRESH}{index}"), now + BUSY)
        elif not call.legs[index].allow or "update" in call.legs[index].allow:
            self._update(call, index, now)
        else:
            self.offer(call, index, now, fresh=False)

    def _update(self, call: Call, index: int, now: float) -> None:
        leg, dialog = call.legs[index], call.fork.dialogs[index]
        request = dialog.request("UPDATE")
        request.headers += [("Contact", self.core.contact(leg, dialog.peer)), ("Supported", "timer")]
        self.ask(leg, request, True)
        self.core.send(call, index, call.fork, request, now, partial(self._updated, call, index, dialog))

    def _updated(self, call: Call, index: int, dialog: Dialog, event: ResponseReceived, now: float) -> None:
        status = event.response.status
        if status < 200 or call.ended or call.fork.dialogs[index] is not dialog:
            return
        if status < 300:
            with contextlib.suppress(PeerError):  # a Contact that cannot be used: the one before it stands
                dialog.refresh(event.response)
            self.answered(call, index, event.response, now)
        elif status in (405, 501):
            call.legs[index].allow = frozenset({"invite"})
            self.ring(call, index, now)
        else:
            self._failed(call, index, event.response, now)

    def _failed(self, call: Call, index: int, response: Response, now: float) -> None:
        timer = call.legs[index].timer
        if response.status in GONE:
            self.ends.end(call, "session-lost", now, spare=index)
        elif timer is not None:
            if response.status == 422:
                timer.interval = max(timer.interval, session_timer.least(response))
            last = timer.since + timer.interval - min(32.0, timer.interval / 3)
            self.core.alarms.set((call.id, f"{REFRESH}{index}"), min(now + self._back_off(call, index), last))
            if now + BUSY >= last:
                timer.mine = False  # no more attempts: it will be given up

    def _back_off(self, call: Call, index: int) -> float:
        """2.1 to 4 s for who owns the Call-ID, 0 to 2 s for the other, in steps of 10 ms."""
        chance = self.core.random()
        return 2.1 + 0.01 * (chance % 191) if call.fork.dialogs[index].mine else 0.01 * (chance % 201)

    # Offers made here

    def offer(self, call: Call, index: int, now: float, fresh: bool = True) -> None:
        """re-INVITE leg `index` with what the other leg said last (`fresh`), or with what it was told last. It waits
        while another INVITE is on its way."""
        if call.ended or call.state != "answered":
            return
        if call.exchange is not None or call.waiting or call.fork.media.pending:
            call.owed.add(index)
            return
        leg, dialog, media = call.legs[index], call.fork.dialogs[index], call.fork.media
        try:
            body = media.offer_here(index) if fresh else media.ends[index].described or media.offer_here(index)
        except PeerError:
            return
        request = dialog.request("INVITE")
        request.headers += [("Contact", self.core.contact(leg, dialog.peer)), ("Allow", relay.ALLOW)]
        request.headers.append(("Supported", "timer, replaces"))
        self.ask(leg, request, True)
        request.put_body(SDP, body)
        call.owed.discard(index)
        call.waiting = True
        self.core.send(call, index, call.fork, request, now, partial(self._offered, call, index, dialog))

    def _offered(self, call: Call, index: int, dialog: Dialog, event: ResponseReceived, now: float) -> None:
        response, leg = event.response, call.legs[index]
        if response.status < 200:
            return
        current = not call.ended and call.fork.dialogs[index] is dialog and call.waiting
        if response.status < 300:
            if current:
                with contextlib.suppress(PeerError):
                    dialog.refresh(response)
            self.core.send_ack(leg, dialog, event.transaction.request)
        if not current:  # again, since its ACK was lost; or of a party that has been replaced
            return
        call.waiting = False
        if response.status < 300:
            self.answered(call, index, response, now)
            try:
                call.fork.media.answered_here(index, response.body)
                self.core.agreed(call, call.fork)
            except PeerError:
                self.core.counters["refused"] += 1
            self.due(call, now)
        elif response.status == 491:
            call.owed.add(index)
            self.core.alarms.set((call.id, GLARE), now + self._back_off(call, index))
        else:
            self._failed(call, index, response, now)
            if not call.ended:
                self.due(call, now)

    def stop(self, call: Call, index: int) -> None:
        """The party of a leg has gone: nothing is refreshed or awaited any more."""
        self._set(call, index, None)

    def due(self, call: Call, now: float) -> None:
        """Send what was put off."""
        for index in sorted(call.owed):
            self.offer(call, index, now)


def timed_by(answer: Response, text: str) -> Response:
    """Put the Session-Expires that `Refresh.answer` gave into an answer (RFC 4028 section 9)."""
    if text:
        answer.headers.append(("Session-Expires", text))
        if text.endswith("uac"):
            answer.headers.append(("Require", "timer"))
    return answer
