"""Captures: fields fill, one press counts once, nothing that leaves holds a digit, everything ends wiped."""

import copy
import pickle
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaproxy.ipc import channel
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.key import EVENT, INBAND, INFO, Key
from mediaproxy.vault import card
from mediaproxy.vault.capture import CANCELLED, FAILED, KEYING, READY, SUBMITTING, TOKEN, Capture
from mediaproxy.vault.secret import CAPACITY, Secret, SecretFull
from mediaproxy.vault.service import Vault

CODES = "0123456789*#ABCD"
YEAR = f"{(time.gmtime().tm_year + 2) % 100:02d}"


def begin(*kinds: str, last4: bool = True) -> Capture:
    return Capture.begin(7, "in", kinds or ("pan", "expiry", "cvv"), last4, 60.0, 240.0, 0.0)


def press(capture: Capture, keys: str, source: int = EVENT, at: int = 0) -> None:
    for i, key in enumerate(keys):
        capture.key(Key(7, at + 200 * i, CODES.index(key), source), 1.0)


def states(capture: Capture) -> list[str]:
    return [f.state for f in capture.fields]


@pytest.mark.parametrize(
    ("pan", "cvv", "brand"),
    [
        ("4111111111111111", "737", "visa"),
        ("5555555555554444", "123", "mastercard"),
        ("2223003122003222", "123", "mastercard"),
        ("378282246310005", "1234", "amex"),
        ("6011111111111117", "123", "discover"),
        ("30569309025904", "123", "diners"),
        ("3530111333300000", "123", "jcb"),
        ("6200000000000000018", "123", "unionpay"),
    ],
)
def test_fields_end_at_their_brands_length(pan: str, cvv: str, brand: str) -> None:
    capture = begin()
    press(capture, pan + "12" + YEAR + cvv)
    assert capture.state == READY
    assert (capture.brand, capture.last4) == (brand, pan[-4:])
    assert [f.received for f in capture.fields] == [len(pan), 4, len(cvv)]


@pytest.mark.parametrize("pan", ["6200000000000005", "6200000000000000018", "6759649826438453"])
def test_a_number_of_open_length_ends_with_pound_or_a_pause(pan: str) -> None:
    for ending in ("#", "pause"):
        capture = begin("pan", "cvv")
        press(capture, pan)
        if len(pan) < 19:
            assert states(capture)[0] == "filling"
        if ending == "#":
            press(capture, "#")
        else:
            capture.tick(2.0)
            assert len(pan) == 19 or states(capture)[0] == "filling"
            capture.tick(4.5)
        assert states(capture)[0] == "complete"
        press(capture, "123#")
        assert (capture.state, capture.last4) == (READY, pan[-4:])


def test_a_mistyped_card_does_not_swallow_the_next_field() -> None:
    capture = begin("pan", "expiry")
    press(capture, "4111111111111112")
    assert (states(capture), capture.fields[0].reason) == (["invalid", "waiting"], "check-digit")


def test_pound_ends_a_field_and_star_clears_it() -> None:
    capture = begin("pan", "cvv")
    press(capture, "41119*4111111111111111#")
    assert states(capture) == ["complete", "waiting"]
    press(capture, "12*123#")
    assert capture.state == READY


def test_star_in_an_empty_field_goes_back_to_the_one_before() -> None:
    capture = begin()
    press(capture, "4111111111111111*")
    assert states(capture) == ["waiting"] * 3
    assert capture.last4 == ""


@pytest.mark.parametrize(
    ("kinds", "keys", "reason"),
    [
        (("pan",), "4111111111111112", "check-digit"),
        (("pan",), "41111#", "length"),
        (("expiry",), "1320", "month"),
        (("expiry",), "0120", "expired"),
        (("cvv",), "12#", "length"),
    ],
)
def test_what_is_wrong_is_said_without_digits_and_can_be_keyed_again(kinds: tuple[str], keys: str, reason: str) -> None:
    capture = begin(*kinds)
    press(capture, keys)
    assert (states(capture), capture.fields[0].reason) == (["invalid"], reason)
    assert len(capture.fields[0].digits) == 0
    assert capture.state == KEYING
    press(capture, {"pan": "4111111111111111", "expiry": "12" + YEAR, "cvv": "123#"}[kinds[0]])
    assert capture.state == READY


def test_one_press_by_three_ways_counts_once() -> None:
    capture = begin("pan")
    for i, key in enumerate("4111111111111111"):
        for source, delay in ((EVENT, 0), (INBAND, 60), (INFO, 130)):
            capture.key(Key(7, 300 * i + delay, CODES.index(key), source), 1.0)
    assert (capture.state, capture.fields[0].received) == (READY, 16)


@pytest.mark.parametrize("order", [(INBAND, EVENT), (INFO, EVENT), (INFO, INBAND)])
def test_a_better_source_takes_over_without_counting_twice(order: tuple[int, int]) -> None:
    capture = begin("pan")
    for i, key in enumerate("4111111111111111"):
        for delay, source in zip((0, 80), order, strict=True):
            capture.key(Key(7, 600 * i + delay, CODES.index(key), source), 1.0)
    assert (capture.state, capture.fields[0].received) == (READY, 16)


