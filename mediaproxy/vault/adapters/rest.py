"""JSON over HTTPS with the standard library, whose client sends a buffer as it lies (httpx was measured to keep a
copy of the card number; `http.client` with a bytearray keeps none)."""

from __future__ import annotations

import http.client
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mediaproxy.config import GatewayConfig
from mediaproxy.errors import GatewayError
from mediaproxy.vault.fields import Field
from mediaproxy.vault.gateway import Breaker, screen

LARGEST_ANSWER = 65_536
REFERENCE_HEADER = "Flattone-Reference-Server"
"""The reference token server says so in every answer; a real one never does."""


class _Answer(msgspec.Struct):
    token: str


class RestGateway:
    """POST `{"pan": "...", "expiry": "...", "cvv": "..."}`, answered by `{"token": "..."}`."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._breaker = Breaker()

    def tokenize(self, fields: list[Field], idempotency_key: str) -> str:
        """See `Gateway.tokenize`."""
        self._breaker.check()
        body = render(fields)
        try:
            status, headers, answer = self._post(body, idempotency_key)
        except (OSError, http.client.HTTPException):
            self._breaker.failed()
            raise GatewayError("gateway-unavailable") from None
        finally:
            body[:] = bytes(len(body))
        if status >= 500 or status in (408, 429):
            self._breaker.failed()
            raise GatewayError("gateway-unavailable")
        self._breaker.succeeded()
        if headers.get(REFERENCE_HEADER) and not self._config.reference_server:
            raise GatewayError("test-gateway")
        if status in (400, 422):
            raise GatewayError("invalid-field")
        if status in (401, 403, 404):
            raise GatewayError("not-configured")
        if not 200 <= status < 300:
            raise GatewayError("declined" if status == 402 else "gateway-unavailable")
        try:
            token = msgspec.json.decode(answer, type=_Answer).token
        except msgspec.DecodeError:
            raise GatewayError("answer-refused") from None
        screen(answer, token, fields)
        if not 1 <= len(token) <= 256 or not token.isprintable():
            raise GatewayError("answer-refused")
        return token

    def _post(self, body: bytearray, key: str) -> tuple[int, http.client.HTTPMessage, bytearray]:
        config = self._config
        url = urlsplit(config.url)
        context = ssl.create_default_context(cafile=config.ca_file or None)
        if config.client_certificate:
            context.load_cert_chain(config.client_certificate, config.client_key)
        connection = http.client.HTTPSConnection(
            url.hostname or "", url.port or 443, timeout=config.timeout_seconds, context=context
        )
        try:
            connection.putrequest("POST", (url.path or "/") + (f"?{url.query}" if url.query else ""))
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Idempotency-Key", key)
            if config.bearer_file:
                connection.putheader("Authorization", "Bearer " + Path(config.bearer_file).read_text("ascii").strip())
            connection.endheaders()
            connection.send(body)
            response = connection.getresponse()
            answer = bytearray(LARGEST_ANSWER + 1)
            size = 0
            deadline = time.monotonic() + config.timeout_seconds
            while size < len(answer) and (got := response.readinto(memoryview(answer)[size:])):
                size += got
                if time.monotonic() > deadline:
                    raise TimeoutError
            if size > LARGEST_ANSWER:
                raise GatewayError("answer-refused")
            del answer[size:]
            return response.status, response.headers, answer
        finally:
            connection.close()


def render(fields: list[Field]) -> bytearray:
    """The JSON body, built in place in a buffer of its final size. The caller wipes it."""
    size = 2 + sum(len(f.kind) + 5 + len(f.digits) for f in fields) + len(fields) - 1
    body, at = bytearray(size), 0
    for f in fields:
        head = (b"{" if at == 0 else b",") + b'"' + f.kind.encode() + b'":"'
        body[at : at + len(head)] = head
        at += len(head)
        with f.digits.view() as digits:
            body[at : at + len(digits)] = digits
            at += len(digits)
        body[at : at + 1] = b'"'
        at += 1
    body[at:] = b"}"
    return body
