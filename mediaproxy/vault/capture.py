"""A capture: keys in, fields filled, a state for the agent that cannot hold a digit.

keying --all fields complete--> complete --submit--> submitting --> token | failed
keying, complete --cancel--> cancelled;  --time--> failed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mediaproxy.ipc import messages as m
from mediaproxy.ipc.key import Key
from mediaproxy.vault import card
from mediaproxy.vault.fields import COMPLETE, FILLING, WAITING, Field
from mediaproxy.vault.secret import SecretFull

KEYING, READY, SUBMITTING, TOKEN, FAILED, CANCELLED = (
    "keying", "complete", "submitting", "token", "failed", "cancelled",
)  # fmt: skip
ENDED: Final = frozenset({TOKEN, FAILED, CANCELLED})

STAR, POUND = 10, 11
"""Telephone-event codes (RFC 4733 table 3)."""
PAUSE_SECONDS: Final = 3.0
"""A caller who rests so long after a number that may be whole has keyed all of it."""
SILENT_MS: Final = 5000
"""A source that has been silent so long no longer keeps a worse one from being heard."""
TWIN_MS: Final = 400
"""The same key from a better source within this time is the same press."""


@dataclass(slots=True)
class Capture:
    """number: its name everywhere; route: tells gateway and policy."""

    number: int
    route: str
    fields: list[Field]
    show_last4: bool
    field_seconds: float
    deadline: float
    field_deadline: float
    pause_deadline: float = 0.0
    state: str = KEYING
    reason: str = ""
    token: str = ""
    brand: str = ""
    last4: str = ""
    source: int | None = None
    dirty: bool = True
    sent: bool = False
    """Whether the gateway has been asked."""
    _last_ms: int = 0
    _last_event: int = field(default=-1, repr=False)

    @classmethod
    def begin(
        cls, number: int, route: str, kinds: tuple[str, ...], show_last4: bool, field_seconds: float,
        total_seconds: float, now: float,
    ) -> Capture:  # fmt: skip
        """A capture that waits for its first key."""
        fields = [Field(kind) for kind in kinds]
        return cls(number, route, fields, show_last4, field_seconds, now + total_seconds, now + field_seconds)

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def key(self, key: Key, now: float) -> None:
        """Take a key, once, whatever sources it came by."""
        counts = self._is_another_press(key)
        event, key.event = key.event, 0
        if self.state != KEYING or not counts:
            return
        current = self._current()
        if current is None:
            return
        self.field_deadline = now + self.field_seconds
        self.pause_deadline = now + PAUSE_SECONDS
        self.dirty = True
        if event < 10:
            try:
                current.add(event, self._card_brand())
            except SecretFull:
                current.end(self._card_brand())
        elif event == STAR:
            self._clear(current)
        elif event == POUND and current.state == FILLING:
            current.end(self._card_brand())
        self._settle(current)

    def _is_another_press(self, key: Key) -> bool:
        """One source is listened to: the best that has spoken. Where a better one takes over, it may repeat a key;
        where the best falls silent while a worse one goes on (a change of codec), the worse one takes over."""
        apart = (key.ms - self._last_ms + 0x80000000 & 0xFFFFFFFF) - 0x80000000  # clocks of two processes: either first
        if self.source is None or key.source == self.source:
            self.source = key.source
            self._last_ms, self._last_event = key.ms, key.event
            return True
        if key.source > self.source and apart < SILENT_MS:
            return False
        twin = key.event == self._last_event and abs(apart) <= TWIN_MS
        self.source = key.source
        self._last_ms, self._last_event = key.ms, key.event
        return not twin

    def _clear(self, current: Field) -> None:
        """`*` clears the field being keyed; an empty one hands back to the one before."""
        if current.state == WAITING:
            before = self.fields.index(current) - 1
            if before >= 0:
                self.fields[before].clear()
                if self.fields[before].kind == "pan":
                    self.brand = self.last4 = ""
        current.clear()

    def _settle(self, current: Field) -> None:
        if current.state == COMPLETE:
            if current.kind == "pan":
                self._describe(current)
            if all(f.state == COMPLETE for f in self.fields):
                self.state = READY
        elif current.kind == "pan":
            self.brand = self.last4 = ""

    def _describe(self, pan: Field) -> None:
        """Brand and last four of a complete, valid number, where policy shows them (PCI DSS 3.4.1)."""
        brand = self._card_brand()
        self.brand = brand.name if brand is not None else ""
        if self.show_last4:
            with pan.digits.view() as view:
                self.last4 = bytes(view[-4:]).decode("ascii")

    def _current(self) -> Field | None:
        return next((f for f in self.fields if f.state != COMPLETE), None)

    def _card_brand(self) -> card.Brand | None:
        pan = next((f for f in self.fields if f.kind == "pan"), None)
        if pan is None or not len(pan.digits):
            return None
        with pan.digits.view() as view:
            return card.brand(view)

    def act(self, action: str, kind: str, now: float) -> None:
        """An agent's action; one that does not fit the state changes nothing."""
        if self.ended or self.state == SUBMITTING:
            return
        if action == "cancel":
            self.end(CANCELLED, "agent")
        elif action == "reset" and self.state in (KEYING, READY):
            for f in self.fields:
                if f.kind == kind:
                    f.clear()
                    self.state = KEYING
                    self.field_deadline = now + self.field_seconds
                    if kind == "pan":
                        self.brand = self.last4 = ""
                    self.dirty = True
        elif action == "submit" and self.state == READY:
            self.submit()

    def interrupt(self, now: float) -> None:
        """Keys may have been lost on the way here: the field that waits for more is keyed again from its start."""
        current = self._current()
        if self.state == KEYING and current is not None:
            current.clear()
            current.reason = "interrupted"
            self.field_deadline = now + self.field_seconds
            self._settle(current)
            self.dirty = True

    def submit(self) -> None:
        """To the gateway now."""
        self.state, self.dirty = SUBMITTING, True

    def tick(self, now: float) -> None:
        """Time passes: a pause may end a number of open length, and a caller who keys nothing more the capture."""
        current = self._current()
        if self.state == KEYING and current is not None and now >= self.pause_deadline and current.may_be_whole():
            current.end(self._card_brand())
            self.dirty = True
            self._settle(current)
        if self.state in (KEYING, READY) and (
            now >= self.deadline or (self.state == KEYING and now >= self.field_deadline)
        ):
            self.end(FAILED, "timeout")

    def end(self, state: str, reason: str = "", token: str = "") -> None:
        """End: every digit is wiped, whatever happened."""
        self.state, self.reason, self.token, self.dirty = state, reason, token, True
        self._last_event = -1
        for f in self.fields:
            f.wipe()
        if state != TOKEN:
            self.brand = self.last4 = ""

    def snapshot(self) -> m.CaptureState:
        """What may be known."""
        fields = tuple(m.FieldState(f.kind, f.state, f.received, f.reason) for f in self.fields)
        return m.CaptureState(self.number, self.state, fields, self.reason, self.token, self.brand, self.last4)
