"""What an attack on the signalling found: each finding as a test."""

import time

import pytest

from sip import digest, digits, sdp
from sip.digest import Credentials
from sip.errors import PeerError
from sip.framing import Framer
from sip.message import Request, Response, parse
from sip.shown import shown
from tests.fixtures.sipnet import SDP, Net

MULTIPART = "multipart/mixed;boundary=b"
KEY_PART = "--b\r\nContent-Type: application/dtmf-relay\r\n\r\nSignal=5\r\n"
SDP_PART = "--b\r\nContent-Type: application/sdp\r\n\r\n{0}\r\n"
ISUP_PART = "--b\r\nContent-Type: application/isup;version=x\r\nContent-Disposition: signal\r\n\r\n\x01\x02\x03\r\n"


def parts(*each: str) -> str:
    return "".join(each) + "--b--\r\n"


def reaches_agent(net: Net) -> bytes:
    return b"".join(m.encode() for m in net.at["agent"])


@pytest.mark.parametrize("mode", ["guarded", "armed"])
def test_a_refer_from_the_trunk_leads_no_agent_past_this_box(mode: str) -> None:
    net = Net(trunk={"refer": "pass"})
    ok, _ = net.establish()
    net.call.mode = mode
    dialog = net.call.fork.dialogs[0]
    replaces = f"{dialog.call_id}%3Bto-tag%3D{dialog.local.tag}%3Bfrom-tag%3D{dialog.remote.tag}"
    for cseq, target in ((2, f"<sip:5@192.0.2.66?Replaces={replaces}>"), (3, "<sip:5@192.0.2.66>")):
        refer = net.within("trunk", ok, "REFER", cseq, headers=f"Refer-To: {target}\r\n")
        net.send("trunk", refer)
        assert net.response("trunk", 603)
    text = net.within("trunk", ok, "REFER", 4, "Signal=5", "application/dtmf-relay", "Refer-To: <sip:5@192.0.2.66>\r\n")
    net.send("trunk", text)
    assert net.response("trunk", 200)  # the key is kept
    assert net.quiet("agent")


@pytest.mark.parametrize("mode", ["guarded", "armed"])
@pytest.mark.parametrize(
    ("method", "kind", "body"),
    [
        ("MESSAGE", MULTIPART, parts(KEY_PART)),
        ("NOTIFY", MULTIPART, parts("--b\r\n\r\n5\r\n")),
        ("MESSAGE", "text/plain", "5"),
        ("MESSAGE", "text/plain", "\r\n\r\nSignal=5"),
        ("SUBSCRIBE", "application/x", "digit: 5"),
        ("INFO", "application/media_control+xml", "<media_control>5</media_control>"),
        ("INFO", "application/media_control+xml", "Signal=5"),
    ],
)
def test_no_method_carries_a_key_to_the_agent(mode: str, method: str, kind: str, body: str) -> None:
    net = Net()
    ok, _ = net.establish()
    net.call.mode = mode
    net.send("trunk", net.within("trunk", ok, method, 2, body, kind))
    assert net.quiet("agent")


def test_parts_of_an_invite_pass_but_keys_do_not() -> None:
    """Multipart with ISUP passes, before the call and in it; a part that may be a key never, and nothing while armed."""
    net = Net()
    body = parts(SDP_PART.format(SDP.format("192.0.2.1", 6000)), ISUP_PART, KEY_PART)
    text = (
        "INVITE sip:204@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKm\r\nMax-Forwards: 70\r\n"
        "From: <sip:ann@example.org>;tag=m\r\nTo: <sip:204@example.com>\r\nCall-ID: m\r\nCSeq: 1 INVITE\r\n"
        f"Contact: <sip:ann@192.0.2.1>\r\nMIME-Version: 1.0\r\nContent-Type: {MULTIPART}\r\n\r\n{body}"
    )
    net.send("trunk", text)
    invite = net.request("agent", "INVITE")
    assert b"application/isup" in invite.body
    assert b"\x01\x02\x03" in invite.body
    assert b"10.0.0.2" in invite.body
    assert b"192.0.2.1" not in invite.body
    assert b"Signal" not in invite.body
    net.answer("agent", invite)
    ok = net.response("trunk", 200)
    net.send("trunk", net.within("trunk", ok, "ACK", 1))
    net.call.mode = "armed"
    net.call.capturing = False
    net.at["agent"].clear()
    net.send("trunk", net.within("trunk", ok, "INVITE", 2, body, MULTIPART))
    assert b"isup" not in reaches_agent(net)


