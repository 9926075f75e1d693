"""Session timers: each leg has its own (RFC 4028)."""

import pytest

from sip.message import Response
from tests.fixtures.sipnet import Net


def test_this_box_refreshes_what_it_has_promised_to() -> None:
    """As refresher on both legs, by UPDATE where the peer knows it and by re-INVITE where not."""
    net = Net(agent={"session_seconds": 200})
    ok, invite = net.establish(
        headers="Session-Expires: 120;refresher=uas\r\nSupported: timer\r\nAllow: INVITE, BYE, UPDATE\r\n",
        answer="Session-Expires: 200;refresher=uac\nAllow: INVITE, BYE",
    )
    assert ok.get("Session-Expires") == "120;refresher=uas"
    assert invite.get("Session-Expires") == "200"
    net.wait(61)
    update = net.request("trunk", "UPDATE")
    assert update.get("Session-Expires") == "120;refresher=uac"
    answer = update.response(200)
    answer.headers.append(("Session-Expires", "120;refresher=uac"))
    net.send("trunk", answer)
    net.wait(40)
    again = net.request("agent", "INVITE")
    assert again.get("Session-Expires") == "200;refresher=uac"
    assert again.body == invite.body  # the same description: nothing has changed
    net.answer("agent", again, headers="Session-Expires: 200;refresher=uac")
    assert net.request("agent", "ACK")
    net.wait(500)
    assert net.states()[-1] == ("ended", "session-lost")  # nobody answered any more


def test_a_peer_that_does_not_refresh_is_hung_up() -> None:
    net = Net()
    ok, _ = net.establish(headers="Session-Expires: 90;refresher=uac\r\nSupported: timer\r\n")
    assert ok.get("Session-Expires") == "90;refresher=uac"
    assert "timer" in ok.tokens("Require")
    net.send("trunk", net.within("trunk", ok, "UPDATE", 2, headers="Session-Expires: 90;refresher=uac\r\n"))
    assert net.response("trunk", 200).get("Session-Expires") == "90;refresher=uac"
    assert net.quiet("agent")  # a refresh is each leg's own
    net.wait(59)
    assert net.call.state == "answered"
    net.wait(3)
    assert net.states()[-1] == ("ended", "session-expired")
    assert "408" in (net.request("trunk", "BYE").get("Reason") or "")
    assert net.request("agent", "BYE")


def test_too_short_an_interval_is_refused_both_ways() -> None:
    net = Net(trunk={"least_session_seconds": 200}, agent={"session_seconds": 300})
    net.invite(headers="Session-Expires: 100\r\nSupported: timer\r\n")
    assert net.response("trunk", 422).get("Min-SE") == "200"
    net.invite(headers="Session-Expires: 300\r\nSupported: timer\r\n", call="c2")
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, 422, body=False, headers="Min-SE: 900")
    longer = net.request("agent", "INVITE")
    assert (longer.get("Session-Expires") or "").startswith("900")
    assert longer.cseq[0] > invite.cseq[0]
    net.answer("agent", longer)
    assert net.response("trunk", 200)


def test_without_a_wish_of_anybodys_there_is_no_timer() -> None:
    net = Net()
    ok, invite = net.establish()
    assert ok.get("Session-Expires") is None
    assert invite.get("Session-Expires") is None
    net.wait(10_000)
    assert net.call.state == "answered"


@pytest.mark.parametrize("status", [481, 408])
def test_a_refresh_that_finds_nobody_ends_the_call(status: int) -> None:
    net = Net(agent={"session_seconds": 200})
    net.establish(answer="Session-Expires: 200;refresher=uac")
    net.wait(101)
    net.send("agent", net.request("agent", "UPDATE").response(status))
    assert net.states()[-1] == ("ended", "session-lost")
    assert net.request("trunk", "BYE")


def test_a_refresh_waits_for_an_invite_on_its_way_and_after_glare() -> None:
    net = Net(agent={"session_seconds": 200})
    ok, _ = net.establish(answer="Session-Expires: 200;refresher=uac\nAllow: INVITE")
    net.reinvite("trunk", ok, 2)
    pending = net.request("agent", "INVITE")
    net.answer("agent", pending, 180, body=False)
    net.wait(101)
    assert not [
        m for m in net.at["agent"] if not isinstance(m, Response) and m.method == "INVITE" and m.cseq != pending.cseq
    ]
    net.answer("agent", pending, headers="Session-Expires: 200;refresher=uac")
    net.send("trunk", net.within("trunk", net.response("trunk", 200), "ACK", 2))
    net.wait(110)
    mine = next(
        m for m in net.at["agent"] if not isinstance(m, Response) and m.method == "INVITE" and m.cseq != pending.cseq
    )
    net.at["agent"].clear()
    net.send("agent", mine.response(491, tag="bagent"))
    assert net.request("agent", "ACK")
    net.wait(2)
    assert net.quiet("agent")  # who owns the Call-ID waits 2.1 to 4 s (RFC 3261 section 14.1)
    net.wait(2.1)
    assert net.request("agent", "INVITE").cseq[0] > mine.cseq[0]
