"""The gateway port: fields in, a token out, and nothing kept.

`tokenize` runs in a thread of its own. What an adapter sends it builds in a buffer of fixed size that is wiped; the
answer is refused where it holds what was keyed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Final, Protocol

from mediaproxy.errors import GatewayError
from mediaproxy.vault import card
from mediaproxy.vault.fields import Field

REASONS: Final = (
    "declined",
    "invalid-field",
    "gateway-unavailable",
    "not-configured",
    "answer-refused",
    "test-gateway",
)
"""All an agent ever learns of why a token did not come."""


class Gateway(Protocol):
    """A tokenization service."""

    def tokenize(self, fields: list[Field], idempotency_key: str) -> str:
        """Return the token. Raises GatewayError. Wipes every copy it makes of a field."""


class Breaker:
    """After `limit` failures in a row nothing is sent for `rest` seconds."""

    def __init__(self, limit: int = 5, rest: float = 10.0) -> None:
        self._limit, self._rest = limit, rest
        self._failures = 0
        self._closed_until = 0.0

    def check(self) -> None:
        """Raise GatewayError while the gateway rests."""
        if time.monotonic() < self._closed_until:
            raise GatewayError("gateway-unavailable")

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= self._limit:
            self._failures = 0
            self._closed_until = time.monotonic() + self._rest


_NUMBER = re.compile(rb"(?<![0-9A-Za-z])[0-9](?:[ -]?[0-9]){12,18}(?![0-9A-Za-z])")


def screen(answer: bytes | bytearray, token: str, fields: Iterable[Field]) -> None:
    """Raise GatewayError where an answer or its token holds what was keyed, or the answer a card number that is not
    the declared token. Written with separators, reversed or escaped it is the same number."""
    if b"\\u00" in answer:
        raise GatewayError("answer-refused")
    bare, bare_token = _digits(answer), _digits(token.encode())
    backwards = bytearray(bare)
    backwards.reverse()
    try:
        for keyed in fields:
            with keyed.digits.view() as digits:
                if keyed.kind == "pan" and (bare.find(digits) >= 0 or backwards.find(digits) >= 0):
                    raise GatewayError("answer-refused")
                if keyed.kind == "cvv" and (_stands_alone(answer, digits) or bare_token == digits):
                    raise GatewayError("answer-refused")
    finally:
        for buffer in (bare, bare_token, backwards):
            buffer[:] = bytes(len(buffer))
    for match in _NUMBER.finditer(answer):
        number = match.group().replace(b" ", b"").replace(b"-", b"")
        if match.group().decode() != token and card.luhn(number):
            raise GatewayError("answer-refused")


def _digits(text: bytes | bytearray) -> bytearray:
    """The digits of `text` and nothing else, in a buffer to wipe."""
    found, size = bytearray(len(text)), 0
    for c in text:
        if 48 <= c <= 57:
            found[size] = c
            size += 1
    del found[size:]
    return found


def _stands_alone(answer: bytes | bytearray, digits: memoryview) -> bool:
    """Whether `digits` is a whole JSON value: as part of a longer word three digits mean nothing."""
    at = answer.find(digits)
    while at >= 0:
        before, after = answer[at - 1 : at], answer[at + len(digits) : at + len(digits) + 1]
        if before in (b'"', b":", b" ", b"[", b",") and after in (b'"', b",", b"}", b"]", b" ", b"\n", b""):
            return True
        at = answer.find(digits, at + 1)
    return False
