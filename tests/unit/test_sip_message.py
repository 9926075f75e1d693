"""Parsing: without loss, capped, and errors that never echo what came."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sip import limits, sdp
from sip.errors import PeerError
from sip.headers.address import Address
from sip.headers.via import Via
from sip.hop import Hop
from sip.message import Request, Response, parse
from sip.uri import Uri

INVITE = (
    "INVITE sip:204@10.0.0.1:5060;user=phone SIP/2.0\r\n"
    "v: SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bKabc;rport\r\n"
    "Via: SIP/2.0/UDP 198.51.100.2 ;branch=z9hG4bKdef, SIP/2.0/UDP 203.0.113.9\r\n"
    "Max-Forwards: 69\r\n"
    'f: "Ann, Q. \\"A\\"" <sip:ann@example.org>;tag=1\r\n'
    "To: <sip:204@example.com>\r\n"
    "Call-ID: a84b4c76e66710\r\n"
    "CSeq: 314159 INVITE\r\n"
    "Subject: folded\r\n  over lines\r\n"
    "X-Odd: one\r\nX-odd: two\r\n"
    "Contact: <sip:ann@192.0.2.1:5062>\r\n"
    "Content-Type: application/sdp\r\n"
    "Content-Length: 4\r\n\r\nv=0\nrest"
)


def test_a_message_keeps_order_spelling_and_repetitions() -> None:
    message = parse(INVITE.encode())
    assert isinstance(message, Request)
    names = [name for name, _ in message.headers]
    assert names[:4] == ["v", "Via", "Max-Forwards", "f"]
    assert [value for name, value in message.headers if name.lower() == "x-odd"] == ["one", "two"]
    assert message.get("Subject") == "folded over lines"
    assert message.every("Via") == [
        "SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bKabc;rport",
        "SIP/2.0/UDP 198.51.100.2 ;branch=z9hG4bKdef",
        "SIP/2.0/UDP 203.0.113.9",
    ]
    assert bytes(message.body) == b"v=0\n"
    assert message.from_.display == '"Ann, Q. \\"A\\""'
    assert message.cseq == (314159, "INVITE")


def test_what_is_written_can_be_read_again() -> None:
    message = parse(INVITE.encode())
    again = parse(message.encode())
    assert again.headers[:-1] == [h for h in message.headers if h[0].lower() != "content-length"]
    assert again.body == message.body


BROKEN = {
    "no end": b"INVITE sip:a@b SIP/2.0\r\nVia: x",
    "no Via": INVITE.replace("v: SIP", "X: SIP").replace("Via: SIP", "X: SIP").encode(),
    "version": INVITE.replace(" SIP/2.0\r\n", " SIP/3.0\r\n", 1).encode(),
    "twice": INVITE.replace("Max-Forwards: 69", "Call-ID: other").encode(),
    "cseq method": INVITE.replace("314159 INVITE", "314159 BYE").encode(),
    "cseq number": INVITE.replace("314159", "99999999999").encode(),
    "quote": INVITE.replace('\\"A\\""', '\\"A').encode(),
    "length": INVITE.replace("Content-Length: 4", "Content-Length: 4000").encode(),
    "negative length": INVITE.replace("Content-Length: 4", "Content-Length: -4").encode(),
    "header": INVITE.replace("Max-Forwards: 69", "4111111111111111").encode(),
    "too large": INVITE.replace("69", "6" * 70000).encode(),
    "headers too large": INVITE.replace("one", "1" * limits.HEADER_BYTES).encode(),
    "too many": INVITE.replace("X-Odd: one\r\n", "X-Odd: one\r\n" * 300).encode(),
    "vias": INVITE.replace("198.51.100.2 ;branch=z9hG4bKdef", ", SIP/2.0/UDP ".join(["1.1.1.1"] * 80)).encode(),
    "control character": INVITE.replace("X-Odd: one", "X-Odd: o\rX-Evil: 1").encode(),
    "control character in a fold": INVITE.replace("over lines", "over\rX-Evil: 1").encode(),
    "null in a fold": INVITE.replace("over lines", "over\0lines").encode(),
    "null in the request line": INVITE.replace("sip:204@", "sip:2\0@", 1).encode(),
    "empty": b"",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused_without_an_echo(name: str) -> None:
    with pytest.raises(PeerError) as caught:
        parse(BROKEN[name])
    assert "4111" not in str(caught.value)
    assert "Ann" not in str(caught.value)
    assert 400 <= caught.value.status < 700


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_nothing_but_a_peer_error_leaves_the_parser(data: st.DataObject) -> None:
    raw = bytearray(INVITE.encode())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        message = parse(bytes(raw))
    except PeerError:
        return
    assert isinstance(message, Request | Response)
    parse(message.encode())


@pytest.mark.parametrize(
    "text",
    ["sip:204@10.0.0.1", "sips:a@[2001:db8::1]:5061;lr", "sip:10.0.0.1:5060;transport=udp?x=y", "sip:+1;ext=2@h"],
)
def test_uris_are_written_as_they_were_read(text: str) -> None:
    assert str(Uri.parse(text)) == text


@pytest.mark.parametrize(("text", "status"), [("tel:+123", 416), ("sip:", 400), ("sip:a@b:99999", 400), ("x", 400)])
def test_other_uris_are_refused(text: str, status: int) -> None:
    with pytest.raises(PeerError) as caught:
        Uri.parse(text)
    assert caught.value.status == status


@pytest.mark.parametrize("text", ["<sip:a@b>;tag=1", '"A <x>" <sip:a@b;lr>;q=1', "Ann <tel:+1>"])
def test_addresses_are_written_as_they_were_read(text: str) -> None:
    assert str(Address.parse(text)) == text


def test_responses_go_where_rfc_3581_says() -> None:
    plain = Via.parse("SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1")
    assert plain.reply_to(Hop("203.0.113.5", 4444)) == Hop("203.0.113.5", 5070)
    assert str(plain.received_from(Hop("203.0.113.5", 4444))).endswith(";received=203.0.113.5")
    rport = Via.parse("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport")
    assert rport.reply_to(Hop("203.0.113.5", 4444)) == Hop("203.0.113.5", 4444)
    assert "rport=4444" in str(rport.received_from(Hop("203.0.113.5", 4444)))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_nothing_but_a_peer_error_leaves_the_sdp_parser(text: str) -> None:
    try:
        sdp.parse(("v=0\r\n" + text).encode("utf-8", "surrogatepass"))
    except PeerError as error:
        assert error.status == 488