def test_a_key_in_an_answer_stays_here() -> None:
    net = Net()
    _, invite = net.establish()
    net.send("agent", net.within("agent", invite, "MESSAGE", 3, "hello there", "text/plain"))
    answer = net.request("trunk", "MESSAGE").response(200)
    answer.put_body("application/dtmf-relay", b"Signal=5")
    net.send("trunk", answer)
    assert not net.response("agent", 200).body


def test_while_armed_only_known_headers_and_own_words_reach_the_agent() -> None:
    net = Net()
    ok, invite = net.establish()
    net.arm()
    net.send("trunk", net.within("trunk", ok, "MESSAGE", 2, headers="X-Dtmf: 5\r\nSubject: 5\r\nDate: today\r\n"))
    message = net.request("agent", "MESSAGE")
    assert (message.get("X-Dtmf"), message.get("Subject"), message.get("Date")) == (None, None, "today")
    net.send("agent", net.within("agent", invite, "OPTIONS", 3))
    net.send("agent", net.within("agent", invite, "INFO", 4, "x", "text/plain"))
    answer = net.request("trunk", "INFO").response(200, "Keyed 5")
    net.send("trunk", answer)
    assert b"Keyed" not in reaches_agent(net)


@pytest.mark.parametrize("evil", ["\r", "\x0b", "\x00", "\u2028"])
def test_nothing_of_a_peers_description_makes_a_line_of_its_own(evil: str) -> None:
    body = SDP.format("192.0.2.1", 6000) + f"a=fmtp:101 0-15{evil}m=audio 7777 RTP/AVP 0{evil}c=IN IP4 192.0.2.66\r\n"
    with pytest.raises(PeerError):
        sdp.parse(body.encode())
    kept = sdp.parse((SDP.format("192.0.2.1", 6000) + "a=fmtp:101 0-15 x=192.0.2.66\r\n").encode())
    assert kept.media[0].fmtp == {}


def test_passthrough_is_over_with_the_message_that_ends_it() -> None:
    """What comes in the same breath is masked already, and media is guarded before it is agreed."""
    net = Net("passthrough", route={"guard_on": frozenset({"answer"})})
    net.invite()
    net.answer("agent", net.request("agent", "INVITE"))
    ok = net.response("trunk", 200)
    assert net.call.mode == "guarded"
    kinds = [type(e).__name__ for e in net.events]
    assert kinds.index("GuardWanted") < kinds.index("MediaAgreed")
    net.send("trunk", net.within("trunk", ok, "INFO", 2, "Signal=5", "application/dtmf-relay"))
    assert not [m for m in net.at["agent"] if isinstance(m, Request) and m.method == "INFO"]


def test_what_is_shown_has_no_parameters_that_may_be_keys() -> None:
    text = (
        "INFO sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\n"
        "Call-ID: i\r\nCSeq: 1 INFO\r\nInfo-Package: dtmf;key=5\r\nEvent: kpml;digit=5\r\n"
        "Content-Type: application/x;key=5\r\nContent-Length: 8\r\n\r\nSignal=5"
    )
    assert "=5" not in shown(parse(text.encode()))


@pytest.mark.parametrize(
    ("kind", "body", "events"),
    [
        ("application/dtmf-relay", "Duration=160\r\nSignal=5\r\n", (5,)),
        ("application/kpml-response+xml", "<kpml-response digits = '5'/>", (5,)),
        ("application/kpml-response+xml", '<k:kpml-response xmlns:k="u" code="200" digits="12#"/>', (1, 2, 11)),
    ],
)
def test_keys_are_read_however_they_are_written(kind: str, body: str, events: tuple[int, ...]) -> None:
    request = Request([("Content-Type", kind)], bytearray(body.encode()), "INFO", "sip:a@b")
    found = digits.take(request)
    assert (found.events, found.good) == (events, True)
    assert not any(request.body)


def test_octets_that_are_no_text_harm_nobody() -> None:
    net = Net()
    data = (
        b"INVITE sip:2\xff4@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\nMax-Forwards: 70\r\n"
        b"From: <sip:a\xfe@example.org>;tag=1\r\nTo: <sip:204@example.com>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n"
        b"Contact: <sip:a@192.0.2.1>\r\n\r\n"
    )
    net.send("trunk", data)
    assert net.request("agent", "INVITE")
    for text in (net.call.called, net.call.caller, net.call.number):
        text.encode()  # what becomes a message between processes is text


