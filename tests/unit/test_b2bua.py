"""The pair of dialogs as two user agents see it."""

import pytest

from sip.b2bua.events import KeyReceived
from sip.hop import Hop
from sip.message import Request
from tests.fixtures.sipnet import CALLEE, CALLER, SDP, Net

PICTURE = (
    '<?xml version="1.0" encoding="utf-8" ?><media_control><vc_primitive><to_encoder><picture_fast_update/>'
    "</to_encoder></vc_primitive></media_control>"
)


@pytest.mark.parametrize("side", ["trunk", "agent"])
def test_a_call_is_set_up_and_ended_in_either_direction(side: str) -> None:
    net, other = Net(), "agent" if side == "trunk" else "trunk"
    ok, invite = net.establish(side)
    assert net.states() == [("answered", "")]
    legs = net.agreed()[-1].legs
    ends = (CALLER, CALLEE) if side == "trunk" else (CALLEE, CALLER)
    assert [leg.remote for leg in legs] == [(ends[0][0], 6000), (ends[1][0], 7000)]
    assert legs[0].receive == {0: "PCMU/8000", 8: "PCMA/8000", 101: "telephone-event/8000"}
    net.send(other, net.within(other, invite, "BYE"))
    assert net.response(other, 200)
    bye = net.request(side, "BYE")
    assert bye.to.tag == ok.from_.tag
    net.send(side, bye.response(200))
    assert net.states()[-1] == ("ended", "bye")
    net.wait(100)
    assert (len(net.box.calls), len(net.box.core.dialogs), len(net.box.core.layer)) == (0, 0, 0)


def test_headers_pass_and_the_boxs_own_do_not() -> None:
    net = Net()
    net.invite(
        headers="P-Asserted-Identity: <sip:+1@x>\r\nX-Unknown: kept\r\nSupported: 100rel, x-unknown-tag\r\nIdentity: abc\r\nUser-Agent: y\r\n"
    )
    invite = net.request("agent", "INVITE")
    assert invite.get("P-Asserted-Identity") == "<sip:+1@x>"
    assert invite.get("X-Unknown") == "kept"
    assert invite.get("Identity") == "abc"
    assert "x-unknown-tag" not in invite.tokens("Supported")
    assert invite.get("Max-Forwards") == "69"
    assert invite.uri == "sip:204@198.51.100.1:5060"
    assert invite.call_id != "c1"
    assert invite.from_.uri == "sip:ann@example.org"
    assert len(invite.every("Via")) == 1
    assert b"192.0.2.1" not in invite.body


@pytest.mark.parametrize(("status", "extra"), [(486, ""), (603, ""), (503, "Retry-After: 7"), (302, "")])
def test_refusals_pass_with_their_headers(status: int, extra: str) -> None:
    net = Net()
    net.invite()
    net.answer("agent", net.request("agent", "INVITE"), status, body=False, headers=extra)
    refusal = net.response("trunk", status)
    if extra:
        assert refusal.get("Retry-After") == "7"
    assert net.request("agent", "ACK")
    assert net.states() == [("ended", "refused")]


def test_early_media_and_a_200_without_sdp() -> None:
    net = Net()
    net.invite()
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, 183)
    early = net.response("trunk", 183)
    assert b"10.0.0.1" in early.body
    assert len(net.agreed()) == 1
    net.answer("agent", invite, 200, body=False)
    assert b"m=audio 40000" in net.response("trunk", 200).body


def test_delayed_offer() -> None:
    net = Net()
    net.invite(body=False)
    invite = net.request("agent", "INVITE")
    assert not invite.body
    net.answer("agent", invite)
    ok = net.response("trunk", 200)
    assert b"m=audio 40000" in ok.body
    text = net.within("trunk", ok, "ACK", 1, SDP.format("192.0.2.1", 6000), "application/sdp")
    net.send("trunk", text)
    assert b"m=audio 40002" in net.request("agent", "ACK").body
    assert [leg.remote for leg in net.agreed()[-1].legs] == [("192.0.2.1", 6000), ("198.51.100.1", 7000)]


