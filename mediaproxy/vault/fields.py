"""The fields a caller may key, and when each is complete or wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from mediaproxy.vault import card
from mediaproxy.vault.secret import Secret

WAITING, FILLING, COMPLETE, INVALID = "waiting", "filling", "complete", "invalid"

REASONS: Final = ("length", "check-digit", "expired", "month", "timeout", "interrupted")
"""Why a field is invalid: all an agent ever learns."""


@dataclass(slots=True)
class Field:
    """One field. kind: pan, expiry (MMYY) or cvv."""

    kind: str
    digits: Secret = field(default_factory=Secret, repr=False)
    state: str = WAITING
    reason: str = ""
    received: int = 0
    """Keys shown to the agent; stays after the digits are wiped."""

    def clear(self) -> None:
        """Start again: `*`, or the agent's reset."""
        self.wipe()
        self.state, self.reason, self.received = WAITING, "", 0

    def wipe(self) -> None:
        """Blank the digits; state and count stay."""
        self.digits.wipe()

    def add(self, digit: int, brand: card.Brand | None) -> None:
        """One more digit; ends the field where its length says so. brand: of the card keyed before, for the CVV."""
        if self.state == INVALID:
            reason = self.reason
            self.clear()
            self.reason = reason  # shown until the field is complete: the agent may have missed the moment
        self.state = FILLING
        self.digits.append(digit)
        self.received = len(self.digits)
        if self._full(brand):
            self.end(brand)

    def _full(self, brand: card.Brand | None) -> bool:
        n = len(self.digits)
        if self.kind == "expiry":
            return n == 4
        if self.kind == "cvv":
            return n == (brand.cvv if brand is not None else 4)
        with self.digits.view() as view:
            own = card.brand(view)
            if own is None:
                return n == card.LENGTHS[1]
            return n == max(own.lengths)

    def may_be_whole(self) -> bool:
        """Whether a pause here ends the field: a number that is complete in one of its brand's lengths."""
        if self.kind != "pan" or self.state != FILLING:
            return False
        with self.digits.view() as view:
            own = card.brand(view)
            least = own.lengths if own is not None else range(card.LENGTHS[0], card.LENGTHS[1] + 1)
            return len(view) in least and card.luhn(view)

    def end(self, brand: card.Brand | None) -> None:
        """The caller is done with this field (`#`, or its length): complete, or invalid and wiped."""
        self.reason = self._wrong(brand)
        self.state = INVALID if self.reason else COMPLETE
        if self.reason:
            self.wipe()

    def _wrong(self, brand: card.Brand | None) -> str:
        with self.digits.view() as view:
            n = len(view)
            if self.kind == "pan":
                own = card.brand(view)
                lengths = own.lengths if own is not None else range(card.LENGTHS[0], card.LENGTHS[1] + 1)
                if n not in lengths:
                    return "length"
                return "" if card.luhn(view) else "check-digit"
            if self.kind == "cvv":
                return "" if n == (brand.cvv if brand is not None else n) and n in (3, 4) else "length"
            if n != 4:
                return "length"
            month, year = 10 * (view[0] - 48) + view[1] - 48, 10 * (view[2] - 48) + view[3] - 48
            if not 1 <= month <= 12:
                return "month"
            now = time.gmtime()
            return "expired" if (year, month) < (now.tm_year % 100, now.tm_mon) else ""
