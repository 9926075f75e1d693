"""The gateway port: a body in, a token out, and nothing kept. What one kind of gateway wants is in `adapters`, one file
a kind; asking, repeating, giving up and judging the answer is here, the same for all."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from mediaproxy.config import GatewayConfig, Reason
from mediaproxy.errors import GatewayError
from mediaproxy.https import Answer, Client, Exchange, Unanswered, Unsent, Unwanted
from mediaproxy.room import Room
from mediaproxy.vault import screen
from mediaproxy.vault.body import Part, Values, write
from mediaproxy.vault.fields import Field

REASONS: Final = (
    "declined", "invalid-field", "gateway-unavailable", "not-configured", "answer-refused", "test-gateway",
)  # fmt: skip
"""All an agent ever learns of why a token did not come."""
REFERENCE: Final = "flattone-reference"
"""The protocol (ALPN) by which the reference token server makes itself known before anything is sent to it; a real
gateway never does. It says so in a header of every answer as well, for when something stands before it."""
REFERENCE_HEADER: Final = "Flattone-Reference-Server"
_PAUSE: Final = 0.1
"""Seconds before the first repetition; twice as many before each further one."""
_NOT_TAKEN: Final = 429
"""The status that says that nothing was done (RFC 6585 section 4); a 503 may be a proxy's that has passed it on."""
_LATER: Final = (408, 409, 429)
"""Refusals that are none of the card's: a timeout, the same key being worked on, too many requests."""
_LONGEST_TOKEN: Final = 256


class NotTaken(Exception):
    """This gateway has certainly taken nothing: another one may be asked. cause and status as in GatewayError."""

    def __init__(self, cause: str, status: int = 0) -> None:
        super().__init__(cause)
        self.cause, self.status = cause, status


class Adapter:
    """One kind of gateway. What is here is what most of them do."""

    idempotent = True
    """Whether it keeps an idempotency key unless the configuration says otherwise."""
    idempotency_header = "Idempotency-Key"
    content_type = "application/json"

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config

    def body(self, values: Values) -> list[Part] | None:
        """What is sent; None where the capture lacks what is needed."""
        raise NotImplementedError

    def clean(self, answer: bytearray, fields: Iterable[Field]) -> None:
        """Blank what this kind of gateway is known to repeat of what it was sent."""

    def token(self, answer: Any) -> Any:
        """The token in a parsed answer; LookupError where there is none."""
        return at(answer, "id")

    def refusal(self, status: int, answer: Any) -> Reason | None:
        """What a refusal means; None where its status says it all."""
        return None


def by_status(status: int) -> Reason:
    """What a status means where nothing else is known."""
    if status in (400, 422):
        return "invalid-field"
    if status == 402:
        return "declined"
    return "not-configured" if status in (401, 403, 404, 405, 415) else "gateway-unavailable"


class Breaker:
    """After `limit` failures in a row nothing is sent for `rest` seconds, then one request to see."""

    def __init__(self, limit: int = 5, rest: float = 10.0) -> None:
        self._limit, self._rest = limit, rest
        self._failures = 0
        self._open_until = 0.0
        self._lock = threading.Lock()

    def admits(self) -> bool:
        """Whether a request may be sent; after a rest that is one, and the next when it has ended or rested too."""
        with self._lock:
            now = time.monotonic()
            if now < self._open_until:
                return False
            if self._failures >= self._limit:
                self._open_until = now + self._rest
            return True

    def succeeded(self) -> None:
        with self._lock:
            self._failures, self._open_until = 0, 0.0

    def failed(self) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= self._limit:
                self._open_until = time.monotonic() + self._rest