def test_cancel_before_and_after_ringing() -> None:
    for ringing in (False, True):
        net = Net()
        net.invite()
        invite = net.request("agent", "INVITE")
        if ringing:
            net.answer("agent", invite, 180, body=False)
        cancel = net.within("trunk", invite, "CANCEL", 1).replace("z9hG4bKCANCEL1trunk", "z9hG4bKc1")
        net.send("trunk", cancel.replace(invite.call_id, "c1"))
        assert net.response("trunk", 200)
        assert net.response("trunk", 487)
        if not ringing:
            net.answer("agent", invite, 180, body=False)  # only now may the CANCEL go on
        assert net.request("agent", "CANCEL").via.branch == invite.via.branch
        net.answer("agent", invite, 487, body=False)
        assert net.states()[-1] == ("ended", "cancelled")


def test_a_200_that_crosses_the_cancel_is_taken_and_hung_up() -> None:
    net = Net()
    net.invite()
    invite = net.request("agent", "INVITE")
    cancel = net.within("trunk", invite, "CANCEL", 1).replace("z9hG4bKCANCEL1trunk", "z9hG4bKc1")
    net.send("trunk", cancel.replace(invite.call_id, "c1"))
    net.answer("agent", invite, 200)
    assert net.request("agent", "ACK")
    assert net.request("agent", "BYE")


@pytest.mark.parametrize("side", ["trunk", "agent"])
def test_hold_and_resume_pass_either_way(side: str) -> None:
    net, other = Net(), "agent" if side == "trunk" else "trunk"
    ok, invite = net.establish()
    mine = ok if side == "trunk" else invite
    host = "192.0.2.1" if side == "trunk" else "198.51.100.1"
    for cseq, direction, port in ((2, "sendonly", 6000), (3, "sendrecv", 6010)):
        body = SDP.format(host, port) + f"a={direction}\r\n"
        net.send(side, net.within(side, mine, "INVITE", cseq, body, "application/sdp"))
        again = net.request(other, "INVITE")
        assert f"a={direction}".encode() in again.body
        net.answer(other, again)
        assert net.response(side, 200)
        net.send(side, net.within(side, mine, "ACK", cseq))
        assert net.request(other, "ACK")
        index = 0 if side == "trunk" else 1
        assert net.agreed()[-1].legs[index].remote == (host, port)
    assert net.states() == [("answered", "")]


def test_a_refused_reinvite_leaves_the_call_as_it_was() -> None:
    net = Net()
    ok, invite = net.establish()
    net.send("trunk", net.within("trunk", ok, "INVITE", 2, SDP.format("192.0.2.1", 6100), "application/sdp"))
    net.answer("agent", net.request("agent", "INVITE"), 488, body=False)
    assert net.response("trunk", 488)
    net.send("agent", net.within("agent", invite, "INVITE", 2, SDP.format("198.51.100.1", 7100), "application/sdp"))
    assert net.request("trunk", "INVITE")
    assert net.states() == [("answered", "")]


def test_a_second_invite_meanwhile_is_answered_491() -> None:
    net = Net()
    ok, invite = net.establish()
    net.send("trunk", net.within("trunk", ok, "INVITE", 2, SDP.format("192.0.2.1", 6100), "application/sdp"))
    net.send("agent", net.within("agent", invite, "INVITE", 2, SDP.format("198.51.100.1", 7100), "application/sdp"))
    assert net.response("agent", 491)


@pytest.mark.parametrize("mode", ["guarded", "armed", "sealed"])
@pytest.mark.parametrize(
    ("kind", "body", "event"),
    [
        ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", 5),
        ("application/dtmf-relay", "Signal= *\r\nDuration=160\r\n", 10),
        ("application/dtmf-relay", "Signal=11\r\n", 11),
        ("application/dtmf", "#", 11),
        ("Application/DTMF", "0\r\n", 0),
        ("application/vnd.nortelnetworks.digits", "d=7", 7),
    ],
)
def test_keys_in_info_stay_here(mode: str, kind: str, body: str, event: int) -> None:
    net = Net()
    ok, _ = net.establish()
    next(iter(net.box.calls.values())).mode = mode
    net.send("trunk", net.within("trunk", ok, "INFO", 2, body, kind))
    assert net.response("trunk", 200)
    assert net.at["agent"] == []
    assert [e.event for e in net.events if isinstance(e, KeyReceived)] == [event]
    assert all("event" not in repr(e) for e in net.events if isinstance(e, KeyReceived))