def test_replaces_without_an_offer_loses_nobody() -> None:
    net = Net()
    net.establish()
    mine = net.call.fork.dialogs[1]
    headers = f"Replaces: {mine.call_id};to-tag={mine.local.tag};from-tag={mine.remote.tag}\r\n"
    net.invite("agent", body=False, headers=headers, call="takeover")
    ok = net.response("agent", 200)
    assert b"m=audio 40002" in ok.body
    ack = net.within("agent", ok, "ACK", 1, SDP.format("198.51.100.9", 7700), "application/sdp")
    net.send("agent", ack)
    assert net.agreed()[-1].legs[1].remote == ("198.51.100.9", 7700)
    assert net.call.state == "answered"


def test_a_200_beyond_the_forks_that_are_kept_is_still_answered() -> None:
    net = Net()
    net.invite()
    invite = net.request("agent", "INVITE")
    for i in range(14):
        net.answer("agent", invite, 180, body=False, tag=f"t{i}")
    net.answer("agent", invite, 200, tag="last")
    ok = net.response("trunk", 200)
    net.send("trunk", net.within("trunk", ok, "ACK", 1))
    assert net.request("agent", "ACK").to.tag == "last"


@pytest.mark.parametrize("trigger", ["max-forwards", "no answer", "bad contact"])
def test_an_offer_that_comes_to_nothing_does_not_stick(trigger: str) -> None:
    net = Net()
    ok, _ = net.establish()
    body = SDP.format("192.0.2.1", 6100)
    if trigger == "max-forwards":
        text = net.within("trunk", ok, "INVITE", 2, body, "application/sdp")
        net.send("trunk", text.replace("Max-Forwards: 70", "Max-Forwards: 0"))
        assert net.response("trunk", 483)
    else:
        net.send("trunk", net.within("trunk", ok, "UPDATE", 2, body, "application/sdp"))
        answer = net.request("agent", "UPDATE").response(200)
        if trigger == "bad contact":
            answer.headers.append(("Contact", "<tel:5>"))
            answer.put_body("application/sdp", SDP.format("198.51.100.1", 7000).encode())
        net.send("agent", answer)
        assert isinstance(net.take("trunk"), Response)
    net.at["trunk"].clear()
    net.reinvite("trunk", ok, 3)
    assert net.request("agent", "INVITE")


def test_a_reinvite_never_pracked_does_not_stick() -> None:
    net = Net()
    ok, _ = net.establish()
    text = net.within(
        "trunk", ok, "INVITE", 2, SDP.format("192.0.2.1", 6100), "application/sdp", "Supported: 100rel\r\n"
    )
    net.send("trunk", text)
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, 183, headers="Require: 100rel\nRSeq: 1")
    net.answer("agent", invite, 200)
    net.wait(33)
    assert net.response("trunk", 504)
    assert net.request("agent", "ACK")
    assert net.call.state == "answered"
    assert net.call.exchange is None


def test_twenty_transfers_leave_nothing_behind() -> None:
    net = Net()
    _, invite = net.establish()
    tag = "bagent"
    for i in range(20):
        headers = f"Refer-To: <sip:{300 + i}@198.51.100.1>\r\n"
        net.send(
            "agent",
            net.within("agent", invite, "REFER", 50, headers=headers, tag=tag).replace("z9hG4bK", f"z9hG4bK{i}"),
        )
        invite = next(m for m in net.at["agent"] if isinstance(m, Request) and m.method == "INVITE")
        tag = f"n{i}"
        net.answer("agent", invite, tag=tag)
        net.at["agent"].clear()
        net.at["trunk"].clear()
    net.wait(100)
    assert len(net.box.core.by_call_id) == 2
    net.box.hang_up(net.call.id, "test", net.now)
    net._settle()
    net.wait(100)
    assert (len(net.box.core.dialogs), len(net.box.core.by_call_id), len(net.box.core.alarms)) == (0, 0, 0)


def test_answers_of_a_party_that_was_replaced_touch_nobody() -> None:
    """The caller's re-INVITE was at the first agent when the transfer came through."""
    net = Net()
    ok, invite = net.establish()
    net.reinvite("trunk", ok, 2)
    old = net.request("agent", "INVITE")
    net.send("agent", net.within("agent", invite, "REFER", 5, headers="Refer-To: <sip:305@198.51.100.1>\r\n"))
    onward = next(m for m in net.at["agent"] if isinstance(m, Request) and m.method == "INVITE")
    net.answer("agent", onward, tag="new")
    assert net.response("trunk", 491)  # the caller may try again
    net.at["agent"].clear()
    net.send("agent", old.response(481, tag="bagent"))
    assert net.call.state == "answered"
    net.reinvite("trunk", ok, 3)
    assert net.request("agent", "INVITE").to.tag == "new"


