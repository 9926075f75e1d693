"""Transactions (RFC 3261 section 17, the accepted state of RFC 6026, the reliable provisional answers of RFC 3262), all
timers, no clock of its own.

The caller hands in what arrived and the time, takes out what is to be sent and what happened, and asks when to come
back. State is one of five words; the tables below say what each timer does.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sip import limits
from sip.headers.via import MAGIC, Via
from sip.hop import Hop
from sip.message import Request, Response

_TAG = re.compile(rb"\r\nTo:[^\r\n]*;tag=([^;\r\n]+)")
"""What this box has called itself in its answers to an INVITE: its CANCEL is answered alike (RFC 3261 section 9.2)."""
T1: Final = 0.5
T2: Final = 4.0
SWEEP: Final = 512
"""Timers beyond twice those that run after which a look is taken for those that were stopped."""
T4: Final = 5.0
"""Round trip, longest interval, longest life of a message (RFC 3261 section 17.1.1.1), seconds."""

PROCEEDING, COMPLETED, CONFIRMED, ACCEPTED, TERMINATED = (
    "proceeding",
    "completed",
    "confirmed",
    "accepted",
    "terminated",
)


@dataclass(slots=True)
class Outgoing:
    """A message to send from `side`. transaction: the one that wants to know where it cannot be sent."""

    data: bytes
    side: str
    to: Hop
    transaction: ClientTransaction | None = field(default=None, repr=False)


Key = tuple[str, str, str, str]
"""side, branch, sent-by, method (RFC 3261 section 17.2.3)."""
Merged = tuple[str, str, int, str, str]
"""side, Call-ID, CSeq, tag of From, method: the same request by two ways (RFC 3261 section 8.2.2.2)."""


@dataclass(slots=True)
class ServerTransaction:
    """A request that came in and the answers to it."""

    request: Request
    side: str
    source: Hop
    reply_to: Hop
    key: Key
    state: str = PROCEEDING
    last: bytes = b""
    unacknowledged: bytes = b""
    """The reliable provisional answer that is repeated."""
    merged: Merged | None = None
    interval: float = T1
    owner: object = None
    """What the layer above ties to it."""
    timers: dict[str, float] = field(default_factory=dict)

    @property
    def invite(self) -> bool:
        return self.request.method == "INVITE"


@dataclass(slots=True)
class ClientTransaction:
    """A request that went out and the answers to it."""

    request: Request
    side: str
    to: Hop
    branch: str
    data: bytes = b""
    state: str = PROCEEDING
    provisional: bool = False
    interval: float = T1
    ack: bytes = b""
    cancel_wanted: bool = False
    reasons: list[str] = field(default_factory=list)
    """Reason headers for the CANCEL (RFC 3326)."""
    owner: Owner | None = None
    timers: dict[str, float] = field(default_factory=dict)

    @property
    def invite(self) -> bool:
        return self.request.method == "INVITE"


@dataclass(slots=True)
class RequestReceived:
    """A new request; `transaction` is None for an ACK to a 2xx."""

    request: Request
    transaction: ServerTransaction | None
    side: str
    source: Hop


@dataclass(slots=True)
class ResponseReceived:
    """A response to `transaction`: provisional, final, or a 2xx again."""

    response: Response
    transaction: ClientTransaction
    local: bool = False
    """It stands for no answer at all, and came from nobody."""


@dataclass(slots=True)
class Cancelled:
    """The peer cancelled its INVITE with `request`, which itself has been answered."""

    transaction: ServerTransaction
    request: Request


@dataclass(slots=True)
class AckMissing:
    """The 2xx was repeated for 64 * T1 and never acknowledged; `owner`: whose it was."""

    transaction: ServerTransaction
    owner: object = None


@dataclass(slots=True)
class PrackMissing:
    """A reliable provisional answer was repeated for 64 * T1 and never acknowledged (RFC 3262 section 3)."""

    transaction: ServerTransaction


Owner = Callable[[ResponseReceived, float], None]
"""Whoever sent a request: called by the layer above with every answer."""
Event = RequestReceived | ResponseReceived | Cancelled | AckMissing | PrackMissing
Transaction = ServerTransaction | ClientTransaction


class TransactionLayer:
    """All transactions of one process.

    sent_by: host:port that goes into Via, by side and transport. ids: gives a new unguessable token.
    """

    def __init__(self, sent_by: dict[tuple[str, str], str], ids: Callable[[], str]) -> None:
        self._sent_by = sent_by
        self._ids = ids
        self._servers: dict[Key, ServerTransaction] = {}
        self._merged: dict[Merged, ServerTransaction] = {}
        self._clients: dict[tuple[str, str], ClientTransaction] = {}
        self._heap: list[tuple[float, int, str, Transaction]] = []
        self._ticket = 0
        self._sweep_at = SWEEP
        self.outgoing: list[Outgoing] = []
        self.events: list[Event] = []
        self.refused = 0

    def __len__(self) -> int:
        return len(self._servers) + len(self._clients)

    # Requests that come in

    def receive_request(self, request: Request, side: str, source: Hop, now: float) -> None:
        """Take a request from the wire: a new transaction, a repetition, an ACK or a CANCEL."""
        via = request.via
        key = (side, _branch(request, via), via.sent_by, "INVITE" if request.method == "ACK" else request.method)
        known = self._servers.get(key)
        if request.method == "ACK":
            if known is not None and known.state == COMPLETED:
                known.state = CONFIRMED
                known.timers.clear()
                self._set(known, "I", now + T4 if not source.reliable else now)
            elif known is None or known.state != CONFIRMED:
                self.events.append(RequestReceived(request, None, side, source))
            return
        if known is not None:
            if known.last and known.state != CONFIRMED:
                self.outgoing.append(Outgoing(known.last, side, known.reply_to))
            return
        transaction = ServerTransaction(request, side, source, via.reply_to(source), key)
        request.stamp(via.received_from(source))
        if len(self) >= limits.TRANSACTIONS:
            self.refused += 1
            answer = request.response(503)
            answer.headers.append(("Retry-After", "10"))
            self.outgoing.append(Outgoing(answer.encode(), side, transaction.reply_to))
            return
        self._servers[key] = transaction
        if request.method == "CANCEL":
            self._cancelled(transaction, key, now)
        elif self._is_merged(transaction):
            self.respond(transaction, request.response(482, tag=self._ids()), now)
        else:
            self.events.append(RequestReceived(request, transaction, side, source))

    def _is_merged(self, transaction: ServerTransaction) -> bool:
        """Whether a request outside a dialog is here already by another way."""
        request = transaction.request
        if request.to.tag:
            return False
        merged = (transaction.side, request.call_id, request.cseq[0], request.from_.tag, request.method)
        if merged in self._merged:
            return True
        self._merged[merged] = transaction
        transaction.merged = merged
        return False

    def _cancelled(self, cancel: ServerTransaction, key: Key, now: float) -> None:
        invite = self._servers.get((*key[:3], "INVITE"))
        said = _TAG.search(invite.last) if invite is not None else None
        tag = said[1].decode("utf-8", "surrogateescape") if said is not None else self._ids()
        self.respond(cancel, cancel.request.response(200 if invite else 481, tag=tag), now)
        if invite is not None and invite.state == PROCEEDING:
            self.events.append(Cancelled(invite, cancel.request))

    def respond(self, transaction: ServerTransaction, response: Response, now: float) -> None:
        """Answer. A second final answer is ignored: the first one stands."""
        if transaction.state != PROCEEDING:
            return
        data = response.encode()
        self.outgoing.append(Outgoing(data, transaction.side, transaction.reply_to))
        transaction.last = data
        if response.status < 200:
            return
        reliable = transaction.source.reliable
        transaction.interval = T1
        transaction.timers.clear()
        if not transaction.invite:
            transaction.state = COMPLETED
            self._set(transaction, "J", now if reliable else now + 64 * T1)
        elif response.status < 300:
            transaction.state = ACCEPTED
            self._set(transaction, "2xx", now + T1)  # also over a stream: a hop behind it may be UDP
            self._set(transaction, "L", now + 64 * T1)
        else:
            transaction.state = COMPLETED
            if not reliable:
                self._set(transaction, "G", now + T1)
            self._set(transaction, "H", now + 64 * T1)

    def respond_reliably(self, transaction: ServerTransaction, response: Response, now: float) -> None:
        """A provisional answer that is repeated until `provisional_acknowledged` (RFC 3262 section 3)."""
        if transaction.state != PROCEEDING:
            return
        self.respond(transaction, response, now)
        transaction.interval, transaction.unacknowledged = T1, transaction.last
        self._set(transaction, "1xx", now + T1)
        self._set(transaction, "P", now + 64 * T1)

    def provisional_acknowledged(self, transaction: ServerTransaction) -> None:
        """The PRACK has come."""
        for name in ("1xx", "P"):
            transaction.timers.pop(name, None)

    def abandon(self, transaction: ServerTransaction) -> None:
        """Leave a request other than INVITE without an answer: its peer has long given up (RFC 4320 section 4.2)."""
        self._forget(transaction)

    def _forget(self, transaction: ServerTransaction) -> None:
        transaction.timers.clear()
        transaction.state = TERMINATED
        transaction.owner = None
        self._servers.pop(transaction.key, None)
        if transaction.merged is not None:
            self._merged.pop(transaction.merged, None)

    def acknowledged(self, transaction: ServerTransaction) -> None:
        """The ACK to this transaction's 2xx has come: no more repetitions."""
        transaction.timers.pop("2xx", None)
        transaction.owner = None

    # Requests that go out

    def send(self, request: Request, side: str, to: Hop, now: float, owner: Owner | None = None) -> ClientTransaction:
        """Send a request in a transaction of its own; its topmost Via is added here."""
        branch = self._add_via(request, side, to)
        transaction = ClientTransaction(request, side, to, branch, request.encode(), owner=owner)
        self._begin(transaction, now)
        self._set(transaction, "B" if transaction.invite else "F", now + 64 * T1)
        return transaction

    def _begin(self, transaction: ClientTransaction, now: float) -> None:
        self._clients[transaction.branch, transaction.request.method] = transaction
        self.outgoing.append(Outgoing(transaction.data, transaction.side, transaction.to, transaction))
        if not transaction.to.reliable:
            self._set(transaction, "A" if transaction.invite else "E", now + T1)

    def _add_via(self, request: Request, side: str, to: Hop) -> str:
        branch = MAGIC + self._ids()
        via = f"SIP/2.0/{to.transport} {self._sent_by[side, to.transport]};branch={branch};rport"
        request.headers.insert(0, ("Via", via))
        return branch

    def send_ack(self, request: Request, side: str, to: Hop) -> bytes:
        """Send an ACK to a 2xx, which is a transaction of its own without an answer; returns it for repetition."""
        self._add_via(request, side, to)
        data = request.encode()
        self.outgoing.append(Outgoing(data, side, to))
        return data

    def unsent(self, outgoing: Outgoing, now: float) -> None:
        """The host could not send this: a request that nobody has answered is refused (RFC 3261 section 8.1.3.1)."""
        transaction = outgoing.transaction
        if transaction is None or transaction.state != PROCEEDING or transaction.provisional:
            return
        self._give_up(transaction, 503)

    def leave_behind(self, transaction: ClientTransaction, owner: Owner, now: float) -> None:
        """Wait no longer for an answer to an INVITE, and repeat it no longer; should anybody answer, it is cancelled,
        and `owner` told."""
        transaction.timers.pop("A", None)
        transaction.owner = owner
        self.cancel(transaction, now)

    def give_up(self, transaction: ClientTransaction) -> None:
        """Wait no longer for an answer to a request."""
        transaction.timers.clear()
        transaction.state = TERMINATED
        self._clients.pop((transaction.branch, transaction.request.method), None)

    def _give_up(self, transaction: ClientTransaction, status: int) -> None:
        self.give_up(transaction)
        response = transaction.request.response(status)
        self.events.append(ResponseReceived(response, transaction, local=True))

    def cancel(self, transaction: ClientTransaction, now: float) -> None:
        """Cancel an INVITE: now, or once a provisional answer allows it (RFC 3261 section 9.1)."""
        if transaction.state != PROCEEDING or "cancelled" in transaction.timers:
            return
        transaction.cancel_wanted = True
        if not transaction.provisional:
            return
        sent = transaction.request
        request = Request([], bytearray(), "CANCEL", sent.uri)
        request.headers = [("Via", sent.headers[0][1]), ("Max-Forwards", "70")]
        request.headers += [(name, sent.require(name)) for name in ("From", "To", "Call-ID")]
        request.headers += [("CSeq", f"{sent.cseq[0]} CANCEL")]
        request.headers += [("Route", value) for value in sent.every("Route")]
        request.headers += [("Reason", value) for value in transaction.reasons]
        other = ClientTransaction(request, transaction.side, transaction.to, transaction.branch, request.encode())
        self._begin(other, now)
        self._set(other, "F", now + 64 * T1)
        transaction.timers.clear()
        self._set(transaction, "cancelled", now + 64 * T1)

    def receive_response(self, response: Response, now: float) -> None:
        """Take a response from the wire; one that fits no transaction is dropped (section 18.1.2)."""
        transaction = self._clients.get((response.via.branch, response.cseq[1]))
        if transaction is None or transaction.state == TERMINATED:
            return
        status = response.status
        if transaction.state == COMPLETED:
            if transaction.invite and status >= 300:
                self.outgoing.append(Outgoing(transaction.ack, transaction.side, transaction.to))
            return
        if transaction.state == ACCEPTED:
            if 200 <= status < 300:
                self.events.append(ResponseReceived(response, transaction))
            return
        transaction.timers.pop("A", None)
        if status < 200:
            transaction.provisional = True
            if transaction.invite:
                transaction.timers.pop("B", None)
                if transaction.cancel_wanted:
                    self.cancel(transaction, now)
                else:
                    self._set(transaction, "C", now + limits.RINGING_SECONDS)
            else:
                transaction.interval = T2
        else:
            self._final(transaction, response, now)
        self.events.append(ResponseReceived(response, transaction))

    def _final(self, transaction: ClientTransaction, response: Response, now: float) -> None:
        transaction.timers.clear()
        if not transaction.invite:
            transaction.state = COMPLETED
            self._set(transaction, "K", now if transaction.to.reliable else now + T4)
        elif response.status < 300:
            transaction.state = ACCEPTED
            self._set(transaction, "M", now + 64 * T1)
        else:
            transaction.state = COMPLETED
            transaction.ack = self._ack_of_refusal(transaction, response)
            self.outgoing.append(Outgoing(transaction.ack, transaction.side, transaction.to))
            self._set(transaction, "D", now if transaction.to.reliable else now + 64 * T1)

    @staticmethod
    def _ack_of_refusal(transaction: ClientTransaction, response: Response) -> bytes:
        sent = transaction.request
        ack = Request([], bytearray(), "ACK", sent.uri)
        ack.headers = [("Via", sent.headers[0][1]), ("Max-Forwards", "70"), ("From", sent.require("From"))]
        ack.headers += [("To", response.require("To")), ("Call-ID", sent.call_id), ("CSeq", f"{sent.cseq[0]} ACK")]
        ack.headers += [("Route", value) for value in sent.every("Route")]
        return ack.encode()

    # Time

    def _set(self, transaction: Transaction, name: str, when: float) -> None:
        transaction.timers[name] = when
        self._ticket += 1
        heapq.heappush(self._heap, (when, self._ticket, name, transaction))
        if len(self._heap) > self._sweep_at:  # what was stopped early would keep its transaction for three minutes
            self._heap = [entry for entry in self._heap if entry[3].timers.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
            self._sweep_at = 2 * len(self._heap) + SWEEP

    def get_timer(self) -> float | None:
        """When `handle_timer` wants to be called, or None."""
        while self._heap and self._heap[0][3].timers.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def handle_timer(self, now: float) -> None:
        """Fire what is due."""
        while (when := self.get_timer()) is not None and when <= now:
            _, _, name, transaction = heapq.heappop(self._heap)
            del transaction.timers[name]
            if isinstance(transaction, ServerTransaction):
                self._server_timer(transaction, name, now)
            else:
                self._client_timer(transaction, name, now)

    def _server_timer(self, transaction: ServerTransaction, name: str, now: float) -> None:
        if name in ("G", "2xx", "1xx"):
            data = transaction.unacknowledged if name == "1xx" else transaction.last
            self.outgoing.append(Outgoing(data, transaction.side, transaction.reply_to))
            transaction.interval = 2 * transaction.interval if name == "1xx" else min(2 * transaction.interval, T2)
            self._set(transaction, name, now + transaction.interval)
            return
        if name == "P":
            self.provisional_acknowledged(transaction)
            self.events.append(PrackMissing(transaction))
            return
        if name == "L" and "2xx" in transaction.timers:
            self.events.append(AckMissing(transaction, transaction.owner))
        self._forget(transaction)

    def _client_timer(self, transaction: ClientTransaction, name: str, now: float) -> None:
        if name in ("A", "E"):
            self.outgoing.append(Outgoing(transaction.data, transaction.side, transaction.to))
            doubled = 2 * transaction.interval
            transaction.interval = doubled if name == "A" else min(doubled, T2)
            self._set(transaction, name, now + transaction.interval)
            return
        if name == "C":
            self.cancel(transaction, now)
            return
        if transaction.state == PROCEEDING:
            self._give_up(transaction, 408)  # no answer (RFC 3261 section 8.1.3.1)
        else:
            self.give_up(transaction)
            transaction.owner = None  # who holds it is held by it


def _branch(request: Request, via: Via) -> str:
    """The branch, or for a peer of RFC 2543 what stood for it then (RFC 3261 section 17.2.3)."""
    branch = via.branch
    if branch.startswith(MAGIC):
        return branch
    return f"{request.call_id} {request.cseq[0]} {request.from_.tag} {branch} {request.uri}"
