"""Browsers' descriptions: what is taken of them, what they are told, and which codec each side speaks in the end."""

from __future__ import annotations

from typing import Any

import pytest

from sip import offer_answer, sdp, webrtc
from sip.b2bua.negotiation import End, Negotiation
from sip.errors import PeerError
from sip.offer_answer import DTLS, G722, OPUS, PLAIN

FINGERPRINT = ":".join(f"{i:02X}" for i in range(32))
CHROME = f"""v=0
o=mozilla...THIS_IS_SDPARTA 4294967295 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=extmap-allow-mixed
a=msid-semantic: WMS 3f
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1 1 udp 2113937151 8d6f0c11-1c2d.local 54321 typ host generation 0 network-cost 999
a=ice-ufrag:Ab+/
a=ice-pwd:abcdefghijklmnopqrstuvwx
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT}
a=setup:actpass
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=sendrecv
a=msid:3f 4e
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:1 cname:x
"""
TRUNK = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 6000 RTP/AVP {0}\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\n"
CODECS = (OPUS, *PLAIN, G722)


def pair(**browser: Any) -> Negotiation:
    """A trunk leg and a browser's."""
    trunk = End("10.0.0.1", offer_answer.OFF, "1", port=40_000)
    settings = {"codecs": CODECS, "ice": ("ours", "p" * 24), "fingerprint": "AA:BB", "port": 40_002} | browser
    return Negotiation([trunk, End("10.0.0.2", DTLS, "2", **settings)])


def answered(offer: bytes, *payload_types: int, setup: str = "active") -> str:
    """What a browser answers to an offer of this box's: of its payload types those given."""
    lines = [line for line in offer.decode().split("\r\n") if line.startswith(("a=rtpmap", "a=fmtp"))]
    kept = [line for line in lines if int(line.split(":")[1].split()[0]) in payload_types]
    types = " ".join(map(str, payload_types))
    return "\r\n".join(
        ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0", f"m=audio 9 UDP/TLS/RTP/SAVPF {types}", "c=IN IP4 0.0.0.0",
         "a=ice-ufrag:zzzz", "a=ice-pwd:abcdefghijklmnopqrstuvwx", f"a=fingerprint:sha-256 {FINGERPRINT}", f"a=setup:{setup}", "a=mid:0",
         "a=rtcp-mux", *kept, ""]
    )  # fmt: skip


def test_a_call_to_a_browser_offers_its_codecs_best_first_and_never_red() -> None:
    media = pair()
    offer, agreed = media.pass_(0, TRUNK.format("0 8 101").encode(), final=False)
    text = offer.decode()
    assert not agreed
    assert "m=audio 40002 UDP/TLS/RTP/SAVPF 111 0 8 9 110 101" in text
    for line in (
        "a=ice-lite", "a=group:BUNDLE 0", "a=mid:0", "a=ice-ufrag:ours", "a=fingerprint:sha-256 AA:BB", "a=setup:actpass", "a=rtcp-mux",
        "a=rtpmap:111 opus/48000/2", "a=end-of-candidates", "a=rtpmap:110 telephone-event/48000",
    ):  # fmt: skip
        assert f"{line}\r\n" in text
    assert "10.0.0.2 40002 typ host" in text
    assert "red" not in text
    assert "192.0.2.1" not in text


def test_opus_and_g711_meet_here() -> None:
    media = pair()
    offer, _ = media.pass_(0, TRUNK.format("0 8 101").encode(), final=False)
    answer, agreed = media.pass_(1, answered(offer, 111, 110).encode(), final=True)
    assert agreed
    assert "m=audio 40000 RTP/AVP 0 101" in answer.decode()
    trunk, browser = media.media(0), media.media(1)
    assert trunk.coding is None
    assert trunk.receive == {0: "PCMU/8000", 101: "telephone-event/8000"}
    assert trunk.secured is None
    assert browser.coding is not None
    assert (browser.coding.encoding, browser.coding.audio, browser.coding.events) == (OPUS, (111, 111), (110, 110))
    assert dict(browser.coding.parameters)["useinbandfec"] == 1
    assert browser.secured is not None
    assert browser.secured.fingerprint == ("sha-256", FINGERPRINT)
    assert not browser.secured.active


