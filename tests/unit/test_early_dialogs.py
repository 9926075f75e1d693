"""Before the answer: forks, reliable provisional answers, UPDATE."""

from sip.message import Request, Response
from tests.fixtures.sipnet import SDP, Net

RELIABLE = "Require: 100rel\nRSeq: {0}"


def test_every_fork_has_a_dialog_of_its_own_and_the_one_answered_stays() -> None:
    net = Net()
    net.invite()
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, 180, body=False, tag="one")
    net.answer("agent", invite, 183, tag="two")
    net.answer("agent", invite, 183, tag="one")
    first, second, third = (net.response("trunk", status) for status in (180, 183, 183))
    assert first.to.tag == third.to.tag != second.to.tag
    net.answer("agent", invite, 200, tag="two")
    ok = net.response("trunk", 200)
    assert ok.to.tag == second.to.tag
    net.send("trunk", net.within("trunk", ok, "ACK", 1))
    assert net.request("agent", "ACK").to.tag == "two"
    net.answer("agent", invite, 200, tag="one")  # a second phone was picked up: it is thanked and hung up
    assert net.request("agent", "ACK").to.tag == "one"
    assert net.request("agent", "BYE").to.tag == "one"
    assert net.call.state == "answered"
    net.send("trunk", net.within("trunk", ok, "BYE", 2))
    assert net.request("agent", "BYE").to.tag == "two"
    net.wait(100)
    assert (len(net.box.core.dialogs), len(net.box.core.by_call_id), len(net.box.core.layer)) == (0, 0, 0)


def test_prack_passes_with_the_numbers_of_each_leg() -> None:
    net = Net()
    net.invite(headers="Supported: 100rel\r\n")
    invite = net.request("agent", "INVITE")
    assert "100rel" in invite.tokens("Supported")
    net.answer("agent", invite, 183, headers=RELIABLE.format(7001))
    early = net.response("trunk", 183)
    assert "100rel" in early.tokens("Require")
    rseq = early.get("RSeq")
    net.wait(0.6)
    assert net.response("trunk", 183).get("RSeq") == rseq  # repeated until acknowledged
    net.send("trunk", net.within("trunk", early, "PRACK", 2, headers=f"RAck: {rseq} 1 INVITE\r\n"))
    prack = net.request("agent", "PRACK")
    assert prack.get("RAck") == f"7001 {invite.cseq[0]} INVITE"
    net.send("agent", prack.response(200))
    assert net.response("trunk", 200).cseq == (2, "PRACK")
    net.wait(3)
    assert net.quiet("trunk")
    net.answer("agent", invite, 183, headers=RELIABLE.format(7001))  # again: not a new one
    assert net.quiet("trunk")
    net.answer("agent", invite, 200, body=False)
    assert not net.response("trunk", 200).body  # the answer has been acknowledged


def test_prack_with_an_answer_to_the_offer_of_a_reliable_183() -> None:
    net = Net()
    net.invite(body=False, headers="Supported: 100rel\r\n")
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, 183, headers=RELIABLE.format(1))
    early = net.response("trunk", 183)
    assert b"m=audio 40000" in early.body
    body = SDP.format("192.0.2.1", 6000)
    rack = f"RAck: {early.get('RSeq')} 1 INVITE\r\n"
    net.send("trunk", net.within("trunk", early, "PRACK", 2, body, "application/sdp", rack))
    prack = net.request("agent", "PRACK")
    assert b"m=audio 40002" in prack.body
    assert [leg.remote for leg in net.agreed()[-1].legs] == [("192.0.2.1", 6000), ("198.51.100.1", 7000)]
    net.send("agent", prack.response(200))
    assert net.response("trunk", 200)
    net.answer("agent", invite, 200, body=False)
    assert not net.response("trunk", 200).body


def test_prack_with_a_new_offer_gets_its_answer() -> None:
    net = Net()
    net.invite(headers="Supported: 100rel\r\n")
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, 183, headers=RELIABLE.format(1))
    early = net.response("trunk", 183)
    rack = f"RAck: {early.get('RSeq')} 1 INVITE\r\n"
    body = SDP.format("192.0.2.1", 6020)
    net.send("trunk", net.within("trunk", early, "PRACK", 2, body, "application/sdp", rack))
    prack = net.request("agent", "PRACK")
    answer = prack.response(200)
    answer.put_body("application/sdp", SDP.format("198.51.100.1", 7020).encode())
    net.send("agent", answer)
    ok = net.response("trunk", 200)
    assert b"m=audio 40000" in ok.body
    assert [leg.remote for leg in net.agreed()[-1].legs] == [("192.0.2.1", 6020), ("198.51.100.1", 7020)]


def test_who_cannot_prack_is_spared_it() -> None:
    net = Net()
    net.invite()
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, 183, headers=RELIABLE.format(5))
    early = net.response("trunk", 183)
    assert early.get("RSeq") is None
    prack = net.request("agent", "PRACK")
    assert prack.get("RAck") == f"5 {invite.cseq[0]} INVITE"
    net.answer("agent", invite, 200, body=False)
    assert b"m=audio 40000" in net.response("trunk", 200).body  # what it heard in the 183 may have been lost