def test_keys_that_cannot_be_read_stay_here_too() -> None:
    net = Net()
    ok, _ = net.establish()
    net.send("trunk", net.within("trunk", ok, "INFO", 2, "Signal=4111111111111111", "application/dtmf-relay"))
    refusal = net.response("trunk", 400)
    assert b"4111" not in refusal.encode()
    assert net.at["agent"] == []


def test_info_passes_otherwise() -> None:
    net = Net()
    ok, invite = net.establish()
    net.send("trunk", net.within("trunk", ok, "INFO", 2, PICTURE, "application/media_control+xml"))
    info = net.request("agent", "INFO")
    assert bytes(info.body) == PICTURE.encode()
    net.send("agent", info.response(200))
    assert net.response("trunk", 200)
    net.send("agent", net.within("agent", invite, "INFO", 5, "Signal=5", "application/dtmf-relay"))
    assert bytes(net.request("trunk", "INFO").body) == b"Signal=5"


def test_while_armed_no_unknown_body_goes_to_the_agent() -> None:
    net = Net()
    ok, _ = net.establish()
    next(iter(net.box.calls.values())).mode = "armed"
    net.send("trunk", net.within("trunk", ok, "INFO", 2, "<x/>", "application/media_control+xml"))
    assert net.response("trunk", 415)
    assert net.at["agent"] == []


def test_passthrough_relays_keys() -> None:
    net = Net("passthrough")
    ok, _ = net.establish()
    net.send("trunk", net.within("trunk", ok, "INFO", 2, "Signal=5", "application/dtmf-relay"))
    assert bytes(net.request("agent", "INFO").body) == b"Signal=5"


def test_strangers_get_nothing() -> None:
    net = Net()
    data = b"OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9;branch=z9hG4bK1\r\n\r\n"
    net.box.receive(bytearray(data), "trunk", Hop("203.0.113.9", 5060), 0.0)
    assert not net.box.outgoing
    assert net.box.counters["strangers"] == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("Max-Forwards: 70", "Max-Forwards: 0"), 483),
        (("CSeq: 1 INVITE", "CSeq: 1 INVITE\r\nRequire: precondition"), 420),
        (("INVITE sip:204@10.0.0.1", "INVITE tel:204"), 416),
        (("application/sdp", "application/isup"), 415),
        (("RTP/AVP 0 8 101", "RTP/AVP 18"), 488),
        (("SIP/2.0/UDP 192.0.2.1", "SIP/2.0/UDP 192.0.2.1:99999"), 0),
        (("CSeq: 1 INVITE", "CSeq: 1 BYE"), 400),
        (("Contact: ", "X: "), 400),
    ],
)
def test_bad_invites_are_refused_and_leave_nothing(change: tuple[str, str], status: int) -> None:
    net = Net()
    original, net.send = net.send, lambda side, text: original(side, str(text).replace(*change))  # type: ignore[method-assign]
    net.invite()
    answers = [m for m in net.at["trunk"] if not isinstance(m, Request) and m.status != 100]
    assert [m.status for m in answers] == ([status] if status else [])
    assert net.at["agent"] == []
    assert not net.box.calls


def test_options_are_answered() -> None:
    net = Net()
    net.send(
        "trunk",
        "OPTIONS sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKo\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\n\r\n",
    )
    assert "INVITE" in (net.response("trunk", 200).get("Allow") or "")


def test_without_ports_the_call_is_refused_503() -> None:
    net = Net()
    net.media = False
    net.invite()
    assert net.response("trunk", 503).get("Retry-After")
    assert not net.box.calls