@pytest.mark.parametrize("late", [-30, -1, 0, 1, 30, 390])
def test_a_better_source_may_be_stamped_a_little_earlier(late: int) -> None:
    capture = begin("pan")
    capture.key(Key(7, 5000, 4, INFO), 1.0)
    capture.key(Key(7, (5000 + late) & 0xFFFFFFFF, 4, EVENT), 1.0)
    assert capture.fields[0].received == 1


def test_a_worse_source_takes_over_from_one_that_has_fallen_silent() -> None:
    capture = begin("pan")
    press(capture, "41", EVENT)
    press(capture, "11", INBAND, at=1000)
    assert capture.fields[0].received == 2
    press(capture, "11", INBAND, at=9000)
    assert capture.fields[0].received == 4


def test_a_true_repetition_counts_twice() -> None:
    capture = begin("pan")
    press(capture, "44", INBAND)
    assert capture.fields[0].received == 2


def test_a_flood_of_digits_stays_bounded() -> None:
    capture = begin("pan")
    press(capture, "9" * 500)
    assert capture.state == KEYING
    assert capture.fields[0].received <= 19


def test_an_ended_capture_is_wiped() -> None:
    for end in ("cancel", "timeout", "token"):
        capture = begin()
        press(capture, "4111111111111111" + "12")
        buffers = [f.digits._buffer for f in capture.fields]
        if end == "cancel":
            capture.act("cancel", "", 2.0)
        elif end == "timeout":
            capture.tick(100.0)
        else:
            capture.end(TOKEN, token="tok")
        assert capture.state == {"cancel": CANCELLED, "timeout": FAILED, "token": TOKEN}[end]
        assert all(buffer == bytes(CAPACITY) for buffer in buffers)
        press(capture, "4111")
        assert all(buffer == bytes(CAPACITY) for buffer in buffers)


def test_the_agent_may_reset_a_field_and_not_while_it_is_sent() -> None:
    capture = begin()
    press(capture, "4111111111111111" + "12" + YEAR + "737")
    capture.act("reset", "cvv", 2.0)
    assert (capture.state, states(capture)) == (KEYING, ["complete", "complete", "waiting"])
    press(capture, "737", at=9000)
    capture.act("submit", "", 3.0)
    assert capture.state == SUBMITTING
    capture.act("reset", "pan", 4.0)
    capture.act("cancel", "", 4.0)
    assert (capture.state, states(capture)) == (SUBMITTING, ["complete"] * 3)


def test_a_token_on_its_way_is_not_thrown_away_by_the_calls_end() -> None:
    vault = Vault.__new__(Vault)
    capture = begin()
    press(capture, "4111111111111111" + "12" + YEAR + "737")
    capture.submit()
    capture.sent = True
    vault._captures, vault._ended = {7: capture}, {}
    near, far = channel.pair()
    with near, far:
        for fault in ("call-ended", "sealed"):
            vault._message(channel.Channel("signalling", near), m.Act(7, fault), 1.0)
    assert (capture.state, states(capture)) == (SUBMITTING, ["complete"] * 3)


def test_policy_may_hide_the_last_four() -> None:
    capture = begin("pan", last4=False)
    press(capture, "4111111111111111")
    assert (capture.brand, capture.last4) == ("visa", "")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 2), st.sampled_from(["", "cancel", "reset", "submit"]))))
def test_nothing_keyed_shows_in_a_snapshot(steps: list[tuple[int, int, str]]) -> None:
    """Whatever is keyed and done: counts and words of closed lists, brand and last four of valid cards only."""
    capture = begin()
    for i, (event, source, action) in enumerate(steps):
        capture.key(Key(7, 500 * i, event, source), 1.0)
        if action:
            capture.act(action, "pan", 1.0)
        seen = capture.snapshot()
        assert seen.last4 == "" or capture.fields[0].state == "complete"
        assert all(f.digits_received <= 19 for f in seen.fields)
        assert {f.state for f in seen.fields} <= {"waiting", "filling", "complete", "invalid"}
        assert not seen.token


def test_luhn() -> None:
    assert card.luhn(b"4111111111111111")
    assert not card.luhn(b"4111111111111112")
    assert not card.luhn(b"")


def test_a_secret_is_not_shown_copied_or_kept() -> None:
    secret = Secret()
    for digit in (4, 1, 1, 1):
        secret.append(digit)
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>30}", "%s" % secret, repr([secret])):  # noqa: UP031
        assert "4111" not in text
    for copier in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            copier(secret)
    with pytest.raises(TypeError):
        hash(secret)
    assert "event" not in repr(Key(1, 2, 3, 0))
    buffer = secret._buffer
    secret.wipe()
    assert buffer == bytes(CAPACITY)
    for _ in range(CAPACITY):
        secret.append(1)
    with pytest.raises(SecretFull):
        secret.append(1)
    del secret
    assert buffer == bytes(CAPACITY)
