"""Transfers: carried out here, so that the call stays anchored and masked."""

import pytest

from sip.b2bua.events import GuardWanted
from sip.message import Request, Response
from tests.fixtures.sipnet import SDP, Net


def refer(net: Net, side: str, mine: Request | Response, target: str = "<sip:305@198.51.100.1>", cseq: int = 5) -> None:
    net.send(side, net.within(side, mine, "REFER", cseq, headers=f"Refer-To: {target}\r\n"))


def progress(net: Net, side: str = "agent") -> str:
    notify = net.request(side, "NOTIFY")
    assert notify.get("Event") == "refer"
    net.send(side, notify.response(200))
    return notify.body.decode().strip()


@pytest.mark.parametrize("mode", ["guarded", "armed"])
def test_an_agents_transfer_reaches_the_next_agent_and_the_caller_notices_nothing(mode: str) -> None:
    net = Net()
    _, invite = net.establish()
    if mode == "armed":
        net.arm()
    refer(net, "agent", invite)
    assert net.response("agent", 202)
    assert progress(net) == "SIP/2.0 100 Trying"
    onward = net.request("agent", "INVITE")
    assert onward.uri.startswith("sip:305@198.51.100.1")
    assert onward.call_id != invite.call_id
    assert onward.from_.uri == "sip:ann@example.org"
    assert onward.get("Referred-By")
    assert b"m=audio 40002" in onward.body
    net.answer("agent", onward, 180, body=False, tag="new")
    assert progress(net) == "SIP/2.0 180 Ringing"
    answer = onward.response(200, tag="new")
    answer.headers.append(("Contact", "<sip:305@198.51.100.9>"))
    answer.put_body("application/sdp", SDP.format("198.51.100.9", 7900).encode())
    net.send("agent", answer)
    assert net.request("agent", "ACK").to.tag == "new"
    assert progress(net) == "SIP/2.0 200 OK"
    assert net.agreed()[-1].legs[1].remote == ("198.51.100.9", 7900)
    assert net.call.mode == mode
    net.send("agent", net.within("agent", invite, "BYE", 6))  # the first agent leaves
    assert net.response("agent", 200)
    assert net.quiet("trunk")
    assert net.call.state == "answered"
    text = net.within("agent", onward, "BYE", 2).replace("tag=bagent", "tag=new")
    net.send("agent", text)
    assert net.request("trunk", "BYE")
    net.wait(100)
    assert (len(net.box.core.dialogs), len(net.box._transfers.departed), len(net.box.core.layer)) == (0, 0, 0)


def test_who_was_replaced_and_stays_is_hung_up() -> None:
    net = Net()
    _, invite = net.establish()
    refer(net, "agent", invite)
    net.answer("agent", net.request("agent", "INVITE"), tag="new")
    net.wait(9)
    assert net.request("agent", "BYE").call_id == invite.call_id
    assert net.call.state == "answered"


@pytest.mark.parametrize("left", [False, True])
def test_a_transfer_that_fails_leaves_the_call_unless_the_agent_has_left(left: bool) -> None:
    net = Net()
    _, invite = net.establish()
    refer(net, "agent", invite)
    onward = net.request("agent", "INVITE")
    if left:
        net.send("agent", net.within("agent", invite, "BYE", 6))
        assert net.response("agent", 200)
    net.answer("agent", onward, 486, body=False, tag="new")
    if left:
        assert net.request("trunk", "BYE")
        assert net.states()[-1] == ("ended", "transfer-failed")
    else:
        assert net.call.state == "answered"
        assert [m for m in net.at["agent"] if isinstance(m, Request) and b"486" in m.body]


def test_a_caller_who_hangs_up_ends_the_transfer_too() -> None:
    net = Net()
    ok, invite = net.establish()
    refer(net, "agent", invite)
    onward = net.request("agent", "INVITE")
    net.answer("agent", onward, 180, body=False, tag="new")
    net.send("trunk", net.within("trunk", ok, "BYE", 2))
    assert net.request("agent", "CANCEL").call_id == onward.call_id
    net.answer("agent", onward, 200, tag="new")  # it crosses
    assert net.request("agent", "ACK")
    assert not net.box.calls


