"""One capture on its way to a gateway, or to the one that stands by for it."""

from __future__ import annotations

import secrets
import string
import time

from mediaproxy.errors import GatewayError
from mediaproxy.https import Exchange
from mediaproxy.vault.fields import Field
from mediaproxy.vault.gateway import Gateway, NotTaken


class Submission:
    """Every body that may be sent is made at once, in the thread that owns the capture; `run` needs a thread of its
    own, since it waits. One idempotency key, of letters alone, goes with all tries. Raises GatewayError."""

    def __init__(self, gateways: list[Gateway], fields: list[Field]) -> None:
        self._fields, self._exchange = fields, Exchange()
        self._key = "".join(secrets.choice(string.ascii_letters) for _ in range(32))
        self._ways = []
        try:
            for gateway in gateways:
                self._ways.append((gateway, gateway.body(fields)))
        except BaseException:
            self.close()
            raise
        self.seconds = gateways[0].config.timeout_seconds
        """For a token in all."""

    def run(self) -> str:
        """Return the token. Raises GatewayError."""
        deadline = time.monotonic() + self.seconds
        last = NotTaken("aborted")
        for gateway, body in self._ways:
            try:
                return gateway.ask(body, self._fields, self._key, deadline, self._exchange)
            except NotTaken as error:
                last = error
        raise GatewayError("gateway-unavailable", last.cause, last.status)

    def abort(self) -> None:
        """Time is up: end what is under way, and blank what was to be sent. First the end, so that no blank is sent."""
        self._exchange.abort()
        for _, body in self._ways:
            body.wipe()

    def close(self) -> None:
        """Wipe what was made. After `run` has ended."""
        for _, body in self._ways:
            body.close()
        self._ways = []
