"""Session timers (RFC 4028): who refreshes a dialog, when, and when it is given up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sip.errors import PeerError
from sip.headers import params as p
from sip.message import Message, Request, Response

LEAST: Final = 90
"""No shorter interval is lawful (section 5)."""
LONGEST: Final = 86_400 * 7


class TooSmall(PeerError):
    """The interval asked for is smaller than this box wants: 422 with its Min-SE."""

    def __init__(self) -> None:
        super().__init__("session interval is too small", 422)


@dataclass(slots=True)
class SessionTimer:
    """interval: seconds; mine: this box refreshes; since: the last refresh."""

    interval: int
    mine: bool
    since: float

    @property
    def due(self) -> float:
        """When to refresh, or, where the peer does it, when to give up (section 10)."""
        left = self.interval / 2 if self.mine else self.interval - min(32.0, self.interval / 3)
        return self.since + left


def read(message: Message) -> tuple[int, str]:
    """(interval, refresher) of Session-Expires; (0, "") where there is none. Raises PeerError."""
    text = message.get("Session-Expires")
    if text is None:
        return 0, ""
    value, *rest = p.split(text, ";")
    seconds = p.number(value, LONGEST)
    if seconds is None:
        raise PeerError("Session-Expires cannot be read")
    return seconds, (p.parse(rest).get("refresher") or "").lower()


def least(message: Message) -> int:
    """Min-SE, or what the RFC has for it."""
    return max(LEAST, p.number((message.get("Min-SE") or "").partition(";")[0], LONGEST) or 0)


def as_server(request: Request, wanted: int, smallest: int, now: float) -> tuple[SessionTimer | None, str]:
    """The timer of a dialog whose INVITE or UPDATE this is, and the Session-Expires of the answer (section 9).

    wanted: this box's own interval, 0 for none unless the peer asks; smallest: its Min-SE. Raises TooSmall.
    """
    seconds, refresher = read(request)
    able = "timer" in request.tokens("Supported") or refresher == "uac"
    if seconds:
        if seconds < smallest:
            if able:
                raise TooSmall
            seconds = smallest  # a hop between asked for it: it may only be raised (section 8.1)
        seconds = max(seconds, least(request)) if not wanted else max(min(seconds, wanted), least(request), smallest)
    elif wanted:
        seconds = max(wanted, least(request))
    else:
        return None, ""
    if not able:
        return SessionTimer(seconds, True, now), f"{seconds};refresher=uas"
    refresher = refresher if refresher in ("uac", "uas") else "uac"
    return SessionTimer(seconds, refresher == "uas", now), f"{seconds};refresher={refresher}"


def as_client(response: Response, now: float) -> SessionTimer | None:
    """The timer of a dialog from a 2xx to this box's INVITE or UPDATE (section 7.2)."""
    seconds, refresher = read(response)
    if not seconds:
        return None
    return SessionTimer(max(seconds, LEAST), refresher != "uas", now)
