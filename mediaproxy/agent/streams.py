"""The event stream of a capture: what was, what comes, and a comment now and then so that nobody takes it for dead."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.responses import StreamingResponse

from mediaproxy.agent.auth import Principal, seconds_left
from mediaproxy.agent.desk import Desk, View
from mediaproxy.agent.problem import Problem

KEEP_ALIVE = 15.0
"""Seconds between comments on a quiet stream, so that proxies keep it open; a page that hears nothing for twice as long
asks anew."""
EACH = 16
"""Streams of one token, but for one of all extensions."""
_LAST = re.compile(r"(?:([0-9a-f]{8})-)?([0-9]{1,9})")


class Streams:
    """Those that are open; most: how many may be."""

    def __init__(self, desk: Desk, most: int) -> None:
        self._desk, self._most = desk, most
        self._of: dict[str, int] = {}
        """How many each caller has open."""

    def response(self, view: View, who: Principal, last_event_id: str) -> StreamingResponse:
        """The events after `last_event_id`. Raises Problem 503 where there are too many streams."""
        mine = self._of.get(who.key, 0)
        if self._desk.streams >= self._most or (mine >= EACH and not who.unlimited):
            raise Problem(503, "too-many-streams", "no room for another event stream", retry_after=5)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        stream = self._stream(view, who, self._after(view, last_event_id))
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    def _after(self, view: View, last: str) -> int:
        """The number of the last event that the client has. Another process's numbers mean nothing here."""
        found = _LAST.fullmatch(last)
        if found is None or (found[1] and found[1] != self._desk.epoch):
            return 0
        after = int(found[2])
        return after if view.events and after <= view.events[-1]["seq"] else 0

    async def _stream(self, view: View, who: Principal, after: int) -> AsyncIterator[bytes]:
        """Until the capture ends, the server stops, or the token is stale."""
        self._desk.streams += 1
        self._of[who.key] = self._of.get(who.key, 0) + 1
        try:
            while not self._desk.stopping.is_set():
                changed, ended = view.changed, view.ended
                fresh = [event for event in view.events if event["seq"] > after]
                if fresh:
                    after = fresh[-1]["seq"]
                    yield b"".join(self._lines(event) for event in fresh)
                left = seconds_left(who)
                if ended or left <= 0:
                    return
                try:
                    async with asyncio.timeout(min(KEEP_ALIVE, left)):
                        await changed.wait()
                except TimeoutError:
                    yield b": quiet\n\n"
        finally:
            self._desk.streams -= 1
            self._of[who.key] -= 1
            if not self._of[who.key]:
                del self._of[who.key]

    def _lines(self, event: dict[str, Any]) -> bytes:
        return b"id: %s-%d\ndata: %s\n\n" % (self._desk.epoch.encode(), event["seq"], msgspec.json.encode(event))
