"""Transfers, carried out here so that the call stays anchored and masked: REFER (RFC 3515), Replaces (RFC 3891).

The party that is transferred notices at most a re-INVITE. Its leg, its ports and its mode stay as they are; only the
other leg's dialog is exchanged.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from sip import session_timer
from sip.b2bua import relay
from sip.b2bua.answers import Answers
from sip.b2bua.call import Call, Exchange, Fork, Leg
from sip.b2bua.core import Core
from sip.b2bua.ends import Ends
from sip.b2bua.events import CallChanged
from sip.b2bua.invites import offered
from sip.b2bua.negotiation import End, Negotiation
from sip.b2bua.peers import EXECUTE, PASS, TRUNK, Peer
from sip.b2bua.refresh import Refresh
from sip.b2bua.relay import SDP
from sip.b2bua.requests import Requests
from sip.dialog import Dialog
from sip.errors import PeerError
from sip.headers.address import Address
from sip.headers.replaces import Replaces, put_together, take_apart
from sip.message import Request
from sip.transaction import ClientTransaction, ResponseReceived, ServerTransaction
from sip.uri import Uri

LINGER: Final = 8.0
"""Seconds that whoever has been replaced may take to hang up by itself."""
RINGING: Final = 180.0
DEPARTED, TRANSFER = "departed", "transfer"


@dataclass(slots=True)
class Departed:
    """A dialog that is no part of a call any more; it is hung up after LINGER."""

    leg: Leg
    dialog: Dialog


@dataclass(slots=True)
class Transfer:
    """One REFER being carried out: leg `index` is to be exchanged."""

    call: Call
    index: int
    leg: Leg
    dialog: Dialog
    media: Negotiation
    client: ClientTransaction | None = None
    notify: bool = True
    last_status: int = 0
    left: bool = False
    """The transferor has hung up meanwhile."""
    over: bool = False
    ack: bytes = b""

    def sent_again(self, client: ClientTransaction) -> None:
        """The INVITE went out anew, with credentials."""
        self.client = client


@dataclass(slots=True)
class Transfers:
    """departed: by Call-ID and this box's tag."""

    core: Core
    ends: Ends
    refresh: Refresh
    answers: Answers
    requests: Requests
    departed: dict[tuple[str, str], Departed] = field(default_factory=dict)

    # REFER

    def refer(
        self, call: Call, index: int, fork: Fork, request: Request, transaction: ServerTransaction, now: float
    ) -> None:
        """A REFER within a call. Raises PeerError."""
        core, leg, other = self.core, call.legs[index], call.legs[1 - index]
        values = request.lines("Refer-To")
        if len(values) != 1:
            raise PeerError("REFER needs one Refer-To")
        target = Address.parse(values[0])
        bare, headers = take_apart(target.uri)
        uri = Uri.parse(bare)
        replaces = Replaces.parse(headers["replaces"]) if "replaces" in headers else None
        own = core.dialogs.get((replaces.call_id, replaces.to_tag)) if replaces is not None else None
        towards_trunk = other.peer.side == TRUNK
        masked = leg.peer.side == TRUNK and call.mode != "passthrough"
        if self.requests.keys(call, index, request, transaction, now):
            return
        if masked and (leg.peer.refer == PASS or own is not None):
            core.refuse(transaction, 603, now)  # the agent would be led past this box, to where nothing is masked
        elif call.state != "answered" or call.transfer is not None:
            core.refuse(transaction, 491, now)
        elif leg.peer.refer == PASS or own is not None:
            barred = towards_trunk and (call.armed or call.capturing or (own is not None and own[0].armed))
            if barred or (own is not None and leg.peer.refer not in (PASS, EXECUTE)):
                core.refuse(transaction, 603, now)
                return
            if replaces is not None and own is not None:
                headers["replaces"] = str(self._mapped(own, replaces))
            self.requests.refer(call, index, fork, transaction, f"<{put_together(bare, headers)}>", now)
        elif leg.peer.refer == EXECUTE:
            self._execute(call, index, request, transaction, uri, replaces, now)
        else:
            core.refuse(transaction, 603, now)

    @staticmethod
    def _mapped(own: tuple[Call, int], replaces: Replaces) -> Replaces:
        """The dialog that the other side knows for one of this side's (Replaces names it as its receiver does)."""
        call, index = own
        dialog = call.fork.dialogs[1 - index]
        return Replaces(dialog.call_id, dialog.remote.tag, dialog.local.tag, replaces.early_only)

    def _execute(
        self, call: Call, index: int, request: Request, transaction: ServerTransaction, uri: Uri,
        replaces: Replaces | None, now: float,
    ) -> None:  # fmt: skip
        core, peer, stays = self.core, call.legs[index].peer, 1 - index
        hops = core.hops(peer)
        if not hops:
            raise PeerError("the next hop's name is not known", 503)
        ends = self._ends(call, index, peer)
        media = Negotiation(ends)
        body = media.offer_here(index)
        party = call.fork.dialogs[stays].remote
        source = Request([("From", str(party)), ("To", f"<{uri}>")])
        dialog = core.outward(peer, hops[0], uri, source)
        dialog.remote = Address(str(uri))
        leg = Leg(peer)
        quiet = (request.get("Refer-Sub") or "").strip().lower() == "false"
        transfer = Transfer(call, index, leg, dialog, media, notify=not quiet)
        answer = request.response(202)
        answer.headers.append(("Contact", core.contact(call.legs[index], call.fork.dialogs[index].peer)))
        if quiet:
            answer.headers.append(("Refer-Sub", "false"))
        core.layer.respond(transaction, answer, now)
        call.transfer = transfer
        core.counters["transfers"] += 1
        self._notify(transfer, 100, "Trying", now)
        invite = dialog.request("INVITE")
        invite.headers += [("Contact", core.contact(leg, hops[0])), ("Allow", relay.ALLOW)]
        invite.headers.append(("Supported", "timer, replaces"))
        invite.headers.append(("Referred-By", request.get("Referred-By") or f"<{call.fork.dialogs[index].remote.uri}>"))
        invite.headers += call.identity if stays == 0 else []
        if replaces is not None:
            invite.headers += [("Replaces", str(replaces)), ("Require", "replaces")]
        self.refresh.ask(leg, invite, False)
        invite.put_body(SDP, body)
        answered = partial(self._answered, transfer)
        transfer.client = core.send_on(leg, dialog, invite, now, answered, transfer.sent_again)
        core.alarms.set((call.id, TRANSFER), now + RINGING)

    def _ends(self, call: Call, index: int, peer: Peer) -> list[End]:
        """Both halves of the call's media with a fresh one for leg `index`: same port, nothing said yet."""
        old = call.fork.media.ends[index]
        fresh = self.core.end(peer)
        fresh.host, fresh.port, fresh.fingerprint = old.host, old.port, old.fingerprint
        ends = list(call.fork.media.ends)
        ends[index] = fresh
        return ends

    def _answered(self, transfer: Transfer, event: ResponseReceived, now: float) -> None:
        response, call = event.response, transfer.call
        leg, dialog = transfer.leg, transfer.dialog
        transfer.client, invite = event.transaction, event.transaction.request
        if response.status < 200:
            if response.to.tag and not transfer.over:
                with contextlib.suppress(PeerError):
                    dialog.learn(response)
            if response.status > 100 and not transfer.over:
                self._notify(transfer, response.status, response.reason, now)
            return
        if response.status >= 300:
            if not transfer.over:
                self._failed(transfer, response.status, response.reason, now)
            return
        if transfer.over:  # again, or too late
            late = not transfer.ack
            dialog.remote = response.to
            with contextlib.suppress(PeerError):
                dialog.learn(response)
            transfer.ack = self.core.send_ack(leg, dialog, invite)
            if late:
                self.core.bye(leg, dialog, now)
            return
        dialog.remote = response.to
        try:
            dialog.learn(response)
            leg.allow, leg.timer = response.tokens("Allow"), session_timer.as_client(response, now)
            transfer.ack = self.core.send_ack(leg, dialog, invite)
            transfer.media.answered_here(transfer.index, relay.description(response) or b"")
        except PeerError:
            self.core.counters["refused"] += 1
            transfer.ack = transfer.ack or self.core.send_ack(leg, dialog, invite)
            self.core.bye(leg, dialog, now)
            self._failed(transfer, 488, "Not Acceptable Here", now)
            return
        self._notify(transfer, response.status, response.reason, now)
        self._finish(transfer)
        self.exchange(call, transfer.index, leg, dialog, transfer.media, now, gone=transfer.left)

    def _failed(self, transfer: Transfer, status: int, reason: str, now: float) -> None:
        self._notify(transfer, status, reason, now)
        self._finish(transfer)
        if transfer.left:
            self.ends.end(transfer.call, "transfer-failed", now, spare=transfer.index)

    def _finish(self, transfer: Transfer) -> None:
        transfer.over = True
        transfer.call.transfer = None
        transfer.call.left.clear()
        self.core.alarms.cancel((transfer.call.id, TRANSFER))

    def _notify(self, transfer: Transfer, status: int, reason: str, now: float) -> None:
        """Tell the transferor how it goes (RFC 3515 section 2.4.5)."""
        if not transfer.notify or transfer.left or status == transfer.last_status:
            return
        transfer.last_status = status
        call, index = transfer.call, transfer.index
        request = call.fork.dialogs[index].request("NOTIFY")
        state = "active;expires=180" if status < 200 else "terminated;reason=noresource"
        contact = self.core.contact(call.legs[index], call.fork.dialogs[index].peer)
        request.headers += [("Event", "refer"), ("Subscription-State", state), ("Contact", contact)]
        request.put_body(
            "message/sipfrag;version=2.0", f"SIP/2.0 {status} {reason}\r\n".encode("utf-8", "surrogateescape")
        )
        self.core.send(call, index, call.fork, request, now, lambda event, now: None)

    def expired(self, call: Call, now: float) -> None:
        """The new party has rung for too long."""
        transfer = call.transfer
        if isinstance(transfer, Transfer) and transfer.client is not None:
            self.core.layer.cancel(transfer.client, now)
            self._failed(transfer, 408, "Request Timeout", now)

    def hung_up(self, call: Call, index: int, now: float) -> bool:
        """A BYE came from leg `index`: whether that is a transferor who leaves the rest to this box."""
        transfer = call.transfer
        if not isinstance(transfer, Transfer) or transfer.index != index or call.state != "answered":
            return False
        transfer.left = True
        call.left.add(index)
        self._detach(call, index, now)
        return True

    def call_ends(self, call: Call, now: float) -> None:
        """The call ends while a transfer is under way."""
        transfer = call.transfer
        if isinstance(transfer, Transfer):
            if transfer.client is not None:
                self.core.layer.cancel(transfer.client, now)
            self._finish(transfer)

    # The exchange of a leg

    def exchange(
        self, call: Call, index: int, leg: Leg, dialog: Dialog, media: Negotiation, now: float, gone: bool = False
    ) -> None:
        """Put a new dialog in the place of leg `index`; the old one is hung up, unless it has gone."""
        core, fork, stays = self.core, call.fork, 1 - index
        old, former = call.legs[index], fork.dialogs[index]
        self._detach(call, index, now)
        core.dialogs.pop((former.call_id, former.local.tag), None)
        core.by_call_id.pop(former.call_id, None)
        if not gone:
            key = (former.call_id, former.local.tag)
            self.departed[key] = Departed(old, former)
            core.alarms.set((f"{former.call_id}\n{former.local.tag}", DEPARTED), now + LINGER)
        told = media.ends[stays].described
        media.ends[stays].wish = "sendrecv"  # whoever was put on hold for the transfer is not held any more
        call.legs[index] = leg
        fork.dialogs[index], fork.media = dialog, media
        core.enter(call, fork)
        if "transfer" in call.route.guard_on:
            core.guard(call, "transfer")
        if media.ends[index].stream is not None:
            core.agreed(call, fork)
        core.events.append(CallChanged(call.id, "changed", "transfer"))
        self.refresh.start(call, index)
        if media.ends[index].stream is None:
            call.owed.add(stays)  # once the ACK has said what the new party takes
        elif media.offer_here(stays) != told:
            self.refresh.offer(call, stays, now)

    def _detach(self, call: Call, index: int, now: float) -> None:
        """What is on its way to or from the party of leg `index` concerns the call no more."""
        core, ex = self.core, call.exchange
        self.refresh.stop(call, index)
        call.waiting = False
        if ex is None:
            return
        call.exchange = None
        call.fork.media.withdraw()
        ex.waiting.clear()
        if ex.accepted is not None:
            call.detached = ex if ex.source != index else None
            if ex.source == index:
                core.layer.acknowledged(ex.server)
            self.ends.acknowledge(ex, b"")
            return
        core.refuse(ex.server, 481 if ex.source == index else 491, now, call.fork.dialogs[ex.source].local.tag)

    def departed_says(self, request: Request, transaction: ServerTransaction, now: float) -> bool:
        """Answer whoever has been replaced; returns whether the request was such a one's."""
        key = (request.call_id, request.to.tag)
        if key not in self.departed:
            return False
        if request.method == "BYE":
            self._forget(key)
            self.core.layer.respond(transaction, request.response(200), now)
        else:
            self.core.refuse(transaction, 481, now)
        return True

    def linger_over(self, name: str, now: float) -> None:
        """Whoever has been replaced did not hang up."""
        call_id, _, tag = name.partition("\n")
        one = self._forget((call_id, tag))
        if one is not None:
            self.core.bye(one.leg, one.dialog, now)

    def _forget(self, key: tuple[str, str]) -> Departed | None:
        self.core.alarms.cancel((f"{key[0]}\n{key[1]}", DEPARTED))
        return self.departed.pop(key, None)

    # INVITE with Replaces

    def replace(self, request: Request, transaction: ServerTransaction, peer: Peer, now: float) -> None:
        """An INVITE that takes over one of this box's dialogs. Raises PeerError."""
        core = self.core
        if peer.registered:
            raise PeerError("a browser takes over no dialog", 403)
        wanted = Replaces.parse(request.require("Replaces"))
        found = core.dialogs.get((wanted.call_id, wanted.to_tag))
        if found is None:
            raise PeerError("Replaces names no dialog of this box", 481)
        call, index = found
        old = call.fork.dialogs[index]
        if call.legs[index].peer.side != peer.side or old.remote.tag != wanted.from_tag or call.state != "answered":
            raise PeerError("Replaces names no dialog of this box", 481)
        if wanted.early_only:
            raise PeerError("the dialog to be replaced is answered", 486)
        if call.exchange is not None or call.transfer is not None or call.waiting:
            raise PeerError("the dialog to be replaced is being changed", 491)
        body = offered(request)
        dialog = Dialog.as_server(request, core.ids(), transaction.source)
        media = Negotiation(self._ends(call, index, peer))
        described = media.answer_here(index, body) if body is not None else media.offer_here(index)
        leg = Leg(peer, [], request.tokens("Allow"))
        leg.timer, timed = session_timer.as_server(request, peer.session_seconds, peer.least_session_seconds, now)
        if body is None:  # the rest of the exchange needs what its ACK will say: the offer stands until then
            media.ends[index].stream = None
        core.counters["transfers"] += 1
        self.exchange(call, index, leg, dialog, media, now)
        ex = Exchange(call, index, transaction, call.fork, offer_came=body is not None, here=True)
        ex.accepted, ex.settled = call.fork, body is not None
        answer = self.answers.make(ex, 200, "OK", timed)
        answer.put_body(SDP, described)
        call.exchange = transaction.owner = ex
        core.layer.respond(transaction, answer, now)
        self.linger_over(f"{old.call_id}\n{old.local.tag}", now)  # RFC 3891 section 3: it is hung up at once
