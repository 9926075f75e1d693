"""What the B2BUA asks of its host, and tells it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sip.hop import Endpoint


@dataclass(frozen=True, slots=True)
class MediaWanted:
    """A call needs a port pair on each side; answer with `media_opened` or `media_failed`. ice: of each leg that is a
    browser's, this box's ufrag and password."""

    call: str
    sides: tuple[str, str]
    ice: tuple[tuple[str, str], tuple[str, str]] = field(default=(("", ""), ("", "")), repr=False)


@dataclass(frozen=True, slots=True)
class Coding:
    """A leg whose audio is not G.711. audio, events: the payload types in which it comes in and goes out (-1: none);
    parameters: what the peer asks of who codes for it."""

    encoding: str
    audio: tuple[int, int]
    events: tuple[int, int] = (-1, -1)
    parameters: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Secured:
    """A browser's transport. ice: this box's ufrag and password; ufrag and fingerprint (hash, value): the peer's, empty
    until it has told them; active: this box begins the handshake."""

    ice: tuple[str, str] = field(repr=False)
    ufrag: str = ""
    fingerprint: tuple[str, str] = ("", "")
    active: bool = False


@dataclass(frozen=True, slots=True)
class LegMedia:
    """remote: where this leg's audio goes, None while held; receive: encoding by payload type that may come in;
    send: payload type by encoding that goes out; keys: (suite, own key, peer's key) where it is SRTP."""

    remote: Endpoint | None
    receive: dict[int, str] = field(default_factory=dict)
    send: dict[str, int] = field(default_factory=dict)
    ptime: int = 20
    control_port: int = 0
    """Where RTCP goes."""
    keys: tuple[str, bytes, bytes] | None = field(default=None, repr=False)
    coding: Coding | None = None
    secured: Secured | None = None


@dataclass(frozen=True, slots=True)
class MediaAgreed:
    """Offer and answer have met (or early media is announced): legs in the order of `MediaWanted.sides`."""

    call: str
    legs: tuple[LegMedia, LegMedia]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a call was: tuples by leg, the calling one first. inbound: the trunk side called."""

    route: str
    inbound: bool
    peers: tuple[str, str]
    call_ids: tuple[str, str]
    caller: str
    called: str
    codec: str
    srtp: tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class CallChanged:
    """The call is now `state`: ringing, answered, changed or ended. `reason` is from a closed list, never a peer's
    text; `status` the last answer of the called leg."""

    call: str
    state: str
    reason: str = ""
    status: int = 0
    summary: Summary | None = field(default=None, repr=False)
    """Once it has ended."""


@dataclass(frozen=True, slots=True)
class GuardWanted:
    """Passthrough ends: the agent has been reached. `reason`: answer, transfer, header."""

    call: str
    reason: str


@dataclass(frozen=True, slots=True)
class KeyReceived:
    """The trunk side sent a key in signalling; `event` is its telephone-event code. `passed`: it went on to the agent
    side, since the call is in passthrough."""

    call: str
    event: int = field(repr=False)
    passed: bool = False


Event = MediaWanted | MediaAgreed | CallChanged | GuardWanted | KeyReceived
