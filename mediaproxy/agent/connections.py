"""Connections of the HTTP side: one whose request does not come whole is not waited for."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS: Final = 10.0
"""From a connection's beginning, or the last answer, to the end of a request's head."""


class Connection(H11Protocol):
    """uvicorn's, which by itself waits for ever for the rest of a head."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(False)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait(False)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait(not self.transport.is_closing())

    def _wait(self, again: bool = True) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort) if again else None