def test_no_answer_at_all_ends_the_call_with_408() -> None:
    net = Net()
    net.invite()
    net.wait(40)
    assert net.response("trunk", 408)
    assert net.states() == [("ended", "no-answer")]


def test_endless_ringing_ends_the_call() -> None:
    net = Net()
    net.invite()
    net.answer("agent", net.request("agent", "INVITE"), 180, body=False)
    net.wait(185)
    assert net.box.calls
    net.wait(60)
    assert net.response("trunk", 408)
    assert net.request("agent", "CANCEL")


def test_a_200_never_acknowledged_ends_the_call() -> None:
    net = Net()
    net.invite()
    net.answer("agent", net.request("agent", "INVITE"))
    net.wait(40)
    assert net.states()[-1] == ("ended", "ack-missing")
    assert net.request("agent", "ACK")
    assert net.request("agent", "BYE")
    assert net.request("trunk", "BYE")


@pytest.mark.parametrize("lost", range(1, 10))
def test_any_one_lost_datagram_of_the_box_is_made_good(lost: int) -> None:
    """The peers repeat as RFC 3261 asks them to; the box must do its half."""
    net = Net()
    net.drop = {lost}
    net.invite()
    net.wait(1)
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite)
    net.wait(1)
    ok = net.response("trunk", 200)
    net.send("trunk", net.within("trunk", ok, "ACK", 1))
    if not any(isinstance(m, Request) and m.method == "ACK" for m in net.at["agent"]):
        net.answer("agent", invite)  # no ACK came: the callee repeats its 200
    assert net.request("agent", "ACK")
    bye = net.within("trunk", ok, "BYE", 2)
    net.send("trunk", bye)
    net.wait(1)
    net.send("trunk", bye)
    assert net.response("trunk", 200)
    assert net.request("agent", "BYE")
    assert net.states()[-1] == ("ended", "bye")


def test_requests_follow_the_record_route() -> None:
    net = Net()
    net.invite()
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, headers="Record-Route: <sip:198.51.100.7;lr>\nRecord-Route: <sip:198.51.100.8;lr>")
    ok = net.response("trunk", 200)
    net.send("trunk", net.within("trunk", ok, "ACK", 1))
    ack = net.request("agent", "ACK")
    assert ack.every("Route") == ["<sip:198.51.100.8;lr>", "<sip:198.51.100.7;lr>"]
    assert ack.uri == "sip:bob@198.51.100.1"


def test_stopping_refuses_new_calls_only() -> None:
    net = Net()
    ok, _ = net.establish()
    net.box.stop()
    net.invite(call="c2")
    assert net.response("trunk", 503).get("Retry-After")
    net.send("trunk", net.within("trunk", ok, "BYE"))
    assert net.response("trunk", 200)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", "5"),
        ("text/plain", "Event=DTMF\r\nSignal=5"),
        ("application/json", '{"dtmf":"5"}'),
        ("multipart/mixed;boundary=x", "--x\r\nContent-Type: application/dtmf-relay\r\n\r\nSignal=5\r\n--x--"),
        ("application/x-unknown", "\r\nSignal=5"),
    ],
)
def test_a_body_that_may_hold_a_key_never_reaches_the_agent(kind: str, body: str) -> None:
    net = Net()
    ok, invite = net.establish()
    net.send("trunk", net.within("trunk", ok, "INFO", 2, body, kind))
    assert net.at["agent"] == []
    net.send("agent", net.within("agent", invite, "INFO", 5, "<x/>", "application/media_control+xml"))
    answer = net.request("trunk", "INFO").response(200)
    answer.put_body(kind, body.encode())
    net.send("trunk", answer)
    assert not net.response("agent", 200).body


