"""What `flattone trace` and the signalling process say to each other over their socket: lines of JSON."""

from __future__ import annotations

import msgspec


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a watcher sends, one line: a call's id, a Call-ID, a number, or "*" for every call."""

    watch: str


class Step(msgspec.Struct, frozen=True):
    """One message that passed. at: seconds since 1970; way: in or out; text: what may be shown of it."""

    at: float
    call: str
    side: str
    way: str
    transport: str
    peer: tuple[str, int]
    own: tuple[str, int]
    text: str
