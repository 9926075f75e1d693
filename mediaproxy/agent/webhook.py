"""Receipts: when a capture has ended with a token, the merchant's system is told, signed, until it says 2xx.

At least once, in no order; `id` is the capture's and the same each time. The signature covers time and body, so that
neither can be changed and an old receipt is not taken for a new one:

    Flattone-Signature: t=SECONDS,v1=HEX     HEX = HMAC-SHA-256(secret, "SECONDS." + body)
"""

from __future__ import annotations

import asyncio
import hmac
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from mediaproxy import log
from mediaproxy.config import Config, WebhookConfig
from mediaproxy.https import Client, Unanswered, Unsent, Unwanted
from mediaproxy.ipc import messages as m

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0
"""Seconds between tries: twice as long each time."""
THREADS: Final = 4
"""Of each webhook: one that hangs delays no other."""
LEAST_SECRET: Final = 16
WAITING: Final = 10_000
"""Receipts that may wait; beyond, new ones are dropped and counted."""


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that is told. at: seconds since 1970."""

    id: str
    call: str
    correlation: str
    route: str
    state: str
    token: str
    at: int
    brand: str = ""
    last4: str = ""


class Webhooks:
    """Every configured webhook, and what is still to be told."""

    def __init__(self, config: Config) -> None:
        self._hooks = {hook.name: (hook, Client(hook.url, hook.ca_file)) for hook in config.webhooks}
        self._by_route = {route.name: route.webhook for route in config.routes if route.webhook}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = {name: ThreadPoolExecutor(THREADS, name) for name in self._hooks}
        self._told: dict[str, None] = {}
        self._counts = {"webhooks": 0.0, "webhooks_failed": 0.0}

    @property
    def counters(self) -> dict[str, float]:
        return self._counts | {"waiting": float(len(self._tasks))}

    def send(self, capture: str, call: str, correlation: str, state: m.CaptureState) -> None:
        """Tell of a token, where the call's route says whom."""
        name = self._by_route.get(state.route, "")
        if not name or capture in self._told:
            return
        if len(self._tasks) >= WAITING:
            self._failed(capture, "full")
            return
        self._told[capture] = None
        while len(self._told) > WAITING:
            del self._told[next(iter(self._told))]
        receipt = Receipt(
            capture,
            call,
            correlation,
            state.route,
            state.state,
            state.token,
            int(time.time()),
            state.brand,
            state.last4,
        )
        task = asyncio.create_task(self._deliver(*self._hooks[name], receipt))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, hook: WebhookConfig, client: Client, receipt: Receipt) -> None:
        body = msgspec.json.encode(receipt)
        until, pause = time.monotonic() + hook.keep_seconds, FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while not await loop.run_in_executor(self._threads[hook.name], _post, hook, client, body):
            if time.monotonic() + pause > until:
                self._failed(receipt.id, "not-delivered")
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        self._counts["webhooks"] += 1

    def _failed(self, capture: str, reason: str) -> None:
        self._counts["webhooks_failed"] += 1
        log.get().error("webhook-failed", capture=capture, reason=reason)


def _post(hook: WebhookConfig, client: Client, body: bytes) -> bool:
    """Whether the receipt was taken."""
    try:
        secret = Path(hook.secret_file).read_bytes().strip()
        if len(secret) < LEAST_SECRET:
            return False
        at = str(int(time.time()))
        signature = hmac.digest(secret, at.encode() + b"." + body, "sha256").hex()
        headers = {"Content-Type": "application/json", "Flattone-Signature": f"t={at},v1={signature}"}
        answer = client.post(headers, body, time.monotonic() + hook.timeout_seconds)
    except (Unsent, Unanswered, Unwanted, OSError):
        return False
    return 200 <= answer.status < 300