def test_no_transaction_keeps_a_body_that_may_hold_a_key() -> None:
    net = Net()
    ok, _ = net.establish()
    for cseq, method in ((2, "INFO"), (2, "INFO"), (3, "NOTIFY"), (4, "MESSAGE"), (5, "BYE"), (6, "INFO")):
        text = net.within("trunk", ok, method, cseq, "Signal=5", "application/dtmf-relay")
        net.send("trunk", text.replace("z9hG4bK", f"z9hG4bK{net.sent}"))
    kept = [t.request.body for t in net.box.core.layer._servers.values() if t.request.body]
    assert kept
    assert all(body == bytes(len(body)) for body in kept if b"v=0" not in body)


@pytest.mark.parametrize(
    "broken",
    [
        ("c=IN IP4 198.51.100.1", "c=IN IP4 \0"),
        ("c=IN IP4 198.51.100.1", "c=IN IP4 host.example.org"),
        ("m=audio 7000", "m=audio 65535"),
        ("m=audio 7000", "m=audio " + "7" * 5000),
    ],
)
def test_an_answer_that_cannot_be_sent_to_ends_the_call_cleanly(broken: tuple[str, str]) -> None:
    net = Net()
    net.invite()
    answer = net.request("agent", "INVITE").response(200, tag="b")
    answer.headers.append(("Contact", "<sip:bob@198.51.100.1>"))
    answer.put_body("application/sdp", SDP.format("198.51.100.1", 7000).replace(*broken).encode())
    net.send("agent", answer)
    assert net.response("trunk", 488)
    assert net.request("agent", "ACK")
    assert net.request("agent", "BYE")
    assert not net.box.calls


@pytest.mark.parametrize("contact", ["<urn:x:y>", "<tel:+1>", "nonsense"])
def test_an_answer_without_a_usable_contact_ends_the_call_cleanly(contact: str) -> None:
    net = Net()
    net.invite()
    answer = net.request("agent", "INVITE").response(200, tag="b")
    answer.headers.append(("Contact", contact))
    answer.put_body("application/sdp", SDP.format("198.51.100.1", 7000).encode())
    net.send("agent", answer)
    assert net.request("agent", "ACK")
    assert net.request("agent", "BYE")
    assert net.states()[-1] == ("ended", "unusable-answer")


@pytest.mark.parametrize("host", ["127.0.0.02", "999.1.1.1", "pbx.example.org"])
def test_a_contact_that_is_no_address_is_reached_through_its_peer(host: str) -> None:
    net = Net()
    net.invite()
    answer = net.request("agent", "INVITE").response(200, tag="b")
    answer.headers.append(("Contact", f"<sip:bob@{host}>"))
    answer.put_body("application/sdp", SDP.format("198.51.100.1", 7000).encode())
    net.send("agent", answer)
    ok = net.response("trunk", 200)
    net.send("trunk", net.within("trunk", ok, "ACK", 1))
    assert net.request("agent", "ACK")
    net.send("trunk", net.within("trunk", ok, "BYE", 2))
    assert net.request("agent", "BYE").uri == f"sip:bob@{host}"


@pytest.mark.parametrize("route", ["<foo>", "<tel:5>", "x"])
def test_a_route_that_cannot_be_followed_is_refused(route: str) -> None:
    net = Net()
    net.invite(headers=f"Record-Route: {route}\r\n")
    answers = [m.status for m in net.at["trunk"] if not isinstance(m, Request)]
    assert answers[-1] in (400, 416)
    assert not net.box.calls


def test_a_request_of_another_dialog_or_side_ends_nothing() -> None:
    net = Net()
    ok, _ = net.establish()
    bye = net.within("trunk", ok, "BYE", 2)
    net.send("trunk", bye.replace(f"tag={ok.from_.tag}", "tag=wrong"))
    assert net.response("trunk", 481)
    net.send("agent", bye.replace("z9hG4bKBYE", "z9hG4bKother"))
    assert net.response("agent", 481)
    assert net.states()[-1] == ("answered", "")


