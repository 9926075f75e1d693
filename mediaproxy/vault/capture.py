"""A capture: keys in, fields filled, a state for the agent that cannot hold a digit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mediaproxy.config import CaptureConfig, RouteConfig
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.key import INBAND, Key
from mediaproxy.vault import card
from mediaproxy.vault.fields import COMPLETE, FILLING, INVALID, WAITING, Field, Kind
from mediaproxy.vault.secret import SecretFull

KEYING, READY, SUBMITTING, TOKEN, FAILED, CANCELLED = (
    "keying", "complete", "submitting", "token", "failed", "cancelled",
)  # fmt: skip
ENDED: Final = frozenset({TOKEN, FAILED, CANCELLED})

STATES: Final[dict[tuple[str, str], str]] = {
    (KEYING, "filled"): READY,
    (KEYING, "cancel"): CANCELLED,
    (KEYING, "fail"): FAILED,
    (READY, "again"): KEYING,
    (READY, "submit"): SUBMITTING,
    (READY, "cancel"): CANCELLED,
    (READY, "fail"): FAILED,
    (SUBMITTING, "answer"): TOKEN,
    (SUBMITTING, "refuse"): FAILED,
}
"""What each event makes of each state; nothing else happens. What is on its way to the gateway is waited for: neither
the agent nor the end of the call takes it back, or nobody would know what became of it. An end wipes."""

STAR, POUND = 10, 11
"""Telephone-event codes (RFC 4733 table 3)."""
SILENT_MS: Final = 5000
"""A source that has been silent so long no longer keeps a worse one from being heard."""
TWIN_MS: Final = 400
"""The same key from a better source within this time is the same press."""
ALONE_MS: Final = 500
"""In-band keys so long after the last telephone-event are no echo of it: where two come, the events have ceased (a
change of codec), and what came in between is lost. An INFO may come as late as it likes."""
REST_MS: Final = 1500
"""A caller who has rested for so long will hear that the field is to be keyed again."""


@dataclass(slots=True)
class Capture:
    """number: its name everywhere; route: tells policy; gateway: by name."""

    number: int
    route: RouteConfig
    gateway: str
    fields: list[Field]
    rules: CaptureConfig
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
    urgent: bool = False
    """Whether it is told at once. What follows from a key is told on a coarse grid, or its rhythm would be told."""
    sent: bool = False
    """Whether the gateway has been asked."""
    automatic: bool = False
    """Whether the last key submitted it: the moment of the gateway's answer would tell when that was."""
    began: float = 0.0
    owner: tuple[str, str, str] = ("", "", "")
    """Call, extension and correlation, kept for an agent process that has been restarted."""
    turn: int = 0
    """Counts the moments at which the caller is asked for something."""
    _last_ms: int = 0
    _last_event: int = field(default=-1, repr=False)
    _starred: bool = False
    _alone: int = 0
    """In-band keys since the last telephone-event that were none of its echoes, and when the last of them came."""
    _alone_ms: int = 0

    @classmethod
    def begin(
        cls, number: int, route: RouteConfig, gateway: str, kinds: list[Kind], rules: CaptureConfig, now: float
    ) -> Capture:
        """A capture that waits for its first key."""
        made = cls(number, route, gateway, [Field(kind) for kind in kinds], rules, now + rules.total_seconds, 0.0)
        made.began = now
        made._ask(now)
        return made

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    # Keys

    def key(self, key: Key, now: float) -> None:
        """Take a key, once, whatever sources it came by."""
        counts = self._is_another_press(key)
        event, key.event = key.event, 0
        current = self._current()
        if self.state != KEYING or not counts or current is None:
            return
        self.field_deadline = now + self._seconds(current)
        self.pause_deadline = now + self.rules.pause_seconds
        self.dirty = True
        starred, self._starred = self._starred, event == STAR
        if event < 10:
            try:
                current.add(event, self._card_brand())
            except SecretFull:
                current.end(self._card_brand())
        elif event == STAR:
            self._clear_all() if starred else self._clear(current)
            self._ask(now)
        elif event == POUND and current.state == FILLING:
            current.end(self._card_brand())
        self._settle(current, now)
        self.urgent = False

    def _is_another_press(self, key: Key) -> bool:
        """One source is listened to: the best that has spoken. Where a better one takes over, it may repeat a key;
        where the best falls silent while a worse one goes on (a change of codec), the worse one takes over."""
        apart = _between(key.ms, self._last_ms)
        if self.source is None or key.source == self.source:
            self.source = key.source
            self._heard(key)
            return True
        if key.source > self.source and apart < SILENT_MS:
            if key.source == INBAND and apart > ALONE_MS:
                self._alone, self._alone_ms = self._alone + 1, key.ms
            return False
        twin = key.event == self._last_event and abs(apart) <= TWIN_MS
        self.source = key.source
        self._heard(key)
        return not twin

    def _heard(self, key: Key) -> None:
        """A key of the source that is listened to."""
        self._last_ms, self._last_event, self._alone = key.ms, key.event, 0

    def _clear(self, current: Field) -> None:
        """`*` clears the field being keyed; in an empty one the field before."""
        before = self.fields.index(current) - 1
        if current.state == WAITING and before >= 0:
            self._forget(self.fields[before])
        self._forget(current)
        self._forget_begun()

    def _clear_all(self) -> None:
        """`**` begins the capture anew."""
        for f in self.fields:
            self._forget(f)

    def _forget_begun(self) -> None:
        """What has been begun is begun anew when another field comes first again: nobody knows where they were."""
        for f in self.fields:
            if f.state == FILLING:
                self._forget(f)

    def _forget(self, f: Field) -> None:
        f.clear()
        if f.name == "pan":
            self.brand = self.last4 = ""

    def _settle(self, current: Field, now: float) -> None:
        """What a field that has changed means for the others, and for the capture."""
        if current.name == "pan":
            self.brand = self.last4 = ""
            if current.state == COMPLETE:
                self._describe(current)
                for f in self.fields:
                    f.judge_again(self._card_brand())
        if current.state in (COMPLETE, INVALID):
            self._ask(now)
        if max(f.tries for f in self.fields) >= self.rules.tries:
            self.fail("tries")
        elif all(f.state == COMPLETE for f in self.fields):
            self._go("filled")

    def _describe(self, pan: Field) -> None:
        """Brand and last four of a complete, valid number, where policy shows them (PCI DSS 3.4.1)."""
        brand = self._card_brand()
        self.brand = brand.name if brand is not None else ""
        if self.route.show_last4:
            with pan.digits.view() as view:
                self.last4 = bytes(view[-4:]).decode("ascii")

    def _current(self) -> Field | None:
        return next((f for f in self.fields if f.state != COMPLETE), None)

    def _seconds(self, current: Field) -> float:
        return current.kind.seconds or self.rules.field_seconds

    def _card_brand(self) -> card.Brand | None:
        pan = next((f for f in self.fields if f.name == "pan"), None)
        if pan is None:
            return None
        with pan.digits.view() as view:
            return card.brand(view)

    def _ask(self, now: float) -> None:
        """The caller is asked for the field that is next."""
        self.turn += 1
        current = self._current()
        if current is not None:
            self.field_deadline = now + self._seconds(current)

    # Everything else

    def act(self, action: str, name: str, now: float) -> None:
        """An agent's action; one that does not fit the state changes nothing."""
        if action == "cancel":
            self._go("cancel", "agent")
        elif action == "submit":
            self.submit()
        elif action == "reset" and self.state in (KEYING, READY):
            for f in self.fields:
                if f.name == name:
                    self._forget(f)
                    self._forget_begun()
                    self._go("again")
                    self._ask(now)
                    self.dirty = True  # on the grid like keys: it tells how far the others have come

    def submit(self) -> None:
        """To the gateway now, if everything is there."""
        self._go("submit")

    def armed(self, now: float) -> None:
        """The leg is armed (again): from now on the caller can key."""
        if self.state == KEYING:
            self.deadline = max(self.deadline, now + self.rules.field_seconds)
            self._ask(now)

    def interrupt(self, now: float) -> None:
        """Keys may have been lost on the way here: the field that waits for more is keyed again from its start."""
        current = self._current()
        if self.state == KEYING and current is not None:
            current.clear()
            self._forget_begun()
            current.reason = "interrupted"
            self._settle(current, now)
            self._ask(now)
            self.dirty = True

    def tick(self, now: float) -> None:
        """Time passes: a pause may end a field of open length, and a caller who keys nothing more the capture."""
        self._look_for_lost(now)
        current = self._current()
        if self.state == KEYING and current is not None and now >= self.pause_deadline:
            self._starred = False
            if current.may_be_whole(self._card_brand()):
                current.end(self._card_brand())
                self.dirty = True
                self._settle(current, now)
        if now >= self.deadline or (self.state == KEYING and now >= self.field_deadline):
            self.fail("timeout")

    def _look_for_lost(self, now: float) -> None:
        """In-band keys alone mean that the events have ceased: what is being keyed lacks some. Said once the caller
        rests, or the rest of the keys would be taken for the beginning of the field."""
        if self._alone >= 2 and _between(int(now * 1000), self._alone_ms) > REST_MS:
            self.source, self._alone = INBAND, 0
            self.interrupt(now)

    def fail(self, reason: str) -> None:
        """Something ends it, unless it is on its way to the gateway."""
        self._go("fail", reason)

    def answered(self, token: str) -> None:
        """The gateway has given a token."""
        if (self.state, "answer") in STATES:
            self.token = token
        self._go("answer")

    def refused(self, reason: str) -> None:
        """The gateway has given none."""
        self._go("refuse", reason)

    def _go(self, event: str, reason: str = "") -> None:
        """Follow the table. Every end wipes."""
        state = STATES.get((self.state, event))
        if state is None:
            return
        self.state, self.reason, self.dirty = state, reason, True
        self.urgent |= event not in ("filled", "again") and not (self.automatic and event in ("answer", "refuse"))
        if state not in ENDED:
            return
        self._last_event = -1
        for f in self.fields:
            f.wipe()
        if state != TOKEN:
            self.brand = self.last4 = ""

    def cue(self) -> tuple[tuple[str, ...], bool]:
        """(what the caller is told now, whether the caller's speech is kept from the agent now)."""
        if self.state in ENDED:
            return ({TOKEN: ("done",), FAILED: ("failed",)}.get(self.state, ()) if self.route.prompts else ()), False
        current = self._current()
        if self.state != KEYING or current is None:
            return (), False
        muted = current.kind.mute and (self.route.speech != "off" or self.route.mute_recording)
        if current.state == FILLING or not self.route.prompts:
            return (), muted
        told = ("invalid",) if current.state == INVALID else ()
        if muted and self.route.speech == "announced" and not told:
            told = ("muted",)
        return (*told, current.name), muted

    def snapshot(self) -> m.CaptureState:
        """What may be known."""
        fields = tuple(m.FieldState(f.name, f.state, f.received, f.reason) for f in self.fields)
        speech = self.route.speech if self.route.speech != "off" and self.cue()[1] else "off"
        return m.CaptureState(
            self.number,
            self.state,
            fields,
            self.reason,
            self.token,
            self.brand,
            self.last4,
            speech,
            self.route.name,
            *self.owner,
            self.began,
        )


def _between(one: int, other: int) -> int:
    """Milliseconds from `other` to `one`, on clocks that wrap; those of two processes: either may be first."""
    return (one - other + 0x80000000 & 0xFFFFFFFF) - 0x80000000
