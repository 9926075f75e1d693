"""The fields a caller may key, and when each is complete or wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mediaproxy.config import CaptureConfig, Config, FieldConfig
from mediaproxy.vault import card
from mediaproxy.vault.secret import Secret

WAITING, FILLING, COMPLETE, INVALID = "waiting", "filling", "complete", "invalid"

REASONS: Final = ("length", "check-digit", "expired", "month", "interrupted")
"""Why a field has to be keyed again: all an agent ever learns."""
_YEARS: Final = 20
"""No card is issued for longer: an expiry date beyond is a slip."""
_EXPIRY: Final = {"MMYY": ((0, 2), (2, 4)), "YYMM": ((2, 4), (0, 2)), "MMYYYY": ((0, 2), (2, 6))}
"""Where month and year are."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field of this name must be. wrong: reason, or nothing, of digits and the brand of the card in the same
    capture; lengths: shortest and longest of such a field; mute: whether speech may be muted while it is keyed."""

    name: str
    lengths: Callable[[memoryview, card.Brand | None], tuple[int, int]]
    wrong: Callable[[memoryview, card.Brand | None], str]
    mute: bool = False
    seconds: float = 0.0


def kinds(config: Config) -> dict[str, Kind]:
    """Every kind of field there is in a configuration, by name."""
    capture = config.capture
    digits = len(capture.expiry)
    found = {
        "pan": Kind("pan", lambda view, _: card.lengths(view, capture.long_cards), _pan(capture), mute=True),
        "expiry": Kind("expiry", lambda _, __: (digits, digits), _expiry(capture.expiry)),
        "cvv": Kind("cvv", lambda _, brand: (brand.cvv, brand.cvv) if brand else (3, 4), lambda _, __: "", mute=True),
    }
    return found | {f.name: _other(f) for f in config.fields}


def _pan(capture: CaptureConfig) -> Callable[[memoryview, card.Brand | None], str]:
    def wrong(view: memoryview, _: card.Brand | None) -> str:
        if not card.fits(view, capture.long_cards):
            return "length"
        return "" if card.luhn(view) else "check-digit"

    return wrong


def _expiry(form: str) -> Callable[[memoryview, card.Brand | None], str]:
    def wrong(view: memoryview, _: card.Brand | None) -> str:
        month, year = (_number(part) for part in expiry_parts(view, form))
        now = time.gmtime()
        year += 2000 if form != "MMYYYY" else 0
        if not 1 <= month <= 12:
            return "month"
        return "expired" if not (now.tm_year, now.tm_mon) <= (year, month) <= (now.tm_year + _YEARS, 12) else ""

    return wrong


def expiry_parts(view: memoryview, form: str) -> tuple[memoryview, memoryview]:
    """Month (2 digits) and year (2 or 4) of an expiry date keyed in `form`."""
    month, year = _EXPIRY[form]
    return view[slice(*month)], view[slice(*year)]


def _number(view: memoryview) -> int:
    value = 0
    for digit in view:
        value = 10 * value + digit - 48
    return value


def _other(config: FieldConfig) -> Kind:
    def wrong(view: memoryview, _: card.Brand | None) -> str:
        good = {"none": True, "luhn": card.luhn(view), "mod97": _number(view) % 97 == 1}[config.check]
        return "" if good else "check-digit"

    return Kind(config.name, lambda _, __: (config.least, config.most), wrong, config.mute, config.seconds)


@dataclass(slots=True)
class Field:
    """One field of a capture."""

    kind: Kind
    digits: Secret = field(default_factory=Secret, repr=False)
    state: str = WAITING
    reason: str = ""
    received: int = 0
    """Keys shown to the agent; stays after the digits are wiped."""
    tries: int = 0
    """How often it has been keyed wrong."""

    @property
    def name(self) -> str:
        return self.kind.name

    def clear(self) -> None:
        """Start again: `*`, or the agent's reset."""
        self.wipe()
        self.state, self.reason, self.received = WAITING, "", 0

    def wipe(self) -> None:
        """Blank the digits; state and count stay."""
        self.digits.wipe()

    def add(self, digit: int, brand: card.Brand | None) -> None:
        """One more digit; ends the field where its length says so. brand: of the card in the same capture."""
        if self.state == INVALID:
            reason = self.reason
            self.clear()
            self.reason = reason  # shown until the field is complete: the agent may have missed the moment
        self.state = FILLING
        self.digits.append(digit)
        self.received = len(self.digits)
        with self.digits.view() as view:
            full = len(view) >= self.kind.lengths(view, brand)[1]
        if full:
            self.end(brand)

    def may_be_whole(self, brand: card.Brand | None) -> bool:
        """Whether a pause here ends the field: it is right as it stands."""
        if self.state != FILLING or self._wrong(brand):
            return False
        with self.digits.view() as view:
            return self.name != "pan" or card.may_end(view)

    def end(self, brand: card.Brand | None) -> None:
        """The caller is done with this field (`#`, a pause, or its length): complete, or invalid and wiped."""
        self.reject(reason) if (reason := self._wrong(brand)) else self._accept()

    def _accept(self) -> None:
        self.state, self.reason = COMPLETE, ""

    def reject(self, reason: str) -> None:
        """It has to be keyed again."""
        self.state, self.reason = INVALID, reason
        self.tries += 1
        self.wipe()

    def judge_again(self, brand: card.Brand | None) -> None:
        """The card has become another one: is this field still right?"""
        if self.state == COMPLETE and (reason := self._wrong(brand)):
            self.reject(reason)

    def _wrong(self, brand: card.Brand | None) -> str:
        with self.digits.view() as view:
            least, most = self.kind.lengths(view, brand)
            if not least <= len(view) <= most:
                return "length"
            return self.kind.wrong(view, brand)