def test_a_reinvite_that_only_rings_ends_at_last() -> None:
    net = Net()
    ok, _ = net.establish()
    net.send("trunk", net.within("trunk", ok, "INVITE", 2, SDP.format("192.0.2.1", 6100), "application/sdp"))
    net.answer("agent", net.request("agent", "INVITE"), 180, body=False)
    net.wait(300)
    assert net.response("trunk", 408)
    net.send("trunk", net.within("trunk", ok, "INVITE", 3, SDP.format("192.0.2.1", 6100), "application/sdp"))
    assert net.request("agent", "INVITE")


def test_a_reinvite_whose_offer_was_never_answered_does_not_stick() -> None:
    net = Net()
    ok, _ = net.establish()
    net.send("trunk", net.within("trunk", ok, "INVITE", 2))
    net.answer("agent", net.request("agent", "INVITE"))
    net.response("trunk", 200)
    net.send("trunk", net.within("trunk", ok, "ACK", 2))
    before = len(net.agreed())
    net.send("trunk", net.within("trunk", ok, "INVITE", 3, SDP.format("192.0.2.1", 6200), "application/sdp"))
    net.request("agent", "ACK")
    net.answer("agent", net.request("agent", "INVITE"))
    assert len(net.agreed()) == before + 1
    assert net.agreed()[-1].legs[0].remote == ("192.0.2.1", 6200)


def test_the_reason_of_a_cancel_passes() -> None:
    net = Net()
    net.invite()
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, 180, body=False)
    cancel = net.within("trunk", invite, "CANCEL", 1).replace("z9hG4bKCANCEL1trunk", "z9hG4bKc1")
    net.send(
        "trunk",
        cancel.replace(invite.call_id, "c1").replace("Contact:", 'Reason: SIP;cause=200;text="elsewhere"\r\nContact:'),
    )
    assert "cause=200" in (net.request("agent", "CANCEL").get("Reason") or "")


def test_the_old_way_to_hold_is_told_in_the_new_way() -> None:
    net = Net()
    ok, _ = net.establish()
    net.send("trunk", net.within("trunk", ok, "INVITE", 2, SDP.format("0.0.0.0", 6100), "application/sdp"))
    assert b"a=sendonly" in net.request("agent", "INVITE").body


def test_numbers_of_absurd_length_raise_nothing() -> None:
    net = Net()
    for old in ("CSeq: 1", "Max-Forwards: 70", "m=audio 6000", "RTP/AVP 0"):
        net.invite(call=old.split()[0][:4])
    original = net.send
    for old in ("CSeq: 1", "Max-Forwards: 70", "m=audio 6000", "RTP/AVP 0"):
        net.send = lambda side, text, old=old: original(side, str(text).replace(old, old + "0" * 5000))  # type: ignore[method-assign]
        net.invite(call="x" + old[:3])


def test_a_press_told_by_two_notifies_counts_once() -> None:
    """audio/telephone-event in NOTIFY: begun, then ended; and one that is told at its end alone."""
    net = Net()
    ok, _ = net.establish()
    for cseq, octets in ((2, "\x05\x0a\x00\x50"), (3, "\x05\x7f\x01\x40"), (4, "\x07\x7f\x01\x40")):
        text = net.within("trunk", ok, "NOTIFY", cseq, "BODY", "audio/telephone-event", "Event: telephone-event\r\n")
        end = bytes([ord(octets[1]) | (0x80 if cseq > 2 else 0)])
        body = octets[0].encode() + end + octets[2:].encode()
        net.send("trunk", text.encode().replace(b"BODY", body))
        assert net.response("trunk", 200)
    assert [e.event for e in net.events if isinstance(e, KeyReceived)] == [5, 7]
    assert net.at["agent"] == []


def test_a_header_of_the_agent_side_ends_passthrough_and_one_of_the_trunk_does_not() -> None:
    net = Net("passthrough", route={"guard_header": "X-Agent"})
    ok, invite = net.establish()
    net.send("trunk", net.within("trunk", ok, "MESSAGE", 2, headers="X-Agent: 1\r\n"))
    assert net.call.mode == "passthrough"
    net.send("agent", net.within("agent", invite, "MESSAGE", 3, headers="X-Agent: 1\r\n"))
    assert net.call.mode == "guarded"
