"""Captures: fields fill, one press counts once, nothing that leaves holds a digit, everything ends wiped."""

import copy
import pickle
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaproxy.config import CaptureConfig, Config, FieldConfig, RouteConfig, SideConfig
from mediaproxy.ipc import channel
from mediaproxy.ipc import messages as m
from mediaproxy.ipc.key import EVENT, INBAND, INFO, Key
from mediaproxy.vault import card
from mediaproxy.vault.capture import CANCELLED, FAILED, KEYING, READY, SUBMITTING, TOKEN, Capture
from mediaproxy.vault.fields import kinds
from mediaproxy.vault.secret import CAPACITY, Secret, SecretFull
from mediaproxy.vault.service import Vault

CODES = "0123456789*#ABCD"
YEAR = f"{(time.gmtime().tm_year + 2) % 100:02d}"


SIDE = SideConfig(sip_listen="127.0.0.1:5060", rtp_address="127.0.0.1")
OTHERS = (
    FieldConfig(name="sort-code", least=6, most=6),
    FieldConfig(name="account", least=6, most=10, seconds=90, mute=True),
    FieldConfig(name="reference", least=8, most=8, check="luhn"),
    FieldConfig(name="iban-digits", least=10, most=24, check="mod97"),
)


def begin(*names: str, rules: CaptureConfig | None = None, **route: Any) -> Capture:
    rules = rules or CaptureConfig()
    config = Config(trunk=SIDE, agent=SIDE, peers=(), routes=(), fields=OTHERS, capture=rules)
    wanted = [kinds(config)[name] for name in names or ("pan", "expiry", "cvv")]
    return Capture.begin(7, RouteConfig(name="in", origin="a", target="b", **route), "g", wanted, rules, 0.0)


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


@pytest.mark.parametrize("pan", ["6200000000000005", "6200000000000000018", "6759649826438453", "9792000000000003"])
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
    capture = begin("pan", rules=CaptureConfig(tries=100))
    press(capture, "9" * 500)
    assert capture.state == KEYING
    assert capture.fields[0].received <= 19
    capture = begin("pan")
    press(capture, "9" * 500)
    assert (capture.state, capture.reason) == (FAILED, "tries")


def test_an_ended_capture_is_wiped() -> None:
    for end in ("cancel", "timeout", "token"):
        capture = begin()
        press(capture, "4111111111111111" + "12")
        buffers = [place for f in capture.fields if (place := f.digits._place) is not None]
        assert len(buffers) == 2
        if end == "cancel":
            capture.act("cancel", "", 2.0)
        elif end == "timeout":
            capture.tick(100.0)
        else:
            press(capture, YEAR + "737", at=9000)
            capture.submit()
            capture.answered("tok")
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
    capture.urgent = False
    vault._cued, vault._signalling = {}, None  # type: ignore[assignment]
    vault._captures, vault._ended = {7: capture}, {}
    near, far = channel.pair()
    with near, far:
        for fault in ("call-ended", "sealed"):
            vault._message(channel.Channel("signalling", near), m.Act(7, fault), 1.0)
    assert (capture.state, states(capture)) == (SUBMITTING, ["complete"] * 3)


def test_policy_may_hide_the_last_four() -> None:
    capture = begin("pan", show_last4=False)
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
    buffer = secret._place
    assert buffer is not None
    secret.wipe()
    assert buffer == bytes(CAPACITY)
    for _ in range(CAPACITY):
        secret.append(1)
    with pytest.raises(SecretFull):
        secret.append(1)
    buffer = secret._place
    del secret
    assert buffer == bytes(CAPACITY)


@pytest.mark.parametrize(
    ("form", "keys", "reason"),
    [
        ("MMYY", "12" + YEAR, ""),
        ("YYMM", YEAR + "12", ""),
        ("MMYYYY", "1220" + YEAR, ""),
        ("MMYYYY", "121999", "expired"),
        ("MMYY", "1299", "expired"),
        ("YYMM", YEAR + "13", "month"),
    ],
)
def test_expiry_dates_are_keyed_as_policy_says(form: Any, keys: str, reason: str) -> None:
    capture = begin("expiry", rules=CaptureConfig(expiry=form))
    press(capture, keys)
    assert (capture.fields[0].state, capture.fields[0].reason) == ("invalid" if reason else "complete", reason)


def test_other_fields_are_checked_as_configured() -> None:
    capture = begin("sort-code", "account", "reference", "iban-digits")
    press(capture, "401276")
    assert states(capture)[0] == "complete"
    press(capture, "12345#")
    assert (states(capture)[1], capture.fields[1].reason) == ("invalid", "length")
    press(capture, "1234567#")
    press(capture, "12345675")
    assert (states(capture)[2], capture.fields[2].reason) == ("invalid", "check-digit")
    press(capture, "12345674")
    digits = 123456789012
    press(capture, f"{digits}{98 - digits * 100 % 97:02d}#")
    assert capture.state == READY


def test_two_stars_begin_the_capture_anew_and_two_stars_apart_do_not() -> None:
    capture = begin()
    press(capture, "4111111111111111" + "12")
    press(capture, "**", at=9000)
    assert states(capture) == ["waiting"] * 3
    assert capture.last4 == ""
    press(capture, "4111111111111111" + "12*", at=12_000)
    capture.tick(5.0)  # a rest
    press(capture, "12" + YEAR + "*", at=30_000)
    assert states(capture)[0] == "complete"
    press(capture, "12*13*", at=60_000)
    assert states(capture)[0] == "complete"


