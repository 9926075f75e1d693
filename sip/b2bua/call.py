"""One call: two legs, the early dialogs of its INVITE, and what is on its way between them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from sip.b2bua.events import MediaAgreed, Summary
from sip.b2bua.negotiation import End, Negotiation
from sip.b2bua.peers import AGENT, Peer, Route
from sip.dialog import Dialog
from sip.digest import Challenge
from sip.hop import Hop
from sip.message import Request, Response
from sip.session_timer import SessionTimer
from sip.transaction import ClientTransaction, ServerTransaction


@dataclass(slots=True)
class Leg:
    """One side of a call. hops: where its INVITE may still be sent; allow: methods that the peer has said it knows;
    timer: the session timer of its dialog."""

    peer: Peer
    hops: list[Hop] = field(default_factory=list)
    allow: frozenset[str] = frozenset()
    timer: SessionTimer | None = None
    least: int = 0
    """The largest Min-SE that the peer has asked for."""
    places: list[tuple[Hop, str]] = field(default_factory=list)
    """Of what is registered: where its INVITE is still to be sent, to all at once."""


@dataclass(slots=True)
class Fork:
    """An early dialog of the called leg and the one of the calling leg that stands for it: one each for every tag that
    answers (RFC 3261 section 12.1); the one that is answered becomes the call's."""

    dialogs: list[Dialog]
    media: Negotiation
    heard: int = -1
    """RSeq of the last reliable provisional answer that came."""


@dataclass(slots=True)
class Provisional:
    """A reliable provisional answer on its way to the calling leg, until its PRACK: `number` is its RSeq there; `asked`
    is what the called leg wants acknowledged (RSeq, CSeq), None where it asked for nothing."""

    fork: Fork
    response: Response
    number: int
    asked: tuple[int, int] | None


@dataclass(slots=True)
class Exchange:
    """An INVITE on its way from leg `source` to the other one."""

    call: Call
    source: int
    server: ServerTransaction
    fork: Fork
    client: ClientTransaction | None = None
    beside: list[ClientTransaction] = field(default_factory=list)
    """The same INVITE to further browsers, which ring with the first."""
    best: Response | None = None
    """The refusal that says most, of those that have come."""
    accepted: Fork | None = None
    """The dialog whose 2xx has passed, until its ACK has."""
    ack: bytes = b""
    offer_came: bool = False
    """The INVITE held an offer."""
    settled: bool = False
    """Offer and answer of this INVITE are through."""
    answered: bool = False
    """The calling leg has had a description in a reliable provisional answer."""
    reliable: bool = False
    """The calling leg can take reliable provisional answers; `insists`: it wants no other."""
    insists: bool = False
    waiting: deque[Provisional] = field(default_factory=deque)
    """Reliable provisional answers, the first of which has been sent."""
    last_number: int = 0
    final: tuple[Fork, Response] | None = None
    """A 2xx that waits for the PRACK of what came before it (RFC 3262 section 3)."""
    provisionals: int = 0
    invite_dialog: Dialog | None = None
    """Where the INVITE went: the leg may have been exchanged since."""
    thanked: set[str] = field(default_factory=set)
    """Tags of dialogs beside the accepted one that have been hung up."""
    attempts: int = 0
    """How often it was sent anew: with credentials, or with a longer session."""
    challenge: Challenge | None = None
    here: bool = False
    """Answered by this box, without the other leg."""

    @property
    def clients(self) -> list[ClientTransaction]:
        """Every INVITE that has gone out for it."""
        return [*([self.client] if self.client is not None else []), *self.beside]


@dataclass(slots=True)
class Passing:
    """Another request on its way from leg `source` to the other one. offer: it holds one."""

    call: Call
    source: int
    server: ServerTransaction
    fork: Fork
    dialog: Dialog
    """Where it went: the leg may have been exchanged when the answer comes."""
    offer: bool = False


@dataclass(slots=True)
class Call:
    """legs[0] is the one that called. mode: of the trunk leg (passthrough, guarded, armed, sealed)."""

    id: str
    route: Route
    legs: list[Leg]
    fork: Fork
    mode: str
    caller: str
    number: str
    """The agent's extension: the user that was called or that calls."""
    correlation: str
    began: float
    forks: list[Fork] = field(default_factory=list)
    exchange: Exchange | None = None
    state: str = "opening"
    passing: int = 0
    """Requests that have been passed on and not yet answered."""
    pressed: tuple[int, ...] = field(default=(), repr=False)
    """A key of a NOTIFY whose end is still to come."""
    transfer: object = None
    """A transfer that is being carried out."""
    capturing: bool = False
    """A capture is armed or about to be: what moves media is answered here."""
    waiting: bool = False
    """A re-INVITE of this box's own is on its way."""
    detached: Exchange | None = None
    """An INVITE answered here or there before its leg was exchanged: its ACK is still to come."""
    left: set[int] = field(default_factory=set)
    """Legs whose party has left while its transfer is carried out."""
    owed: set[int] = field(default_factory=set)
    """Legs to which an offer of this box's is still to be sent."""
    called: str = ""
    identity: list[tuple[str, str]] = field(default_factory=list)
    """Headers that name the caller."""

    @property
    def ended(self) -> bool:
        return self.state == "ended"

    @property
    def agent_leg(self) -> int:
        return 0 if self.legs[0].peer.side == AGENT else 1

    @property
    def call_ids(self) -> tuple[str, str]:
        """Call-ID of each leg."""
        return clean(self.fork.dialogs[0].call_id), clean(self.fork.dialogs[1].call_id)

    @property
    def armed(self) -> bool:
        """Whether keys are being captured, or were until something went wrong."""
        return self.mode in ("armed", "sealed")

    def ends(self, index: int) -> list[End]:
        """The media half of leg `index` in every early dialog."""
        return [fork.media.ends[index] for fork in self.forks]

    def agreed(self, fork: Fork | None = None) -> MediaAgreed:
        """What the media worker needs to know."""
        media = (fork or self.fork).media
        return MediaAgreed(self.id, (media.media(0), media.media(1)))

    def summary(self) -> Summary:
        """What there is to tell of the call."""
        first, second = (leg.peer.name for leg in self.legs)
        one, other = (end.layout.secure for end in self.fork.media.ends)
        codec = "+".join(dict.fromkeys(end.codec for end in self.fork.media.ends if end.codec))
        inbound = self.agent_leg == 1
        return Summary(
            self.route.name, inbound, (first, second), self.call_ids, self.caller, self.called, codec, (one, other)
        )

    def find(self, index: int, message: Request | Response, mine: str) -> Fork | None:
        """The dialog of leg `index` in which `message` came: `mine` is this box's tag in it."""
        theirs = message.from_.tag if isinstance(message, Request) else message.to.tag
        for fork in self.forks:
            dialog = fork.dialogs[index]
            if dialog.local.tag == mine and dialog.remote.tag in ("", theirs):
                return fork
        return None


def clean(text: str) -> str:
    """Text that can be written anywhere: what is no UTF-8 in it is marked."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
