"""Calls to and from registered browsers: all ring, one answers, and nobody is who they are not."""

from __future__ import annotations

from typing import Any

import pytest

from sip.hop import WSS, Hop
from sip.message import Request, Response
from tests.fixtures.sipnet import SDP, Net

PLACES = [
    (Hop("203.0.113.1", 50_000 + i, WSS, i, f"/204/{i}"), f"sip:b{i}@{i}.invalid;transport=ws") for i in (1, 2, 3)
]


def net(places: list[Any] = PLACES) -> Net:
    """A box whose agent side is registered browsers. They speak plain RTP here: signalling alone is looked at."""
    made = Net(agent={"registered": True, "hops": [], "sources": ()})
    made.box.core.site.sip["agent", WSS] = ("10.0.0.2", 7443)
    made.box.core.layer._sent_by["agent", WSS] = "10.0.0.2:7443"
    made.box.core.locate = lambda peer, number: list(places) if number == "204" else []
    return made


def say(box: Net, message: Request | Response | str, which: int = 1, name: str = "") -> None:
    """A message from browser `which`."""
    hop = PLACES[which - 1][0]
    data = message.encode()
    box.box.receive(bytearray(data), "agent", hop._replace(name=name or hop.name), box.now)
    box._settle()


def answer(invite: Request, status: int, which: int) -> Response:
    response = invite.response(status, tag=f"b{which}")
    response.headers.append(("Contact", f"<sip:b{which}@{which}.invalid;transport=ws>"))
    if 200 <= status < 300:
        response.put_body("application/sdp", SDP.format("203.0.113.1", 7000 + which).encode())
    return response


def ringing(box: Net) -> dict[int, Request]:
    """Every browser rings: its INVITE by its number."""
    box.invite()
    found = {int(r.uri[5]): r for r in box.at["agent"] if isinstance(r, Request) and r.method == "INVITE"}
    box.at["agent"].clear()
    for which, invite in found.items():
        say(box, answer(invite, 180, which), which)
    return found


def methods(box: Net) -> list[tuple[str, int]]:
    """(method, browser) of the requests that went to browsers since the last look."""
    found = [(r.method, int(r.uri[5])) for r in box.at["agent"] if isinstance(r, Request)]
    box.at["agent"].clear()
    return sorted(found)


def test_every_browser_rings_and_the_first_to_answer_has_the_call() -> None:
    box = net()
    invites = ringing(box)
    assert sorted(invites) == [1, 2, 3]
    assert {i.via.transport for i in invites.values()} == {"WSS"}
    assert len({i.via.branch for i in invites.values()}) == 3
    assert all("transport=ws" in (i.get("Contact") or "") for i in invites.values())
    say(box, answer(invites[2], 200, 2), 2)
    ok = box.response("trunk", 200)
    assert methods(box) == [("CANCEL", 1), ("CANCEL", 3)]
    for which in (1, 3):
        say(box, answer(invites[which], 487, which), which)
    assert box.states()[-1] == ("answered", "")
    box.at["agent"].clear()
    box.send("trunk", box.within("trunk", ok, "ACK", 1))
    assert methods(box) == [("ACK", 2)]
    box.send("trunk", box.within("trunk", ok, "BYE", 2))
    assert methods(box) == [("BYE", 2)]
    assert box.went[-1].name == "/204/2" or any(hop.name == "/204/2" for hop in box.went[-3:])
    box.wait(200)
    assert (len(box.box.calls), len(box.box.core.dialogs), len(box.box.core.layer)) == (0, 0, 0)


def test_two_that_answer_at_once_do_not_both_have_the_call() -> None:
    box = net()
    invites = ringing(box)
    say(box, answer(invites[1], 200, 1), 1)
    box.at["agent"].clear()
    say(box, answer(invites[3], 200, 3), 3)
    assert methods(box) == [("ACK", 3), ("BYE", 3)]
    assert box.states()[-1] == ("answered", "")


