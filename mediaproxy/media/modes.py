"""The modes of a caller's leg, and what may change them: one table.

mode         forwarded to the agent         keys
passthrough  all, keys included             relayed, nobody listens
guarded      all but keys                   consumed
armed        all but keys                   to the vault
sealed       silence                        consumed
"""

from __future__ import annotations

from enum import IntEnum


class Mode(IntEnum):
    """Ordered by how little leaves."""

    PASSTHROUGH = 0
    GUARDED = 1
    ARMED = 2
    SEALED = 3


_P, _G, _A, _S = Mode
ALLOWED: dict[tuple[Mode, str], Mode] = {
    (_P, "guard"): _G,
    (_P, "arm"): _A,
    (_P, "fault"): _G,
    (_G, "guard"): _G,
    (_G, "arm"): _A,
    (_G, "fault"): _G,
    (_A, "arm"): _A,
    (_A, "guard"): _G,
    (_A, "release"): _G,
    (_A, "fault"): _S,
    (_S, "fault"): _S,
    (_S, "guard"): _S,  # only a person's release ends a seal
    (_S, "release"): _G,
}
"""What each event makes of each mode. No row leads to passthrough: it latches one way."""


def after(mode: Mode, event: str) -> Mode:
    """The mode after `event` (guard, arm, release, fault); unchanged where the table has no row."""
    return ALLOWED.get((mode, event), mode)


def parse(name: str) -> Mode:
    """The mode of that name; sealed where there is none."""
    return Mode.__members__.get(name.upper(), Mode.SEALED)


def name(mode: Mode | int) -> str:
    """Its name."""
    return Mode(mode).name.lower()