def test_a_held_caller_is_taken_up_again_by_the_transfer() -> None:
    net = Net()
    _, invite = net.establish()
    net.reinvite("agent", invite, 2, "a=sendonly\r\n")
    hold = net.request("trunk", "INVITE")
    assert b"a=sendonly" in hold.body
    answer = hold.response(200)
    answer.put_body("application/sdp", (SDP.format("192.0.2.1", 6000) + "a=recvonly\r\n").encode())
    net.send("trunk", answer)
    net.send("agent", net.within("agent", net.response("agent", 200), "ACK", 2).replace("From: ", "From: "))
    net.send("agent", net.within("agent", invite, "ACK", 2))
    refer(net, "agent", invite)
    net.answer("agent", net.request("agent", "INVITE"), tag="new")
    resumed = net.request("trunk", "INVITE")
    assert b"a=sendrecv" in resumed.body
    net.answer("trunk", resumed)
    assert net.request("trunk", "ACK")
    assert net.agreed()[-1].legs[0].remote is not None


def test_a_transfer_to_a_dialog_of_the_pbx_carries_replaces() -> None:
    net = Net()
    _, invite = net.establish()
    refer(net, "agent", invite, "<sip:305@198.51.100.1?Replaces=abc%40pbx%3Bto-tag%3D1%3Bfrom-tag%3D2>")
    onward = net.request("agent", "INVITE")
    assert onward.get("Replaces") == "abc@pbx;to-tag=1;from-tag=2"
    assert "replaces" in onward.tokens("Require")


def test_a_refer_is_passed_on_where_policy_says_but_never_towards_the_trunk_while_armed() -> None:
    net = Net(agent={"refer": "pass"})
    _, invite = net.establish()
    refer(net, "agent", invite)
    passed = net.request("trunk", "REFER")
    assert passed.get("Refer-To") == "<sip:305@198.51.100.1>"
    net.send("trunk", passed.response(202))
    assert net.response("agent", 202)
    net.arm()
    refer(net, "agent", invite, cseq=6)
    assert net.response("agent", 603)
    assert net.quiet("trunk")


def test_replaces_in_a_refer_names_the_dialog_that_the_other_side_knows() -> None:
    net = Net(agent={"refer": "pass"})
    ok, invite = net.establish()
    mine = net.call.fork.dialogs[1]
    dialog = f"{mine.call_id}%3Bto-tag%3D{mine.local.tag}%3Bfrom-tag%3D{mine.remote.tag}"
    refer(net, "agent", invite, f"<sip:305@198.51.100.1?Replaces={dialog}>")
    text = net.request("trunk", "REFER").get("Refer-To") or ""
    assert ok.call_id in text
    assert ok.to.tag not in text.partition("to-tag")[2].partition("from-tag")[0]
    assert mine.call_id not in text


def test_policy_may_refuse_transfers() -> None:
    net = Net(agent={"refer": "refuse"})
    _, invite = net.establish()
    refer(net, "agent", invite)
    assert net.response("agent", 603)


def test_an_invite_with_replaces_takes_over_the_agents_leg() -> None:
    net = Net()
    _, invite = net.establish()
    mine = net.call.fork.dialogs[1]
    headers = f"Replaces: {mine.call_id};to-tag={mine.local.tag};from-tag={mine.remote.tag}\r\n"
    net.invite("agent", headers=headers, call="takeover")
    ok = net.response("agent", 200)
    assert b"m=audio 40002" in ok.body
    assert net.request("agent", "BYE").call_id == invite.call_id
    net.send("agent", net.within("agent", ok, "ACK", 1))
    assert net.agreed()[-1].legs[1].remote == ("198.51.100.1", 6000)
    net.send("agent", net.within("agent", ok, "BYE", 2))
    assert net.request("trunk", "BYE")


@pytest.mark.parametrize("broken", ["nobody;to-tag=1;from-tag=2", "nonsense"])
def test_replaces_of_an_unknown_dialog_is_refused(broken: str) -> None:
    net = Net()
    net.establish()
    net.invite("agent", headers=f"Replaces: {broken}\r\n", call="takeover")
    assert net.response("agent", 481 if "tag" in broken else 400)
    assert len(net.box.calls) == 1


def test_passthrough_ends_when_an_ivr_transfers_to_an_agent() -> None:
    net = Net("passthrough")
    _, invite = net.establish()
    refer(net, "agent", invite)
    before = len(net.events)
    net.answer("agent", net.request("agent", "INVITE"), tag="new")
    kinds = [type(e).__name__ for e in net.events[before:]]
    assert kinds.index("GuardWanted") < kinds.index("MediaAgreed")
    assert [e.reason for e in net.events if isinstance(e, GuardWanted)] == ["transfer"]


def test_a_reason_that_is_no_text_is_told_as_it_came() -> None:
    net = Net()
    _, invite = net.establish()
    refer(net, "agent", invite)
    onward = net.request("agent", "INVITE")
    net.send("agent", onward.response(486, "Busy \udcff", tag="new"))
    assert any(isinstance(m, Request) and b"486 Busy \xff" in m.body for m in net.at["agent"])
    assert net.call.transfer is None