class Gateway:
    """A tokenization service. expiry: how expiry dates are keyed."""

    def __init__(self, config: GatewayConfig, adapter: Adapter, expiry: str = "MMYY") -> None:
        self.config = config
        self._adapter, self._expiry = adapter, expiry
        self._idempotent = adapter.idempotent if config.idempotent is None else config.idempotent
        self._client = Client(
            config.url, config.ca_file, config.client_certificate, config.client_key, config.connect_seconds,
            () if config.reference_server else (REFERENCE,), REFERENCE_HEADER,
        )  # fmt: skip
        self.breaker = Breaker()

    def body(self, fields: Iterable[Field]) -> Room:
        """The body for `fields`; the caller closes it. Raises GatewayError."""
        with Values(fields, self._expiry) as values:
            parts = self._adapter.body(values)
            if not parts:
                raise GatewayError("not-configured", "lacks-field")
            return write(parts)

    def has_credentials(self) -> bool:
        """Whether those it needs can be read now, and are not empty."""
        config = self.config
        try:
            files = (config.bearer_file, config.basic_file, *config.header_files.values())
            return all(_secret(file) for file in files if file)
        except (OSError, UnicodeDecodeError):
            return False

    def ask(self, body: Room, fields: list[Field], key: str, deadline: float, exchange: Exchange) -> str:
        """Return the token. Asks again where that is safe. Raises GatewayError, NotTaken."""
        taken, cause, status = False, "resting", 0
        for attempt in range(1 + self.config.retries):
            if attempt:
                time.sleep(min(_PAUSE * 2 ** (attempt - 1), max(deadline - time.monotonic(), 0.0)))
            if exchange.aborted or time.monotonic() >= deadline or not self.breaker.admits():
                break
            try:
                answer = self._client.post(self._headers(key), body.view, deadline, exchange)
            except Unwanted:
                raise GatewayError("test-gateway") from None
            except Unsent as error:
                self.breaker.failed()
                cause = str(error)
                continue
            except Unanswered as error:
                self.breaker.failed()
                taken, cause, status = True, str(error), 0
                if not self._idempotent:
                    break
                continue
            try:
                if answer.status < 500 and answer.status not in _LATER:
                    self.breaker.succeeded()
                    return self._judge(answer, fields)
            finally:
                answer.body[:] = bytes(len(answer.body))
            self.breaker.failed()
            cause, status = "status", answer.status
            taken |= answer.status != _NOT_TAKEN
            if taken and not self._idempotent:
                break
        if taken:
            raise GatewayError("gateway-unavailable", cause, status)
        raise NotTaken(cause, status)

    def _headers(self, key: str) -> dict[str, str]:
        """Raises GatewayError where a credential cannot be read."""
        config = self.config
        headers = {"Content-Type": self._adapter.content_type, "Accept": "application/json", **config.headers}
        if self._idempotent:
            headers[config.idempotency_header or self._adapter.idempotency_header] = key
        try:
            if config.bearer_file:
                headers["Authorization"] = f"Bearer {_secret(config.bearer_file)}"
            if config.basic_file:
                headers["Authorization"] = f"Basic {_base64(_secret(config.basic_file))}"
            return headers | {name: _secret(file) for name, file in config.header_files.items()}
        except (OSError, UnicodeDecodeError):
            raise GatewayError("not-configured", "credentials") from None

    def _judge(self, answer: Answer, fields: list[Field]) -> str:
        if answer.marked and not self.config.reference_server:
            raise GatewayError("test-gateway")
        if not 200 <= answer.status < 300:
            raise GatewayError(self._refusal(answer, fields), "status", answer.status)
        if not answer.whole:
            raise GatewayError("answer-refused", "too-large")
        self._adapter.clean(answer.body, fields)
        screen.keyed(answer.body, fields)
        try:
            token = self._adapter.token(msgspec.json.decode(answer.body))
        except (msgspec.DecodeError, LookupError, TypeError, ValueError, RecursionError):
            raise GatewayError("answer-refused", "no-token") from None
        if (
            not isinstance(token, str)
            or not 1 <= len(token) <= _LONGEST_TOKEN
            or not (token.isprintable() and token.isascii())
        ):
            raise GatewayError("answer-refused", "no-token")
        screen.undeclared(answer.body, token, fields)
        return token

    def _refusal(self, answer: Answer, fields: list[Field]) -> str:
        """What a refusal means. Its text is read only where it holds nothing that was keyed."""
        try:
            screen.keyed(answer.body, fields)
            meant = self._adapter.refusal(answer.status, msgspec.json.decode(answer.body) if answer.whole else None)
        except (GatewayError, msgspec.DecodeError, LookupError, TypeError, ValueError, RecursionError):
            meant = None
        return meant or by_status(answer.status)


def _secret(file: str) -> str:
    return Path(file).read_text("ascii").strip()


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def at(answer: Any, path: str) -> Any:
    """What stands at `path`, like `data.0.id`, in a parsed answer. Raises LookupError, TypeError."""
    for step in path.split("."):
        answer = answer[int(step)] if isinstance(answer, list) and step.isdecimal() else answer[step]
    return answer