def test_the_caller_hears_no_only_when_all_have_said_so_and_hears_what_says_most() -> None:
    box = net()
    invites = ringing(box)
    say(box, answer(invites[1], 486, 1), 1)
    assert box.states() == [("ringing", "")]
    say(box, answer(invites[2], 480, 2), 2)
    say(box, answer(invites[3], 408, 3), 3)
    assert box.response("trunk", 486)
    assert box.states()[-1] == ("ended", "refused")


def test_one_that_declines_declines_for_all() -> None:
    box = net()
    invites = ringing(box)
    box.at["agent"].clear()
    say(box, answer(invites[2], 603, 2), 2)
    assert box.response("trunk", 603)
    assert [m for m in methods(box) if m[0] == "CANCEL"] == [("CANCEL", 1), ("CANCEL", 3)]


def test_a_caller_who_gives_up_stops_the_ringing_everywhere() -> None:
    box = net()
    ringing(box)
    box.at["agent"].clear()
    cancel = "CANCEL sip:204@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKc1\r\nMax-Forwards: 70\r\nFrom: <sip:ann@example.org>;tag=tc1\r\nTo: <sip:204@example.com>\r\nCall-ID: c1\r\nCSeq: 1 CANCEL\r\n\r\n"
    box.send("trunk", cancel)
    assert methods(box) == [("CANCEL", 1), ("CANCEL", 2), ("CANCEL", 3)]
    assert box.response("trunk", 487)


def test_nobody_registered_is_480() -> None:
    box = net([])
    box.invite()
    assert box.response("trunk", 480)
    assert not box.box.calls


def invite(number: str = "204", more: str = "") -> str:
    body = SDP.format("203.0.113.1", 7001)
    return (
        f"INVITE sip:5550100@flattone SIP/2.0\r\nVia: SIP/2.0/WSS x.invalid;branch=z9hG4bKo\r\nMax-Forwards: 70\r\nFrom: <sip:{number}@flattone>;tag=o\r\n"
        f"To: <sip:5550100@flattone>\r\nCall-ID: o1\r\nCSeq: 1 INVITE\r\nContact: <sip:b1@1.invalid;transport=ws>\r\n{more}"
        f"Content-Type: application/sdp\r\n\r\n{body}"
    )


def test_a_browser_calls_out_without_its_token_and_without_claims_of_who_it_is() -> None:
    box = net()
    say(
        box,
        invite(
            more="Authorization: Bearer secret.of.mine\r\nP-Asserted-Identity: <sip:+1@boss>\r\nX-Kept: yes\r\nIdentity: abc\r\n"
        ),
    )
    went = box.request("trunk", "INVITE")
    assert b"secret" not in went.encode()
    assert went.get("P-Asserted-Identity") is None
    assert went.get("Identity") is None
    assert went.get("X-Kept") == "yes"
    (call,) = box.box.calls.values()
    assert (call.number, call.agent_leg) == ("204", 0)


@pytest.mark.parametrize(("number", "name", "status"), [("205", "", 403), ("204", "/205/1", 403)])
def test_a_browser_calls_as_nobody_but_its_own_extension(number: str, name: str, status: int) -> None:
    box = net()
    say(box, invite(number), name=name)
    assert any(isinstance(m, Response) and m.status == status for m in box.at["agent"])
    assert not box.box.calls


def test_who_has_not_registered_or_is_of_another_tenant_is_a_stranger() -> None:
    for name in ("", "acme/204/1"):
        box = net()
        hop = PLACES[0][0]._replace(name=name)
        assert box.box.receive(bytearray(invite().encode()), "agent", hop, box.now) is None
        assert not box.box.calls


def test_candidates_that_come_later_are_taken_and_go_no_further() -> None:
    box = net()
    invites = ringing(box)
    say(box, answer(invites[2], 200, 2), 2)
    ok = box.response("trunk", 200)
    box.send("trunk", box.within("trunk", ok, "ACK", 1))
    box.pbx.srtp = "dtls"
    box.at["trunk"].clear()
    say(
        box, box.within("agent", invites[2], "INFO", 5, "a=candidate:1", "application/trickle-ice-sdpfrag", tag="b2"), 2
    )
    assert any(isinstance(m, Response) and m.status == 200 for m in box.at["agent"])
    assert box.quiet("trunk")
