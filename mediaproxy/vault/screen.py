"""A gateway's answer is refused where it holds what was keyed, or a card number that is not the declared token."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mediaproxy.errors import GatewayError
from mediaproxy.vault import card
from mediaproxy.vault.fields import Field

_NUMBER = re.compile(rb"(?<![0-9A-Za-z])[0-9](?:[ -]?[0-9]){11,18}(?![0-9A-Za-z])")
_SHORT = 8
"""A field of so many digits or more is looked for anywhere; of shorter ones the security code, as a value of its own:
as part of a longer word three digits mean nothing."""


def keyed(answer: bytearray, fields: Iterable[Field]) -> None:
    """Raise GatewayError where `answer` holds what was keyed. Written with separators, backwards or escaped it is the
    same number."""
    if b"\\u00" in answer:
        raise GatewayError("answer-refused", "repeats-digits")
    fields = list(fields)
    bare = _digits(answer)
    backwards = bytearray(bare)
    backwards.reverse()
    try:
        for f in fields:
            with f.digits.view() as digits:
                if len(digits) >= _SHORT and (bare.find(digits) >= 0 or backwards.find(digits) >= 0):
                    raise GatewayError("answer-refused", "repeats-digits")
                if f.name == "cvv" and not _told_anyway(digits, fields) and _stands_alone(answer, digits):
                    raise GatewayError("answer-refused", "repeats-digits")
    finally:
        for buffer in (bare, backwards):
            buffer[:] = bytes(len(buffer))


def undeclared(answer: bytearray, token: str, fields: Iterable[Field]) -> None:
    """Raise GatewayError where `answer` holds a card number beside `token`, or the token is the security code."""
    bare = _digits(token.encode())
    try:
        for f in fields:
            with f.digits.view() as digits:
                if f.name == "cvv" and bare == digits:
                    raise GatewayError("answer-refused", "repeats-digits")
    finally:
        bare[:] = bytes(len(bare))
    for match in _NUMBER.finditer(answer):
        number = match.group().replace(b" ", b"").replace(b"-", b"")
        if match.group().decode() != token and card.luhn(number):
            raise GatewayError("answer-refused", "repeats-digits")


def _digits(text: bytes | bytearray) -> bytearray:
    """The digits of `text` and nothing else, in a buffer to wipe."""
    found, size = bytearray(len(text)), 0
    for c in text:
        if 48 <= c <= 57:
            found[size] = c
            size += 1
    del found[size:]
    return found


def _told_anyway(code: memoryview, fields: list[Field]) -> bool:
    """Whether a security code is what gateways repeat of a card by right: its last four digits, the year it expires."""
    for f in fields:
        with f.digits.view() as digits:
            if f.name == "pan" and len(code) == 4 and digits[-4:] == code:
                return True
            if f.name == "expiry" and bytes(code[:2]) == b"20" and code[2:] in (digits[:2], digits[-2:]):
                return True
    return False


def _stands_alone(answer: bytearray, digits: memoryview) -> bool:
    """Whether `digits` is a whole JSON value."""
    at = answer.find(digits)
    while at >= 0 and len(digits):
        before, after = bytes(answer[at - 1 : at]), bytes(answer[at + len(digits) : at + len(digits) + 1])
        if before in (b'"', b":", b" ", b"[", b",") and after in (b'"', b",", b"}", b"]", b" ", b"\n", b""):
            return True
        at = answer.find(digits, at + 1)
    return False