@pytest.mark.parametrize("method", ["BYE", "REFER", "INFO"])
def test_every_request_gets_credentials_where_they_are_asked_for(method: str) -> None:
    net = Net(agent={"credentials": Credentials("box", "s")})
    ok, invite = net.establish()
    if method == "BYE":
        net.send("trunk", net.within("trunk", ok, "BYE", 2))
    elif method == "REFER":
        net.send("agent", net.within("agent", invite, "REFER", 5, headers="Refer-To: <sip:305@198.51.100.1>\r\n"))
        method = "INVITE"
    else:
        from tests.unit.test_b2bua import PICTURE

        net.send("trunk", net.within("trunk", ok, "INFO", 2, PICTURE, "application/media_control+xml"))
    asked = net.request("agent", method)
    challenge = asked.response(407, tag=asked.to.tag or "n")
    challenge.headers.append(("Proxy-Authenticate", 'Digest realm="r", nonce="n"'))
    net.send("agent", challenge)
    again = net.request("agent", method)
    assert again.get("Proxy-Authorization")
    assert again.cseq[0] == asked.cseq[0] + 1


def test_a_hop_that_answers_too_late_is_cancelled_and_hung_up() -> None:
    from sip.hop import Hop

    net = Net(agent={"hops": [Hop("198.51.100.1", 5060), Hop("198.51.100.2", 5060)]})
    net.invite()
    first = net.request("agent", "INVITE")
    net.wait(4.1)
    net.at["agent"] = [m for m in net.at["agent"] if m.via.branch != first.via.branch]
    second = net.request("agent", "INVITE")
    net.answer("agent", first, 180, body=False, tag="late")
    assert net.request("agent", "CANCEL").via.branch == first.via.branch
    net.answer("agent", first, 200, tag="late")
    assert net.request("agent", "ACK").to.tag == "late"
    assert net.request("agent", "BYE").to.tag == "late"
    net.answer("agent", second)
    assert net.response("trunk", 200)


def test_a_subscription_that_ended_does_not_end_the_call() -> None:
    net = Net()
    _, invite = net.establish()
    net.send(
        "agent", net.within("agent", invite, "NOTIFY", 3, headers="Event: presence\r\nSubscription-State: active\r\n")
    )
    net.send("trunk", net.request("trunk", "NOTIFY").response(481))
    assert net.response("agent", 481)
    assert net.call.state == "answered"


def test_a_folded_line_is_no_length() -> None:
    framer = Framer()
    head = b"OPTIONS sip:a SIP/2.0\r\nSubject: x\r\n l: 5\r\nContent-Length: 2\r\n\r\n"
    assert [bytes(m) for m in framer.receive(head + b"ab\r\n\r\n")] == [head + b"ab", b"\r\n\r\n"]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_stream_is_followed_however_it_is_cut(size: int) -> None:
    message = b"OPTIONS sip:a SIP/2.0\r\nl: 3\r\n\r\nabc"
    data = b"\r\n\r\n" + message * 3 + b"\r\n" + message
    framer, found = Framer(), []
    for at in range(0, len(data), size):
        found += [bytes(m) for m in framer.receive(data[at : at + size])]
    assert found == [b"\r\n\r\n", message, message, message, message]


def test_a_stream_without_a_length_cannot_be_followed() -> None:
    for text in (b"OPTIONS sip:a SIP/2.0\r\n\r\n", b"OPTIONS sip:a SIP/2.0\r\nl: 1\r\nContent-Length: 2\r\n\r\n"):
        with pytest.raises(PeerError):
            Framer().receive(text)


def test_time_grows_with_a_challenge_and_a_stream_and_no_faster() -> None:
    def challenge(n: int) -> float:
        response = Response([("WWW-Authenticate", "Digest " + "a" * n)], bytearray(), status=401)
        begun = time.process_time()
        for _ in range(5):
            digest.read(response)
        return time.process_time() - begun

    def stream(n: int) -> float:
        head = b"OPTIONS sip:a SIP/2.0\r\n" + b"X: y\r\n" * 1500 + b"Content-Length: 60000\r\n\r\n"
        framer = Framer()
        framer.receive(head)
        begun = time.process_time()
        for _ in range(n):
            framer.receive(b"x")
        return time.process_time() - begun

    for spent, n in ((challenge, 8000), (stream, 2000)):
        least = [min(spent(k) for _ in range(5)) for k in (n, 2 * n)]
        assert least[1] <= 2.5 * least[0] + 0.002


