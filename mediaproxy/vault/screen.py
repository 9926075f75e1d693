"""A gateway's answer is refused where it holds what was keyed, or a card number that is not the declared token.

What is looked through are the values of the answer, without the names of its fields: as they stand and undone from
escapes (JSON's and a URL's), full-width digits, hexadecimal and base64. All of it in buffers that are wiped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from mediaproxy.errors import GatewayError
from mediaproxy.vault import card
from mediaproxy.vault.fields import Field

_WINDOW: Final = 12
"""So many digits of a card number in a row are a card number: what an alias keeps of it is six and four at most."""
_SHORT: Final = 8
"""A field of so many digits or more is looked for anywhere, a shorter one as a value of its own: as part of a longer
word three digits mean nothing."""
_ESCAPE: Final = re.compile(rb"\\u00([0-9A-Fa-f]{2})|%([0-7][0-9A-Fa-f])|\xef\xbc([\x90-\x99])|\\u[fF]{2}1([0-9])")
_STRING: Final = re.compile(rb'"((?:[^"\\]++|\\.)*+)(?:"|\Z)(\s*:)?|([^"]+)', re.DOTALL)
_NUMBER: Final = re.compile(
    rb"(?<![0-9A-Za-z.-])(?:[0-9]{12,19}|[0-9]{4}(?:[ .-][0-9]{4}){2}[ .-][0-9]{1,7}"
    rb"|[0-9]{4}[ .-][0-9]{6}[ .-][0-9]{4,5})(?![0-9A-Za-z])"
)
"""A number in one piece, or in the groups in which cards have it."""
_CODED: Final = (re.compile(rb"[0-9A-Za-z+/_-]{16,}={0,2}"), re.compile(rb"[0-9A-Za-z+/-]{16,}={0,2}"))
"""Words that may be hexadecimal or base64, of either alphabet, the second behind a prefix like `tok_`."""
_BASE64: Final = {c: i for i, c in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")} | {
    ord("-"): 62,
    ord("_"): 63,
}
_HEX: Final = {c: int(chr(c), 16) for c in b"0123456789abcdefABCDEF"}
_LONGEST: Final = 256
"""A value so long or shorter may be what was keyed in another writing; longer ones are looked through as they are."""


def keyed(answer: bytearray, fields: Iterable[Field]) -> None:
    """Raise GatewayError where `answer` holds what was keyed."""
    fields = list(fields)
    plain = _unescape(answer)
    try:
        for value, is_word in _values(plain):
            _anywhere(bytearray(code for code in value if 48 <= code <= 57), fields)
            _whole(value, is_word, fields)
            coded = _CODED if len(value) <= _LONGEST else ()
            for start, end in [word.span() for pattern in coded for word in pattern.finditer(value)]:
                with memoryview(value) as whole, whole[start:end] as word:
                    _anywhere(_from_hex(word), fields)
                    for offset in range(4):
                        _anywhere(_from_base64(word[offset:]), fields)
    finally:
        plain[:] = bytes(len(plain))


def undeclared(answer: bytearray, token: str, fields: Iterable[Field]) -> None:
    """Raise GatewayError where `answer` holds a card number beside `token`, or the token is the security code."""
    bare = bytearray(c for c in token.encode() if 48 <= c <= 57)
    for f in fields:
        with f.digits.view() as digits:
            if len(digits) < _SHORT and f.name != "expiry" and bare == digits:
                raise GatewayError("answer-refused", "repeats-digits")
    for value, _ in _values(answer):
        for start, end in [match.span() for match in _NUMBER.finditer(value)]:
            with memoryview(value) as whole, whole[start:end] as written:
                number = bytearray(c for c in written if 48 <= c <= 57)
                known = card.is_card(memoryview(number))
                number[:] = bytes(len(number))
                if known and bytes(written) not in token.encode():  # what is in the token is declared
                    raise GatewayError("answer-refused", "other-number")


def _anywhere(digits: bytearray, fields: list[Field]) -> None:
    """Raise where `digits`, forwards or backwards, hold a long field; wipes them."""
    backwards = bytearray(digits)
    backwards.reverse()
    try:
        for f in fields:
            with f.digits.view() as held:
                size = min(len(held), _WINDOW)
                if size < _SHORT:
                    continue
                for i in range(len(held) - size + 1):
                    if digits.find(held[i : i + size]) >= 0 or backwards.find(held[i : i + size]) >= 0:
                        raise GatewayError("answer-refused", "repeats-digits")
    finally:
        for buffer in (digits, backwards):
            buffer[:] = bytes(len(buffer))


def _whole(value: bytearray, is_word: bool, fields: list[Field]) -> None:
    """Raise where a value is a short field, or names it: `"947"`, `947`, `cvc=947`."""
    for f in fields:
        with f.digits.view() as held:
            if not 0 < len(held) < _SHORT or f.name == "expiry" or _told_anyway(held, fields):
                continue
            at = value.find(held)
            while at >= 0:
                before = bytes(value[at - 1 : at]) if at else b""
                after = bytes(value[at + len(held) : at + len(held) + 1])
                alone = before in (b"", b"=", b":", b'"') and not after.isalnum()
                if alone if is_word else not (before.isalnum() or after.isalnum() or before in (b"-", b".")):
                    raise GatewayError("answer-refused", "repeats-digits")
                at = value.find(held, at + 1)


def _told_anyway(code: memoryview, fields: list[Field]) -> bool:
    """Whether a short field is what gateways repeat of a card by right: its last four digits, the year it expires."""
    for f in fields:
        with f.digits.view() as digits:
            if f.name == "pan" and len(code) == 4 and digits[-4:] == code:
                return True
            if f.name == "expiry" and bytes(code[:2]) == b"20" and code[2:] in (digits[:2], digits[-2:]):
                return True
    return False


def _values(answer: bytearray) -> Iterator[tuple[bytearray, bool]]:
    """(text, whether it was a string) of everything in `answer` but the names of fields; what is no JSON is one value.
    Each is blanked when the next is asked for."""
    for match in _STRING.finditer(answer):
        if match.start(2) >= 0:
            continue
        is_word = match.start(1) >= 0
        start, end = match.span(1 if is_word else 3)
        with memoryview(answer) as whole, whole[start:end] as part:
            value = bytearray(part)  # what re gives itself are octets that nobody could blank
        try:
            yield value, is_word
        finally:
            value[:] = bytes(len(value))


def _unescape(answer: bytearray) -> bytearray:
    """`answer` with escapes and full-width digits as what they stand for, in a buffer to wipe."""
    plain, size, at = bytearray(len(answer)), 0, 0
    for match in _ESCAPE.finditer(answer):
        if match[3]:
            code = answer[match.start(3)] - 0x90 + 48
        else:
            code = match[4][0] if match[4] else int(match[1] or match[2], 16)
        start = match.start()
        with memoryview(answer) as whole, whole[at:start] as part:
            plain[size : size + start - at] = part
        size += start - at
        plain[size] = code if code not in b'"\\' else 32  # a quote that was escaped is none
        size, at = size + 1, match.end()
    with memoryview(answer) as whole, whole[at:] as part:
        plain[size : size + len(answer) - at] = part
    del plain[size + len(answer) - at :]
    return plain


def _from_hex(word: memoryview) -> bytearray:
    """The digits of hexadecimal text; nothing where it is none."""
    if len(word) % 2 or any(c not in _HEX for c in word):
        return bytearray()
    codes = (_HEX[word[i]] << 4 | _HEX[word[i + 1]] for i in range(0, len(word), 2))
    return bytearray(c for c in codes if 48 <= c <= 57)


def _from_base64(word: memoryview) -> bytearray:
    """The digits of base64 text, of either alphabet."""
    bits, count, found = 0, 0, bytearray()
    for code in word:
        if code not in _BASE64:
            break
        bits, count = (bits << 6 | _BASE64[code]) & 0xFFFFF, count + 6
        if count >= 8:
            count -= 8
            octet = bits >> count & 0xFF
            if 48 <= octet <= 57:
                found.append(octet)
    return found
