"""Card numbers: brands by their leading digits, lengths, and the check digit (ISO/IEC 7812-1 Annex B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Brand:
    """ranges: lowest and highest prefix, same number of digits; lengths: of the whole number, the usual one first."""

    name: str
    ranges: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]
    cvv: int = 3


BRANDS: Final = (
    Brand("amex", ((34, 34), (37, 37)), (15,), 4),
    Brand("diners", ((300, 305), (3095, 3095), (36, 36), (38, 39)), (14,)),
    Brand("discover", ((6011, 6011), (644, 649), (65, 65)), (16,)),
    Brand("jcb", ((3528, 3589),), (16,)),
    Brand("mastercard", ((51, 55), (2221, 2720)), (16,)),
    Brand("unionpay", ((62, 62), (81, 81)), (16, 17, 18, 19)),
    Brand("visa", ((4, 4),), (16,)),
    Brand(
        "maestro", ((5018, 5018), (5020, 5020), (5038, 5038), (6304, 6304), (6759, 6763)),
        (16, 12, 13, 14, 15, 17, 18, 19),
    ),
)  # fmt: skip
"""From the brands' published IIN ranges; the first that fits. Visa, Discover and JCB also have a few numbers of 13 or
19 digits: taken for 16, or a mistyped number would swallow the expiry date. A brand of several lengths, or none listed,
ends with `#` or a pause."""
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