def test_a_security_code_is_as_long_as_the_brands_in_whatever_order_they_come() -> None:
    for pan, cvv in (("378282246310005", "1234"), ("4111111111111111", "123")):
        capture = begin("cvv", "pan")
        press(capture, cvv + ("#" if len(cvv) == 3 else ""))
        press(capture, pan, at=9000)
        assert capture.state == READY
        capture = begin("cvv", "pan")
        press(capture, {3: "1234", 4: "123#"}[len(cvv)])
        press(capture, pan, at=9000)
        assert (states(capture), capture.fields[0].reason) == (["invalid", "complete"], "length")


def test_after_too_many_tries_the_capture_fails() -> None:
    capture = begin("pan", rules=CaptureConfig(tries=3))
    for i in range(3):
        assert capture.state == KEYING
        press(capture, "4111111111111112", at=9000 * i)
    assert (capture.state, capture.reason) == (FAILED, "tries")


def test_long_card_numbers_are_taken_where_configured() -> None:
    pan = "4000000000000000030"
    assert card.luhn(pan.encode())
    assert not card.luhn(pan[:16].encode())
    capture = begin("pan")
    press(capture, pan[:16])
    assert states(capture) == ["invalid"]
    capture = begin("pan", rules=CaptureConfig(long_cards=True))
    press(capture, pan)
    assert capture.state == READY
    capture = begin("pan", rules=CaptureConfig(long_cards=True))
    press(capture, "4111111111111111#")
    assert capture.state == READY


def test_a_field_has_its_own_time_and_the_capture_one_for_all() -> None:
    capture = begin("sort-code", "account")
    press(capture, "401276")  # at 1.0
    capture.tick(70.0)
    assert capture.state == KEYING  # the account has 90 s
    capture.tick(92.0)
    assert (capture.state, capture.reason) == (FAILED, "timeout")
    capture = begin()
    for second in range(0, 280, 30):
        capture.armed(second) if second == 0 else capture.key(Key(7, second * 1000, 10, EVENT), float(second))
        capture.tick(float(second))
    assert (capture.state, capture.reason) == (FAILED, "timeout")


def test_the_caller_is_told_what_to_key_and_speech_is_muted_for_what_must_not_be_read_aloud() -> None:
    capture = begin(speech="announced", prompts="en")
    assert capture.cue() == (("muted", "pan"), True)
    press(capture, "4")
    assert capture.cue() == ((), True)
    assert capture.snapshot().speech == "announced"
    press(capture, "111111111111112", at=9000)
    assert capture.cue() == (("invalid", "pan"), True)
    press(capture, "4111111111111111", at=20_000)
    assert capture.cue() == (("expiry",), False)
    assert capture.snapshot().speech == "off"
    press(capture, "12" + YEAR, at=40_000)
    assert capture.cue() == (("muted", "cvv"), True)
    press(capture, "737", at=50_000)
    assert capture.cue() == ((), False)
    capture.submit()
    capture.answered("tok")
    assert capture.cue() == (("done",), False)
    assert begin("sort-code", "account", speech="muted").cue() == ((), False)
    assert begin("account", speech="muted").cue() == ((), True)
    assert begin("pan").cue() == ((), False)


def test_a_field_half_keyed_is_keyed_anew_when_another_comes_first_again() -> None:
    """An agent resets the card number while the security code is being keyed: its first digits do not stay."""
    for how in ("reset", "interrupted"):
        capture = begin("pan", "cvv")
        press(capture, "4111111111111111" + "12")
        if how == "reset":
            capture.act("reset", "pan", 2.0)
            assert states(capture) == ["waiting", "waiting"]
            press(capture, "4111111111111111", at=9000)
        else:
            capture.interrupt(2.0)
        press(capture, "947", at=20_000)
        assert capture.state == READY
        with capture.fields[1].digits.view() as view:
            assert bytes(view) == b"947"


def test_keys_that_the_better_source_has_lost_are_asked_for_again() -> None:
    """After "123" as events the codec changes and the rest comes in-band only."""
    capture = begin("account")
    press(capture, "123", EVENT, at=0)
    press(capture, "4567", INBAND, at=1000)
    capture.tick(2.5)
    assert states(capture) == ["filling"]
    capture.tick(3.6)
    assert (states(capture), capture.fields[0].reason) == (["waiting"], "interrupted")
    press(capture, "1234567#", INBAND, at=5000)
    assert capture.state == READY


@pytest.mark.parametrize("delay", [60, 350, 900, 1500, 2500])
def test_a_worse_source_that_comes_late_is_no_loss(delay: int) -> None:
    """An INFO comes when its key is released, or later."""
    capture = begin("pan")
    presses = [(200 * i, EVENT, key) for i, key in enumerate("4111111111111111")]
    for at, source, key in sorted(presses + [(at + delay, INFO, key) for at, _, key in presses]):
        capture.key(Key(7, at, CODES.index(key), source), 1.0 + at / 1000)
        capture.tick(at / 1000)
    capture.tick(8.0)
    assert (capture.state, capture.fields[0].received) == (READY, 16)


def test_a_rest_between_groups_of_four_ends_no_number() -> None:
    for digits in ("500000000000", "60000000", "620000000000"):
        capture = begin("pan")
        press(capture, digits)
        capture.tick(100.0 - 60.0)
        assert states(capture) == ["filling"]
