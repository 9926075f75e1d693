"""The table of modes: nothing leads back to passthrough, faults never unmask."""

import itertools

import pytest

from mediaproxy.media import modes
from mediaproxy.media.modes import Mode

EVENTS = ("guard", "arm", "release", "fault", "nonsense")


def test_no_row_leads_to_passthrough() -> None:
    assert Mode.PASSTHROUGH not in modes.ALLOWED.values()


@pytest.mark.parametrize("events", list(itertools.product(EVENTS, repeat=3)), ids=str)
def test_once_left_passthrough_never_returns(events: tuple[str, ...]) -> None:
    for start in (Mode.GUARDED, Mode.ARMED, Mode.SEALED):
        mode = start
        for event in events:
            before, mode = mode, modes.after(mode, event)
            assert mode != Mode.PASSTHROUGH
            if event == "fault":
                assert mode >= before
            if before == Mode.SEALED and event != "release":
                assert mode == Mode.SEALED


def test_an_unknown_name_is_sealed() -> None:
    assert modes.parse("whatever") == Mode.SEALED
