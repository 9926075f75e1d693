"""What all parts of the B2BUA share: calls, dialogs, transactions, alarms, and the small verbs on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from sip import digest, digits, limits, offer_answer, session_timer
from sip.alarms import Alarms
from sip.b2bua.call import Call, Fork, Leg
from sip.b2bua.events import CallChanged, Event, GuardWanted
from sip.b2bua.negotiation import End
from sip.b2bua.peers import AGENT, TRUNK, Peer, Route
from sip.b2bua.relay import ALLOW, SDP, carry, hide, is_picture_request, rule, unsupported
from sip.dialog import Dialog
from sip.digest import Challenge
from sip.errors import PeerError
from sip.headers.address import Address
from sip.headers.params import number
from sip.hop import PORTS, TLS, UDP, WSS, Hop, join
from sip.message import Message, Request, Response, canonical
from sip.multipart import Part
from sip.sdes import Crypto
from sip.transaction import ClientTransaction, Outgoing, Owner, ResponseReceived, ServerTransaction, TransactionLayer
from sip.uri import Uri

Alarm = tuple[str, str]
"""(call or peer, what for)."""
OPENING, HOP, REFRESH, GLARE = "opening", "hop", "refresh", "glare"


@dataclass(frozen=True, slots=True)
class Site:
    """Where this box is, by (side, transport): the address its peers are told, for Via and Contact."""

    sip: dict[tuple[str, str], tuple[str, int]]
    correlation: str = "X-Correlation-ID"
    """The header that the agent side may set to name a call; never taken from the trunk."""
    random: Callable[[], bytes] | None = None
    """Unguessable octets for SRTP keys (at least KEY_BYTES); without it nothing is offered in SRTP."""

    def at(self, side: str, transport: str) -> tuple[str, int]:
        """The address on `side`; where a transport is not spoken, that of another."""
        found = self.sip.get((side, transport))
        return found or next(at for (s, _), at in self.sip.items() if s == side)


@dataclass(slots=True)
class Core:
    """peers and routes as configured; ids: gives unguessable tokens."""

    peers: tuple[Peer, ...]
    routes: tuple[Route, ...]
    site: Site
    ids: Callable[[], str]
    layer: TransactionLayer = field(init=False)
    dialogs: dict[tuple[str, str], tuple[Call, int]] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    by_call_id: dict[str, Call] = field(default_factory=dict)
    alarms: Alarms[Alarm] = field(default_factory=Alarms)
    events: list[Event] = field(default_factory=list)
    locate: Callable[[Peer, str], list[tuple[Hop, str]]] = field(default=lambda peer, number: [])
    """Where the browsers are that have registered for a number: hop and Contact of each, the newest first."""
    down: set[Hop] = field(default_factory=set)
    """Hops that do not answer."""
    stopping: bool = False
    counters: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("strangers", "malformed", "refused", "digits", "withheld", "limited", "failovers", "transfers"), 0
        )
    )

    def __post_init__(self) -> None:
        self.layer = TransactionLayer({key: join(*at) for key, at in self.site.sip.items()}, self.ids)

    def random(self) -> int:
        """A number that nobody can guess, for back-offs."""
        return int(self.ids()[:8], 16)

    # Making things

    def peer(self, name: str) -> Peer | None:
        """The peer of that name."""
        return next((peer for peer in self.peers if peer.name == name), None)

    def end(self, peer: Peer) -> End:
        """The media half of a new leg to `peer`."""
        keys: tuple[Crypto, ...] = ()
        if peer.srtp in (offer_answer.OPTIONAL, offer_answer.REQUIRED) and self.site.random is not None:
            keys = offer_answer.fresh_keys(self.site.random())
        session = str(int(self.ids()[:12], 16))
        ice = (self.ids()[:8], self.ids()) if peer.srtp == offer_answer.DTLS else ("", "")
        return End("", peer.srtp, session, keys, peer.alone, peer.codecs, ice)

    def hops(self, peer: Peer) -> list[Hop]:
        """Where to send to a peer, those that answer first."""
        return [h for h in peer.hops if h not in self.down] + [h for h in peer.hops if h in self.down]

    def outward(self, peer: Peer, hop: Hop, uri: Uri, source: Request) -> Dialog:
        """The dialog of an INVITE to `peer` that stands for `source`."""
        local, remote = source.from_.tagged(self.ids()), source.to.tagged("")
        if peer.hide_topology:
            own, _ = self.site.at(peer.side, hop.transport)
            local = Address(hide(local.uri, own), local.display, local.params)
            remote = Address(hide(remote.uri, hop.host), remote.display, remote.params)
        return Dialog(self.ids(), local, remote, str(target_at(uri, hop)), hop, mine=True)

    def contact(self, leg: Leg, hop: Hop) -> str:
        """This box's Contact on a leg."""
        host, port = self.site.at(leg.peer.side, hop.transport)
        word = "ws" if hop.transport == WSS else hop.transport.lower()  # RFC 7118 section 5.2
        transport = "" if hop.transport == UDP else f";transport={word}"
        return f"<sip:{join(host, port)}{transport}>"

    # Sending

    def next_hop(self, leg: Leg, dialog: Dialog) -> Hop:
        """The first route or the target where it is an address of the peer's; else from where the peer last spoke."""
        uri, last = Uri.parse(dialog.next_hop), dialog.peer
        host = uri.host.strip("[]")
        transport = uri.transport or (last.transport if uri.scheme == "sip" else TLS)
        if not leg.peer.speaks_from(host):  # a name, or somebody else's address
            return last
        if (leg.peer.side, transport) not in self.site.sip or (leg.peer.transport == TLS != transport):
            return last
        port = uri.port or PORTS[transport]
        if last.reliable and last.transport == transport and last.host == host and last.connection:
            return last._replace(port=port)
        return Hop(host, port, transport, 0, last.name)

    def send(
        self, call: Call, index: int, fork: Fork, request: Request, now: float, answered: Owner
    ) -> ClientTransaction:
        """Send a request on leg `index`; a peer that asks for credentials gets them."""
        return self.send_on(call.legs[index], fork.dialogs[index], request, now, answered)

    def send_on(
        self, leg: Leg, dialog: Dialog, request: Request, now: float, answered: Owner,
        again: Callable[[ClientTransaction], None] = lambda client: None,
    ) -> ClientTransaction:  # fmt: skip
        """The same in a dialog that need not be a call's any more; `again` is told of a second sending."""
        rule(request, leg.peer)
        owner = answered
        if leg.peer.credentials is not None:
            owner = partial(self._challenged, leg, dialog, answered, again)
        return self.layer.send(request, leg.peer.side, self.next_hop(leg, dialog), now, owner)

    def _challenged(
        self, leg: Leg, dialog: Dialog, answered: Owner, again: Callable[[ClientTransaction], None],
        event: ResponseReceived, now: float,
    ) -> None:  # fmt: skip
        """Send a request again with credentials, once, where the answer asks for them."""
        challenge = digest.read(event.response)
        if challenge is None or leg.peer.credentials is None:
            answered(event, now)
            return
        before = event.transaction.request
        request = dialog.request(before.method)
        kept = {canonical(name) for name, _ in request.headers} | {"via", "content-length"}
        request.headers += [(name, value) for name, value in before.headers if canonical(name) not in kept]
        request.body = bytearray(before.body)
        self.authorize(leg, request, challenge)
        again(self.layer.send(request, leg.peer.side, event.transaction.to, now, answered))

    def authorize(self, leg: Leg, request: Request, challenge: Challenge) -> None:
        """Answer a peer's challenge in `request`."""
        assert leg.peer.credentials is not None
        name, value = digest.answer(challenge, leg.peer.credentials, request, self.ids())
        request.set(name, value)

    def send_ack(self, leg: Leg, dialog: Dialog, invite: Request, body: bytes = b"") -> bytes:
        """Acknowledge a 2xx to `invite`, with its credentials (RFC 3261 section 13.2.2.4); returns what was sent, for
        repetition."""
        ack = dialog.request("ACK", invite.cseq[0])
        for name in ("Authorization", "Proxy-Authorization"):
            ack.headers += [(name, value) for value in invite.lines(name)]
        if body:
            ack.put_body(SDP, body)
        return self.layer.send_ack(ack, leg.peer.side, self.next_hop(leg, dialog))

    def repeat(self, leg: Leg, dialog: Dialog, data: bytes) -> None:
        """Send an ACK again."""
        self.layer.outgoing.append(Outgoing(data, leg.peer.side, self.next_hop(leg, dialog)))

    def bye(self, leg: Leg, dialog: Dialog, now: float, cause: Message | None = None) -> None:
        """Hang up one dialog, with the headers and the body of `cause`."""
        request = dialog.request("BYE")
        if cause is not None:
            request.headers += cause.headers
            request.body = cause.body
        self.send_on(leg, dialog, request, now, lambda event, now: None)

    def carry(self, call: Call, index: int, source: Message, target: Message) -> None:
        """Hand on to leg `index` the headers that pass."""
        peer = call.legs[index].peer
        host = self.site.at(peer.side, UDP)[0]
        browser = call.legs[1 - index].peer.registered
        carry(source, target, peer, host, self.site.correlation, call.armed and peer.side == AGENT, browser)

    def words(self, call: Call, index: int, response: Response) -> str:
        """The reason phrase for leg `index`: the peer's; towards the agent, while keys are captured, this box's own."""
        return "" if call.armed and call.legs[index].peer.side == AGENT else response.reason

    def passes(self, call: Call, index: int) -> Callable[[Part], bool]:
        """Which parts of a body pass to leg `index`: no key towards the agent, and nothing at all while armed."""
        if call.legs[index].peer.side != AGENT or call.mode == "passthrough":
            return lambda part: True
        return lambda part: not call.armed and not digits.looks_like_keys(part.content_type, part.body)

    def refuse(self, transaction: ServerTransaction, status: int, now: float, tag: str = "") -> None:
        """Answer a request with a refusal of this box's own."""
        answer = transaction.request.response(status, tag=tag or self.ids())
        if status == 405:
            answer.headers.append(("Allow", ALLOW))
        elif status == 415:
            answer.headers.append(("Accept", SDP))
        elif status == 420:
            answer.headers.append(("Unsupported", ", ".join(unsupported(transaction.request))))
        elif status == 422:
            peer = self.peer_of(transaction)
            least = peer.least_session_seconds if peer is not None else session_timer.LEAST
            answer.headers.append(("Min-SE", str(least)))
        elif status == 500:  # also to an offer that comes too early (RFC 3261 section 14.2, RFC 3311 section 5.2)
            answer.headers.append(("Retry-After", str(1 + self.random() % 10)))
        elif status == 503:
            answer.headers.append(("Retry-After", "10"))
        self.layer.respond(transaction, answer, now)

    def peer_of(self, transaction: ServerTransaction) -> Peer | None:
        """Whose request this is."""
        return next((p for p in self.peers if p.side == transaction.side and p.is_at(transaction.source)), None)

    # Calls

    def enter(self, call: Call, fork: Fork) -> None:
        """Enter a call's dialogs."""
        if fork not in call.forks:
            call.forks.append(fork)
        for index, dialog in enumerate(fork.dialogs):
            self.dialogs[dialog.call_id, dialog.local.tag] = (call, index)
            self.by_call_id[dialog.call_id] = call

    def leave(self, call: Call, fork: Fork) -> None:
        """Forget the dialogs of an early dialog that came to nothing."""
        if fork in call.forks:
            call.forks.remove(fork)
        kept = {(d.call_id, d.local.tag) for f in call.forks for d in f.dialogs}
        for dialog in fork.dialogs:
            if (dialog.call_id, dialog.local.tag) not in kept:
                self.dialogs.pop((dialog.call_id, dialog.local.tag), None)

    def settle(self, call: Call, fork: Fork) -> None:
        """`fork` is the call's from now on, its others are gone."""
        call.fork = fork
        for other in [f for f in call.forks if f is not fork]:
            self.leave(call, other)

    def close(self, call: Call, reason: str, status: int = 0) -> None:
        """Forget a call."""
        if call.ended:
            return
        answered = call.state == "answered"
        call.state = "ended"
        call.exchange = None
        self.calls.pop(call.id, None)
        for fork in call.forks:
            for dialog in fork.dialogs:
                self.dialogs.pop((dialog.call_id, dialog.local.tag), None)
                self.by_call_id.pop(dialog.call_id, None)
        for what in (OPENING, HOP, GLARE, REFRESH + "0", REFRESH + "1"):
            self.alarms.cancel((call.id, what))
        self.events.append(CallChanged(call.id, "ended", reason, 200 if answered else status, call.summary()))

    def agreed(self, call: Call, fork: Fork) -> None:
        """Media can flow as `fork` says."""
        self.events.append(call.agreed(fork))

    def guard(self, call: Call, reason: str) -> None:
        """The way back to passthrough is barred, from this message on."""
        if call.mode == "passthrough":
            call.mode = "guarded"
            self.events.append(GuardWanted(call.id, reason))

    def look_for_guard(self, call: Call, source: int, message: Message) -> None:
        """A header of the agent side may end passthrough."""
        header = call.route.guard_header
        if header and call.legs[source].peer.side == AGENT and message.lines(header):
            self.guard(call, "header")

    def withheld(self, call: Call, source: int, message: Message, method: str) -> bool:
        """Whether a body from the trunk must not reach the agent: any while a capture runs, in INFO any that is not
        known to be harmless, and elsewhere what looks like a key. It is blanked."""
        if not message.body or call.legs[source].peer.side != TRUNK or call.mode == "passthrough":
            return False
        doubtful = method == "INFO" and not is_picture_request(message)
        if call.armed or doubtful or digits.holds_digits(message):
            self.counters["withheld"] += 1
            message.wipe()
            return True
        return False


def target_at(uri: Uri, hop: Hop) -> Uri:
    """`uri`'s user at a next hop."""
    host = f"[{hop.host}]" if ":" in hop.host else hop.host
    target = uri.at(hop.name or host, None if hop.name else hop.port)
    if hop.transport != UDP:
        target = target.with_param("transport", hop.transport.lower())
    return target


def hops_left(request: Request) -> int:
    """Max-Forwards (RFC 3261 section 8.1.1.6). Raises PeerError: 483 where it is used up."""
    left = number(request.get("Max-Forwards") or "70", 255)
    if left is None:
        raise PeerError("Max-Forwards cannot be read")
    if left == 0:
        raise PeerError("Max-Forwards is used up", 483)
    return left


def too_many(call: Call) -> bool:
    """Whether a call has too many requests on their way."""
    return call.passing >= limits.EVENTS_PER_CALL