def test_g711_on_both_sides_passes_as_it_is() -> None:
    media = pair()
    offer, _ = media.pass_(0, TRUNK.format("8 0 101").encode(), final=False)
    media.pass_(1, answered(offer, 8, 101).encode(), final=True)
    assert media.media(1).coding is None
    assert set(media.media(0).receive.values()) == {"PCMA/8000", "telephone-event/8000"}
    assert set(media.media(1).receive.values()) == {"PCMA/8000", "telephone-event/8000"}


@pytest.mark.parametrize(
    ("codecs", "trunk", "wanted"),
    [((OPUS, *PLAIN), "0 101", OPUS), ((PLAIN[0], OPUS), "0 101", PLAIN[0]), ((PLAIN[0], OPUS), "8 101", OPUS), ((G722, *PLAIN), "8", G722)],
)  # fmt: skip
def test_a_browser_that_calls_is_answered_in_its_best_codec(codecs: tuple[str, ...], trunk: str, wanted: str) -> None:
    media = pair(codecs=codecs)
    offer, _ = media.pass_(1, CHROME.encode(), final=False)
    assert "opus" not in offer.decode()
    assert "m=audio 40000 RTP/AVP 0" in offer.decode() or PLAIN[1] not in codecs
    answer, agreed = media.pass_(0, TRUNK.format(trunk).encode(), final=True)
    assert agreed
    audio = [line for line in answer.decode().split("\r\n") if line.startswith("a=rtpmap") and "telephone" not in line]
    assert len(audio) == 1
    assert wanted.partition("/")[0].lower() in audio[0].lower()
    assert "a=setup:passive\r\n" in answer.decode()
    assert "red" not in answer.decode()
    coding = media.media(1).coding
    assert (coding.encoding if coding is not None else wanted) == wanted
    assert coding is not None or wanted in PLAIN


def test_video_data_and_a_second_audio_line_are_refused_in_the_answer() -> None:
    more = f"m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=fingerprint:sha-256 {FINGERPRINT}\r\n"
    media = pair()
    media.pass_(1, (CHROME.replace("BUNDLE 0", "BUNDLE 0 1 2 3") + more).encode(), final=False)
    answer, _ = media.pass_(0, TRUNK.format("0 101").encode(), final=True)
    lines = [line for line in answer.decode().split("\r\n") if line.startswith("m=")]
    assert [line.split()[1] for line in lines] == ["40002", "0", "0", "0"]
    assert "a=group:BUNDLE 0\r\n" in answer.decode()
    refusing = pair(alone=True)
    with pytest.raises(PeerError):
        refusing.pass_(1, (CHROME + more).encode(), final=False)


@pytest.mark.parametrize(
    ("out", "put"),
    [(f"a=fingerprint:sha-256 {FINGERPRINT}", ""), (f"sha-256 {FINGERPRINT}", "sha-1 " + FINGERPRINT[:59]), ("a=rtcp-mux\n", ""),
     ("a=ice-pwd:abcdefghijklmnopqrstuvwx", "a=ice-pwd:short"), ("a=ice-ufrag:Ab+/", ""), ("UDP/TLS/RTP/SAVPF", "RTP/AVP"),
     ("a=setup:actpass", "a=setup:holdconn"), ("111 63 9 0 8 13 110 126", "63 13 110 126")],
)  # fmt: skip
def test_what_cannot_be_secured_is_refused_by_name(out: str, put: str) -> None:
    assert out in CHROME
    with pytest.raises(PeerError) as refused:
        pair().pass_(1, CHROME.replace(out, put).encode(), final=False)
    assert refused.value.status == 488


def test_a_plain_leg_takes_no_opus_and_no_browser() -> None:
    media = Negotiation(
        [End("10.0.0.1", offer_answer.OFF, "1", port=1), End("10.0.0.2", offer_answer.OFF, "2", port=2)]
    )
    with pytest.raises(PeerError):
        media.pass_(0, CHROME.encode(), final=False)


