"""Neighbours: which hop, with what credentials, under which policy, and how much of them."""

import hashlib
import re
from ipaddress import ip_network

import pytest

from sip import digest, offer_answer, sdp
from sip.b2bua.peers import HeaderRule, Peer, find_peer
from sip.digest import Credentials
from sip.hop import TCP, TLS, Hop
from sip.locate import Srv, in_order
from sip.message import Request, Response
from tests.fixtures.sipnet import CALLEE, SDP, Net

FIRST, SECOND = Hop("198.51.100.1", 5060), Hop("198.51.100.2", 5060)


def test_a_hop_that_says_nothing_is_passed_over_and_remembered() -> None:
    net = Net(agent={"hops": [FIRST, SECOND]})
    net.invite()
    assert net.went[-1] == FIRST
    net.wait(4.1)
    assert net.went[-1] == SECOND
    net.at["agent"].clear()
    net.invite(call="c2")
    assert net.went[-1] == SECOND  # the first is known to be down now
    assert net.box.counters["failovers"] == 1


@pytest.mark.parametrize("status", [503, 500])
def test_a_hop_that_refuses_for_itself_is_passed_over(status: int) -> None:
    net = Net(agent={"hops": [FIRST, SECOND]})
    net.invite()
    net.answer("agent", net.request("agent", "INVITE"), status, body=False)
    assert net.request("agent", "ACK")
    again = net.request("agent", "INVITE")
    assert net.went[-1] == SECOND
    net.answer("agent", again)
    assert net.response("trunk", 200)


@pytest.mark.parametrize("status", [486, 404, 603])
def test_a_refusal_of_the_called_one_is_no_reason_to_go_elsewhere(status: int) -> None:
    net = Net(agent={"hops": [FIRST, SECOND]})
    net.invite()
    net.answer("agent", net.request("agent", "INVITE"), status, body=False)
    assert net.response("trunk", status)


def test_what_cannot_be_sent_goes_to_the_next_hop() -> None:
    net = Net(agent={"hops": [FIRST, SECOND]})
    net.drop = {2}
    net.invite()
    sent = net.call.exchange
    assert sent is not None
    assert sent.client is not None
    from sip.transaction import Outgoing

    net.box.unsent(Outgoing(b"", "agent", FIRST, sent.client), net.now)
    net._settle()
    assert net.went[-1] == SECOND


def test_hops_are_asked_and_come_back() -> None:
    net = Net(agent={"hops": [FIRST, SECOND], "options_seconds": 30.0})
    net.box.start(net.now)
    net.wait(0.1)
    first, second = net.request("agent", "OPTIONS"), net.request("agent", "OPTIONS")
    net.send("agent", second.response(200))
    net.wait(5)
    assert net.box.core.down == {FIRST}
    net.wait(26)
    net.at["agent"] = [m for m in net.at["agent"] if m.call_id not in (first.call_id, second.call_id)]
    net.send("agent", net.request("agent", "OPTIONS").response(404))  # any answer will do
    assert not net.box.core.down


@pytest.mark.parametrize(
    ("algorithm", "hashed"), [("MD5", hashlib.md5), ("SHA-256", hashlib.sha256), ("", hashlib.md5)]
)
@pytest.mark.parametrize("status", [401, 407])
def test_a_peer_that_asks_for_credentials_gets_them(algorithm: str, hashed: object, status: int) -> None:
    net = Net(agent={"credentials": Credentials("box", "s3cret")})
    net.invite()
    invite = net.request("agent", "INVITE")
    extra = f", algorithm={algorithm}" if algorithm else ""
    name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    net.answer("agent", invite, status, body=False, headers=f'{name}: Digest realm="r", nonce="n1", qop="auth"{extra}')
    again = net.request("agent", "INVITE")
    assert again.cseq[0] == invite.cseq[0] + 1
    header = again.require("Authorization" if status == 401 else "Proxy-Authorization")
    values = {k: v.strip('"') for k, v in re.findall(r'(\w+)=("[^"]*"|[^,\s]+)', header)}

    def h(text: str) -> str:
        return hashed(text.encode()).hexdigest()  # type: ignore[operator,no-any-return]

    a1, a2 = h("box:r:s3cret"), h(f"INVITE:{again.uri}")
    assert values["response"] == h(f"{a1}:n1:{values['nc']}:{values['cnonce']}:auth:{a2}")
    net.answer("agent", again)
    assert net.response("trunk", 200)


def test_credentials_are_tried_once_a_nonce_and_a_refusal_passes() -> None:
    net = Net(agent={"credentials": Credentials("box", "wrong")})
    net.invite()
    for _ in range(2):
        challenge = 'WWW-Authenticate: Digest realm="r", nonce="n1", qop="auth"'
        net.answer("agent", net.request("agent", "INVITE"), 401, body=False, headers=challenge)
    assert net.response("trunk", 401)