def invite_with(body: str, kind: str = MULTIPART, extra: str = "") -> str:
    return (
        "INVITE sip:204@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKw\r\nMax-Forwards: 70\r\n"
        "From: <sip:ann@example.org>;tag=w\r\nTo: <sip:204@example.com>\r\nCall-ID: w\r\nCSeq: 1 INVITE\r\n"
        f"Contact: <sip:ann@192.0.2.1>\r\n{extra}Content-Type: {kind}\r\n\r\n{body}"
    )


@pytest.mark.parametrize(
    "hidden",
    [
        "--b\r\nContent-Type:\r\n application/sdp\r\n\r\n{0}\r\n",
        "--b\r\nContent-Type: application/ sdp\r\n\r\n{0}\r\n",
        '--b\r\nContent-Type: "application/sdp"\r\n\r\n{0}\r\n',
        "--b\r\nContent-Type: text/plain\r\n\r\n{0}\r\n",
        "--b\r\nContent-Type: multipart/alternative;boundary=c\r\n\r\n--c\r\nContent-Type: application/sdp\r\n\r\n{0}\r\n--c--\r\n",
        "--b\r\nContent-Type: multipart/mixed;boundary=c\r\n\r\n--c\r\nContent-Type: application/dtmf-relay\r\n\r\nSignal=5\r\n--c--\r\n",
    ],
)
@pytest.mark.parametrize("optional", ["", "Content-Disposition: x;handling=optional\r\n"])
def test_nothing_hides_in_parts_of_parts(hidden: str, optional: str) -> None:
    raw = SDP.format("192.0.2.1", 6000)
    for body in (parts(hidden.format(raw), SDP_PART.format(raw)), parts(hidden.format(raw))):
        net = Net()
        net.send("trunk", invite_with(body, extra=optional))
        assert b"192.0.2.1" not in reaches_agent(net).replace(b"sip:ann@192.0.2.1", b"")
        assert b"Signal" not in reaches_agent(net)


@pytest.mark.parametrize("body", ["Duration=160\r\nSignal=5", "5\r\n5\r\n5", "4111 1111", "x\r\n  digits: 5"])
def test_keys_are_seen_wherever_they_stand_in_a_text(body: str) -> None:
    net = Net()
    ok, _ = net.establish()
    net.send("trunk", net.within("trunk", ok, "MESSAGE", 2, body, "Text/Plain"))
    assert net.quiet("agent")


def test_an_update_answered_by_a_party_that_was_replaced_changes_nothing() -> None:
    net = Net()
    ok, invite = net.establish()
    net.send("trunk", net.within("trunk", ok, "UPDATE", 2, SDP.format("192.0.2.1", 6100), "application/sdp"))
    old = net.request("agent", "UPDATE")
    net.send("agent", net.within("agent", invite, "REFER", 5, headers="Refer-To: <sip:305@198.51.100.1>\r\n"))
    net.answer("agent", net.request("agent", "INVITE"), tag="new")
    target = net.call.fork.dialogs[1].target
    answer = old.response(200, tag="bagent")
    answer.headers += [("Contact", "<sip:old@198.51.100.1>"), ("Session-Expires", "90;refresher=uas")]
    answer.put_body("application/sdp", SDP.format("198.51.100.1", 7999).encode())
    net.send("agent", answer)
    assert net.response("trunk", 491).cseq[1] == "UPDATE"
    assert net.call.fork.dialogs[1].target == target
    net.wait(200)
    assert net.call.state == "answered"


@pytest.mark.parametrize("broken", ["Contact: <tel:5>", "Session-Expires: x"])
def test_a_transfer_whose_answer_cannot_be_read_fails_cleanly(broken: str) -> None:
    net = Net()
    _, invite = net.establish()
    net.send("agent", net.within("agent", invite, "REFER", 5, headers="Refer-To: <sip:305@198.51.100.1>\r\n"))
    onward = net.request("agent", "INVITE")
    answer = onward.response(200, tag="new")
    name, value = broken.split(": ")
    answer.headers += [(name, value)] + ([("Contact", "<sip:n@198.51.100.1>")] if name != "Contact" else [])
    answer.put_body("application/sdp", SDP.format("198.51.100.1", 7000).encode())
    net.send("agent", answer)
    assert net.request("agent", "ACK").to.tag == "new"
    assert [m for m in net.at["agent"] if isinstance(m, Request) and m.method == "BYE" and m.to.tag == "new"]
    assert (net.call.state, net.call.transfer) == ("answered", None)


