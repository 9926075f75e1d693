"""What the API shows of a capture, a call, a person: plain values for JSON. None of them can hold a digit."""

from __future__ import annotations

import time
from typing import Any

from mediaproxy.agent.auth import Principal
from mediaproxy.agent.desk import Desk, View
from mediaproxy.ipc import messages as m


def capture(desk: Desk, view: View) -> dict[str, Any]:
    """A capture."""
    call = desk.calls.get(view.call)
    about = {
        "id": view.id, "call": view.call, "extension": view.number, "correlation": view.correlation,
        "mode": call.mode if call is not None else None, "last_event_id": desk.event_id(view),
    }  # fmt: skip
    state = view.state
    if state is None:
        return about | {"state": "keying", "speech": "off", "fields": []}
    fields = [
        {"name": f.name, "state": f.state, "digits_received": f.digits_received}
        | ({"reason": f.reason} if f.reason else {})
        for f in state.fields
    ]
    extra = {key: getattr(state, key) for key in ("token", "brand", "last4", "reason") if getattr(state, key)}
    return about | {"state": state.state, "speech": state.speech, "fields": fields} | extra


def call(desk: Desk, state: m.CallState) -> dict[str, Any]:
    """A live call."""
    view = desk.captures.get(state.capture)
    names = ("state", "mode", "direction", "number", "correlation", "sip_call_ids", "route")
    running = {
        "capture": f"{state.capture:016x}" if state.capture else None,
        "capture_state": view.state.state if view is not None and view.state is not None else None,
    }
    seconds = max(0, int(time.monotonic() - state.began))
    about = {"id": state.call, "tenant": desk.tenant(state.route), "seconds": seconds}
    return about | running | {name: getattr(state, name) for name in names}


def person(who: Principal, accepted: bool) -> dict[str, Any]:
    """Whose token it is. accepted: the notice."""
    return {
        "name": who.name,
        "by": who.by,
        "roles": sorted(who.roles),
        "tenant": who.tenant,
        "numbers": sorted(who.numbers),
        "expires": int(who.expires) if who.expires < float("inf") else None,
        "notice_accepted": accepted,
    }