def test_without_credentials_a_challenge_passes() -> None:
    net = Net()
    net.invite()
    challenge = 'Proxy-Authenticate: Digest realm="r", nonce="n1"'
    net.answer("agent", net.request("agent", "INVITE"), 407, body=False, headers=challenge)
    assert "n1" in (net.response("trunk", 407).get("Proxy-Authenticate") or "")


def test_the_examples_of_rfc_7616_are_answered_as_printed() -> None:
    """Section 3.9.1, with the client nonce that the RFC chose."""
    response = Response([], bytearray(), status=401)
    for kind in ("SHA-256", "MD5"):
        value = (
            'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={0}, '
            'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
        )
        response.headers = [("WWW-Authenticate", value.format(kind))]
        challenge = digest.read(response)
        assert challenge is not None
        request = Request(method="GET", uri="/dir/index.html")
        cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
        _, header = digest.answer(challenge, Credentials("Mufasa", "Circle of Life"), request, cnonce)
        wanted = {
            "SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            "MD5": "8ca523f5e9506fed4657c9700eebdbec",
        }
        assert f'response="{wanted[kind]}"' in header


def test_the_stronger_of_two_challenges_is_met() -> None:
    response = Response([], bytearray(), status=401)
    response.headers = [
        ("WWW-Authenticate", f'Digest realm="r", nonce="{kind}", algorithm={kind}') for kind in ("MD5", "SHA-256", "X")
    ]
    challenge = digest.read(response)
    assert challenge is not None
    assert challenge.algorithm == "SHA-256"


def test_a_peers_headers_are_stripped_set_and_rewritten() -> None:
    rules = (
        HeaderRule("strip", "X-Inner"),
        HeaderRule("set", "X-Site", "north"),
        HeaderRule("rewrite", "P-Asserted-Identity", r"<sip:+49\1@", re.compile(r"<sip:0(\d+)@")),
    )
    net = Net(agent={"rules": rules})
    net.invite(headers="X-Inner: a\r\nX-Site: south\r\nP-Asserted-Identity: <sip:030123@x>\r\n")
    invite = net.request("agent", "INVITE")
    assert invite.get("X-Inner") is None
    assert invite.lines("X-Site") == ["north"]
    assert invite.get("P-Asserted-Identity") == "<sip:+4930123@x>"


def test_the_trunk_may_not_name_a_call_and_the_agent_side_may() -> None:
    net = Net()
    net.invite(headers="X-Correlation-ID: forged\r\n")
    assert net.request("agent", "INVITE").get("X-Correlation-ID") is None
    assert net.call.correlation == ""
    net = Net()
    net.invite("agent", headers="X-Correlation-ID: crm-7\r\n")
    assert net.call.correlation == "crm-7"
    assert net.request("trunk", "INVITE").get("X-Correlation-ID") is None


def test_topology_is_hidden_where_asked() -> None:
    net = Net(agent={"hide_topology": True})
    net.invite(headers="P-Asserted-Identity: <sip:+1@192.0.2.77:5070>\r\nHistory-Info: <sip:9@192.0.2.88>;index=1\r\n")
    assert "192.0.2" not in net.request("agent", "INVITE").encode().decode()


def test_a_peer_that_asks_for_too_much_is_told_to_wait() -> None:
    net = Net(trunk={"requests_a_second": 2.0})
    for i in range(6):
        net.invite(call=f"c{i}")
    refused = [m for m in net.at["trunk"] if isinstance(m, Response) and m.status == 503]
    assert len(refused) == 2
    assert all(m.get("Retry-After") for m in refused)
    net.wait(1)
    net.at["trunk"].clear()
    net.invite(call="later")
    assert net.response("trunk", 100)


def test_who_speaks_is_told_by_address_transport_and_certificate() -> None:
    net = (ip_network("192.0.2.0/24"),)
    plain = Peer("plain", "trunk", [], (ip_network("198.51.100.0/24"),))
    one = Peer("one", "trunk", [], net, TLS, frozenset({"one.example"}))
    two = Peer("two", "trunk", [], net, TLS, frozenset({"two.example"}))
    peers = (plain, one, two)
    assert find_peer(peers, "trunk", Hop("198.51.100.9", 5060, TCP)) is plain
    assert find_peer(peers, "trunk", Hop("192.0.2.9", 5060)) is None
    assert find_peer(peers, "trunk", Hop("192.0.2.9", 5061, TLS, 1, "x,two.example")) is two
    assert find_peer(peers, "trunk", Hop("192.0.2.9", 5061, TLS, 1, "three.example")) is None
    assert find_peer(peers, "agent", Hop("198.51.100.9", 5060)) is None


def test_srv_records_are_tried_by_priority_and_weight() -> None:
    records = [Srv(20, 0, 1, "backup"), Srv(10, 60, 2, "big"), Srv(10, 20, 3, "small"), Srv(10, 0, 4, "never first")]
    assert [r.target for r in in_order(records, lambda n: n - 1)][-1] == "backup"
    counts = {"big": 0, "small": 0, "never first": 0}
    for draw in range(81):
        counts[in_order(records, lambda n, draw=draw: draw % n)[0].target] += 1
    assert counts == {"never first": 1, "small": 20, "big": 60}