def test_ice_that_begins_anew_meets_new_credentials_once() -> None:
    media = pair()
    media.pass_(1, CHROME.encode(), final=False)
    first, _ = media.pass_(0, TRUNK.format("0 101").encode(), final=True)
    again = CHROME.replace("Ab+/", "Cd+/")
    media.pass_(1, again.encode(), final=False)
    second, _ = media.pass_(0, TRUNK.format("0 101").encode(), final=True)
    media.pass_(1, again.encode(), final=False)
    third, _ = media.pass_(0, TRUNK.format("0 101").encode(), final=True)

    def ufrag(body: bytes) -> str:
        return next(line for line in body.decode().split("\r\n") if line.startswith("a=ice-ufrag"))

    assert ufrag(first) == "a=ice-ufrag:ours"
    assert ufrag(second) != ufrag(first)
    assert ufrag(third) == ufrag(second)
    secured = media.media(1).secured
    assert secured is not None
    assert f"a=ice-ufrag:{secured.ice[0]}" == ufrag(second)


def test_an_offer_that_is_refused_changes_no_credentials() -> None:
    media = pair()
    media.pass_(1, CHROME.encode(), final=False)
    media.pass_(0, TRUNK.format("0 101").encode(), final=True)
    before = media.ends[1].ice
    media.pass_(1, CHROME.replace("Ab+/", "Cd+/").encode(), final=False)
    media.withdraw()
    assert media.ends[1].ice == before
    media.pass_(1, CHROME.encode(), final=False)
    answer, _ = media.pass_(0, TRUNK.format("0 101").encode(), final=True)
    assert f"a=ice-ufrag:{before[0]}\r\n" in answer.decode()
    assert media.early().ends[1].met == media.ends[1].met


def test_who_has_begun_the_handshake_stays_who_began() -> None:
    media = pair()
    offer, _ = media.pass_(0, TRUNK.format("0 101").encode(), final=False)
    media.pass_(1, answered(offer, 111, 110, setup="passive").encode(), final=True)
    own = CHROME.replace("\r\n", "\n").split("\n")
    theirs = next(line for line in own if line.startswith("a=fingerprint"))
    again = CHROME.replace(theirs, f"a=fingerprint:sha-256 {FINGERPRINT}")
    for _ in range(2):
        media.pass_(1, again.encode(), final=False)
        answer, _ = media.pass_(0, TRUNK.format("0 101").encode(), final=True)
        assert "a=setup:active\r\n" in answer.decode()
        secured = media.media(1).secured
        assert secured is not None
        assert secured.active


def test_hold_of_a_browser_is_by_direction_alone() -> None:
    media = pair()
    offer, _ = media.pass_(1, CHROME.replace("a=sendrecv", "a=sendonly").encode(), final=False)
    assert "a=sendonly\r\n" in offer.decode()
    assert "a=sendrecv" in media.pass_(1, CHROME.encode(), final=False)[0].decode()


def test_while_armed_an_offer_of_the_browser_is_answered_here() -> None:
    media = pair()
    offer, _ = media.pass_(0, TRUNK.format("0 101").encode(), final=False)
    media.pass_(1, answered(offer, 111, 110).encode(), final=True)
    answer = media.answer_here(1, CHROME.replace("a=sendrecv", "a=sendonly").encode())
    assert "opus/48000/2" in answer.decode()
    assert "a=recvonly\r\n" in answer.decode()
    coding = media.media(1).coding
    assert coding is not None
    assert coding.audio == (111, 111)
    assert media.media(0).receive == {0: "PCMU/8000", 101: "telephone-event/8000"}


def test_whoever_writes_a_description_writes_what_reads_back() -> None:
    media = pair()
    offer, _ = media.pass_(0, TRUNK.format("0 101").encode(), final=False)
    parsed = sdp.parse(offer)
    read = webrtc.read(parsed.said, parsed.media[0].said) if "AA:BB:" in offer.decode() else None
    assert read is None  # the fingerprint of this test is too short to be one
    assert parsed.media[0].said.mux