def test_who_insists_on_prack_gets_reliable_answers_whatever_the_far_side_does() -> None:
    net = Net()
    net.invite(headers="Require: 100rel\r\n")
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, 180, body=False)
    net.answer("agent", invite, 183)
    ringing = net.response("trunk", 180)
    assert net.quiet("trunk")  # the second waits for the PRACK of the first
    net.send("trunk", net.within("trunk", ringing, "PRACK", 2, headers=f"RAck: {ringing.get('RSeq')} 1 INVITE\r\n"))
    assert net.response("trunk", 200)
    early = net.response("trunk", 183)
    assert int(early.get("RSeq") or 0) == int(ringing.get("RSeq") or 0) + 1
    net.answer("agent", invite, 200)
    assert net.quiet("trunk")  # the 200 waits, since the 183 held a description
    net.send("trunk", net.within("trunk", early, "PRACK", 3, headers=f"RAck: {early.get('RSeq')} 1 INVITE\r\n"))
    assert net.response("trunk", 200).cseq[1] == "PRACK"
    assert net.response("trunk", 200).cseq[1] == "INVITE"
    net.send("agent", net.within("agent", invite, "OPTIONS", 3))
    assert not any(isinstance(m, Request) and m.method == "PRACK" for m in net.at["agent"])


def test_a_prack_that_fits_nothing_is_refused_and_one_that_never_comes_ends_the_call() -> None:
    net = Net()
    net.invite(headers="Require: 100rel\r\n")
    net.answer("agent", net.request("agent", "INVITE"), 183)
    early = net.response("trunk", 183)
    net.send("trunk", net.within("trunk", early, "PRACK", 2, headers="RAck: 99 1 INVITE\r\n"))
    assert net.response("trunk", 481)
    net.wait(33)
    assert net.response("trunk", 504)
    assert net.request("agent", "CANCEL")
    assert net.states()[-1] == ("ended", "prack-missing")


def test_update_in_an_early_dialog_changes_media_both_ways() -> None:
    for side, other, index, host, port in (
        ("trunk", "agent", 0, "192.0.2.1", 6400), ("agent", "trunk", 1, "198.51.100.1", 7400),
    ):  # fmt: skip
        net = Net()
        net.invite(headers="Supported: 100rel\r\n")
        invite = net.request("agent", "INVITE")
        net.answer("agent", invite, 183, headers=RELIABLE.format(1))
        early = net.response("trunk", 183)
        net.send("trunk", net.within("trunk", early, "PRACK", 2, headers=f"RAck: {early.get('RSeq')} 1 INVITE\r\n"))
        net.send("agent", net.request("agent", "PRACK").response(200))
        net.response("trunk", 200)
        mine: Request | Response = early if side == "trunk" else invite
        net.send(side, net.within(side, mine, "UPDATE", 3, SDP.format(host, port), "application/sdp"))
        update = net.request(other, "UPDATE")
        assert b"m=audio 4000" in update.body
        answer = update.response(200)
        answer.put_body(
            "application/sdp", SDP.format("192.0.2.1" if other == "trunk" else "198.51.100.1", 9000).encode()
        )
        net.send(other, answer)
        assert net.response(side, 200).cseq[1] == "UPDATE"
        assert net.agreed()[-1].legs[index].remote == (host, port)
        net.answer("agent", invite, 200, body=False)
        assert net.response("trunk", 200)


def test_offers_that_cross_are_refused() -> None:
    net = Net()
    ok, invite = net.establish()
    body = SDP.format("192.0.2.1", 6400)
    net.send("trunk", net.within("trunk", ok, "UPDATE", 2, body, "application/sdp"))
    assert net.request("agent", "UPDATE")
    net.send("agent", net.within("agent", invite, "UPDATE", 2, SDP.format("198.51.100.1", 7400), "application/sdp"))
    assert net.response("agent", 491)
    net.send("trunk", net.within("trunk", ok, "UPDATE", 3, body, "application/sdp"))
    assert net.response("trunk", 500)


def test_a_refused_update_leaves_media_as_it_was() -> None:
    net = Net()
    ok, _ = net.establish()
    before = len(net.agreed())
    net.send("trunk", net.within("trunk", ok, "UPDATE", 2, SDP.format("192.0.2.1", 6400), "application/sdp"))
    net.send("agent", net.request("agent", "UPDATE").response(488))
    assert net.response("trunk", 488)
    assert len(net.agreed()) == before
    net.reinvite("trunk", ok, 3)
    assert net.request("agent", "INVITE")


def test_a_bye_to_one_of_several_early_dialogs_ends_that_one_only() -> None:
    net = Net()
    net.invite()
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, 180, body=False, tag="one")
    net.answer("agent", invite, 180, body=False, tag="two")
    net.send("agent", net.within("agent", invite, "BYE", 2, tag="one"))
    assert net.response("agent", 200)
    net.answer("agent", invite, 200, tag="two")
    assert net.response("trunk", 200)


def test_the_same_call_by_two_ways_is_taken_once() -> None:
    net = Net()
    net.invite()
    net.request("agent", "INVITE")
    text = (
        "INVITE sip:204@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKother\r\nMax-Forwards: 69\r\n"
        "From: <sip:ann@example.org>;tag=tc1\r\nTo: <sip:204@example.com>\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\n"
        "Contact: <sip:ann@192.0.2.1>\r\n\r\n"
    )
    net.send("trunk", text)
    assert net.response("trunk", 482)
    assert net.quiet("agent")
