"""What the B2BUA asks of its host, and tells it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sip.headers.via import Endpoint


@dataclass(frozen=True, slots=True)
class MediaWanted:
    """A call needs a port pair on each side; answer with `media_opened` or `media_failed`."""

    call: str
    sides: tuple[str, str]


@dataclass(frozen=True, slots=True)
class LegMedia:
    """remote: where this leg's audio goes, None while held; receive: encoding by payload type that may come in;
    send: payload type by encoding that goes out."""

    remote: Endpoint | None
    receive: dict[int, str] = field(default_factory=dict)
    send: dict[str, int] = field(default_factory=dict)
    ptime: int = 20
    control_port: int = 0
    """Where RTCP goes."""


@dataclass(frozen=True, slots=True)
class MediaAgreed:
    """Offer and answer have met (or early media is announced): legs in the order of `MediaWanted.sides`."""

    call: str
    legs: tuple[LegMedia, LegMedia]


@dataclass(frozen=True, slots=True)
class CallChanged:
    """The call is now `state`: ringing, answered or ended. `reason` is from a closed list, never a peer's text."""

    call: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KeyReceived:
    """The trunk side sent a key in signalling; `event` is its telephone-event code."""

    call: str
    event: int = field(repr=False)


Event = MediaWanted | MediaAgreed | CallChanged | KeyReceived
