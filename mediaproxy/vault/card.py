"""Card numbers: brands by their leading digits, lengths, and the check digit (ISO/IEC 7812-1 Annex B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Brand:
    """ranges: lowest and highest prefix, same number of digits; lengths: all there are of the whole number; usual: the
    one that nearly all of them have, 0 where there is none; cvv: length of the security code."""

    name: str
    ranges: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]
    usual: int = 16
    cvv: int = 3


BRANDS: Final = (
    Brand("amex", ((34, 34), (37, 37)), (15,), 15, 4),
    Brand("diners", ((300, 305), (3095, 3095), (36, 36), (38, 39)), (14, 16, 19), 14),
    Brand("discover", ((6011, 6011), (644, 649), (65, 65)), (16, 19)),
    Brand("jcb", ((2131, 2131), (1800, 1800), (3528, 3589)), (16, 17, 18, 19)),
    Brand("mir", ((2200, 2204),), (16, 17, 18, 19)),
    Brand("mastercard", ((51, 55), (2221, 2720)), (16,)),
    Brand("unionpay", ((62, 62), (81, 81)), (14, 15, 16, 17, 18, 19), 0),
    Brand("visa", ((4, 4),), (16, 18, 19)),
    Brand(
        "maestro", ((493698, 493698), (50, 50), (56, 59), (6, 6)),
        (12, 13, 14, 15, 16, 17, 18, 19), 0,
    ),
)  # fmt: skip
"""The first that fits. Source: the table of `credit-card-type` 10.3 (Braintree, MIT), which gateways' own forms use,
without the brands of one country; a number of no brand here is taken with 12 to 19 digits and a right check digit. One
that could be longer than usual would swallow the expiry date when its check digit is mistyped, so other lengths than
the usual one are taken only where the configuration says so (`capture.long_cards`)."""
LENGTHS: Final = (12, 19)
"""ISO/IEC 7812-1: at most 19 digits; the shortest in use has 12."""


def brand(digits: memoryview) -> Brand | None:
    """The brand of a (possibly unfinished) number, or None. digits: ASCII."""
    for candidate in BRANDS:
        for low, high in candidate.ranges:
            size = len(str(low))
            if len(digits) >= size and low <= _leading(digits, size) <= high:
                return candidate
    return None


def lengths(digits: memoryview, long: bool) -> tuple[int, int]:
    """Shortest and longest that a (possibly unfinished) number may be. long: also other lengths than the usual one."""
    own = brand(digits)
    if own is None:
        return LENGTHS
    return (own.usual, own.usual) if own.usual and not long else (min(own.lengths), max(own.lengths))


def is_card(digits: memoryview) -> bool:
    """Whether these may be a card's: of a known brand, as long as those are, with a right check digit."""
    own = brand(digits)
    return own is not None and len(digits) in own.lengths and luhn(digits)


def may_end(digits: memoryview) -> bool:
    """Whether a rest may end a number of this length: callers rest between groups of four as well, so one without a
    usual length ends so with 16 or 19 digits; any other with `#`."""
    own = brand(digits)
    return len(digits) in ((own.usual,) if own is not None and own.usual else ()) + (16, 19)


def fits(digits: memoryview, long: bool) -> bool:
    """Whether a number of its brand may have as many digits."""
    own = brand(digits)
    if own is None:
        return LENGTHS[0] <= len(digits) <= LENGTHS[1]
    return len(digits) == own.usual or (len(digits) in own.lengths and (long or not own.usual))


def _leading(digits: memoryview, size: int) -> int:
    value = 0
    for digit in digits[:size]:
        value = 10 * value + digit - 48
    return value


def luhn(digits: memoryview | bytes) -> bool:
    """Whether the last digit is the check digit of the others. digits: ASCII."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = digit - 48
        if position % 2:
            value = 2 * value - 9 if value > 4 else 2 * value
        total += value
    return len(digits) > 0 and total % 10 == 0