def test_requests_over_a_stream_go_back_over_it() -> None:
    net = Net()
    ok, _ = net.establish()
    stream = Hop("192.0.2.1", 40123, TCP, 7)
    text = net.within("trunk", ok, "INFO", 2, "<x/>", "application/media_control+xml").replace("/UDP", "/TCP")
    net.box.receive(
        bytearray(text.replace("sip:x@192.0.2.1", "sip:x@192.0.2.1;transport=tcp").encode()), "trunk", stream, net.now
    )
    net._settle()
    net.box.hang_up(net.call.id, "test", net.now)
    net._settle()
    assert Hop("192.0.2.1", 5060, "UDP") in net.went
    net = Net(agent={"hops": [CALLEE._replace(transport=TCP)]})
    net.invite()
    invite = net.request("agent", "INVITE")
    assert invite.via.transport == TCP
    assert ";transport=tcp" in invite.require("Contact")
    net.wait(20)
    assert net.quiet("agent")  # nothing is repeated over a stream


KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd"
SECURE = (
    "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 6000 RTP/SAVP 0\r\na=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:x\r\n"
    f"a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^31\r\na=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n"
)


def secure_invite(net: Net) -> None:
    text = (
        "INVITE sip:204@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKs\r\nMax-Forwards: 70\r\n"
        "From: <sip:ann@example.org>;tag=s\r\nTo: <sip:204@example.com>\r\nCall-ID: s\r\nCSeq: 1 INVITE\r\n"
        f"Contact: <sip:ann@192.0.2.1>\r\nContent-Type: application/sdp\r\n\r\n{SECURE}"
    )
    net.send("trunk", text)


def test_srtp_on_one_side_is_plain_on_the_other() -> None:
    net = Net(trunk={"srtp": "required"})
    secure_invite(net)
    invite = net.request("agent", "INVITE")
    assert b"RTP/AVP" in invite.body
    assert b"crypto" not in invite.body
    net.answer("agent", invite)
    body = net.response("trunk", 200).body
    assert b"m=audio 40000 RTP/SAVP 0" in body
    lines = [line for line in body.decode().splitlines() if line.startswith("a=crypto")]
    assert len(lines) == 1
    assert lines[0].startswith("a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:")
    trunk, agent = net.agreed()[-1].legs
    assert trunk.keys is not None
    assert trunk.keys[0] == "AES_CM_128_HMAC_SHA1_32"
    assert trunk.keys[1] != trunk.keys[2]
    assert agent.keys is None
    assert KEY not in repr(net.events)


def test_srtp_is_offered_where_required_and_a_plain_answer_is_not_taken() -> None:
    net = Net(agent={"srtp": "required"})
    net.invite()
    invite = net.request("agent", "INVITE")
    assert b"RTP/SAVP" in invite.body
    assert invite.body.count(b"a=crypto:") == 4
    net.answer("agent", invite)  # RTP/AVP
    assert net.response("trunk", 488)
    assert net.request("agent", "BYE")


@pytest.mark.parametrize(("policy", "status"), [("off", 488), ("optional", 100), ("required", 100)])
def test_policy_decides_on_srtp(policy: str, status: int) -> None:
    net = Net(trunk={"srtp": policy})
    secure_invite(net)
    assert net.response("trunk", status)


def test_further_media_is_removed_or_refused() -> None:
    body = (
        SDP.format("192.0.2.1", 6000)
        + "m=video 7000 RTP/AVP 96\r\nm=image 7002 udptl t38\r\nm=text 7004 RTP/AVP 98\r\n"
    )
    stream = offer_answer.read(sdp.parse(body.encode()))
    assert len(stream.layout.sections) == 4
    with pytest.raises(offer_answer.PeerError):
        offer_answer.read(sdp.parse(body.encode()), alone=True)


def test_a_later_offer_keeps_the_sections_that_the_leg_has() -> None:
    """RFC 3264 section 8: never fewer m= lines than before."""
    net = Net()
    net.invite(body=False)
    text = SDP.format("192.0.2.1", 6000) + "m=video 7000 RTP/AVP 96\r\n"
    net = Net()
    original = net.send
    net.send = lambda side, message: original(  # type: ignore[method-assign]
        side, message.replace(SDP.format("192.0.2.1", 6000), text) if isinstance(message, str) else message
    )
    _, invite = net.establish()
    net.send = original  # type: ignore[method-assign]
    net.reinvite("agent", invite, 2)
    again = net.request("trunk", "INVITE")
    assert [line for line in again.body.decode().splitlines() if line.startswith("m=")] == [
        "m=audio 40000 RTP/AVP 0 8 101",
        "m=video 0 RTP/AVP 0",
    ]