def test_octets_that_are_no_text_in_a_call_id_can_be_told() -> None:
    net = Net()
    net.send(
        "trunk",
        invite_with("", "text/plain").replace("Call-ID: w", "Call-ID: \udcff").encode("utf-8", "surrogateescape"),
    )
    for text in net.call.call_ids:
        text.encode()


def test_a_redirection_leads_no_agent_past_this_box() -> None:
    net = Net()
    net.invite("agent")
    net.answer("trunk", net.request("trunk", "INVITE"), 302, body=False)
    assert net.response("agent", 302).get("Contact") is None


# What an interoperability laboratory found


def test_a_cancel_is_answered_with_the_tag_of_the_invite() -> None:
    net = Net()
    net.invite()
    net.answer("agent", net.request("agent", "INVITE"), 180, body=False)
    ringing = net.response("trunk", 180)
    cancel = (
        "CANCEL sip:204@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKc1\r\nMax-Forwards: 70\r\n"
        "From: <sip:ann@example.org>;tag=tc1\r\nTo: <sip:204@example.com>\r\nCall-ID: c1\r\nCSeq: 1 CANCEL\r\n\r\n"
    )
    net.send("trunk", cancel)
    assert net.response("trunk", 200).to.tag == ringing.to.tag


def test_a_prack_that_comes_after_the_200_is_still_taken() -> None:
    net = Net()
    net.invite(headers="Supported: 100rel\r\n")
    invite = net.request("agent", "INVITE")
    net.answer("agent", invite, 180, body=False, headers="Require: 100rel\nRSeq: 4")
    ringing = net.response("trunk", 180)
    net.answer("agent", invite)
    assert net.response("trunk", 200)
    rack = f"RAck: {ringing.get('RSeq')} 1 INVITE\r\n"
    net.send("trunk", net.within("trunk", ringing, "PRACK", 2, headers=rack))
    prack = net.request("agent", "PRACK")
    assert prack.get("RAck") == f"4 {invite.cseq[0]} INVITE"
    net.send("agent", prack.response(200))
    assert net.response("trunk", 200).cseq[1] == "PRACK"


def test_the_body_of_a_bye_passes_where_bodies_may() -> None:
    for mode, body in (("guarded", b"\x0c\x02"), ("armed", b"")):
        net = Net()
        ok, _ = net.establish()
        net.call.mode = mode
        net.send("trunk", net.within("trunk", ok, "BYE", 2, "\x0c\x02\x00rel", "application/isup"))
        assert bytes(net.request("agent", "BYE").body[:2]) == body


def test_who_is_connected_now_passes_in_an_update() -> None:
    net = Net()
    _, invite = net.establish()
    net.send("agent", net.within("agent", invite, "UPDATE", 3, headers="P-Asserted-Identity: <sip:305@x>\r\n"))
    update = net.request("trunk", "UPDATE")
    assert update.get("P-Asserted-Identity") == "<sip:305@x>"
    net.send("trunk", update.response(200))
    assert net.response("agent", 200).cseq[1] == "UPDATE"


def test_min_se_of_a_422_is_repeated_and_a_500_says_when_to_come_back() -> None:
    net = Net(agent={"session_seconds": 300})
    net.invite()
    net.answer("agent", net.request("agent", "INVITE"), 422, body=False, headers="Min-SE: 900")
    assert net.request("agent", "INVITE").get("Min-SE") == "900"
    net = Net()
    ok, _ = net.establish()
    net.reinvite("trunk", ok, 2)
    net.send("trunk", net.within("trunk", ok, "INVITE", 3).replace("z9hG4bK", "z9hG4bKx"))
    assert 0 < int(net.response("trunk", 500).get("Retry-After") or 0) <= 10


@pytest.mark.parametrize("method", ["SUBSCRIBE", "REFER"])
def test_a_2xx_that_makes_a_subscription_has_a_contact(method: str) -> None:
    net = Net(agent={"refer": "pass"})
    _, invite = net.establish()
    headers = "Event: presence\r\nExpires: 60\r\n" if method == "SUBSCRIBE" else "Refer-To: <sip:305@x>\r\n"
    net.send("agent", net.within("agent", invite, method, 3, headers=headers))
    net.send("trunk", net.request("trunk", method).response(202))
    assert "10.0.0.2" in (net.response("agent", 202).get("Contact") or "")
