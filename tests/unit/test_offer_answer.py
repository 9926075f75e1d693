"""Offer and answer: built from an allowlist, in codecs that can be masked, never patched through."""

import pytest

from sip import offer_answer, sdp
from sip.errors import PeerError
from sip.offer_answer import Far

OFFER = b"""v=0
o=alice 2890844526 2890844526 IN IP4 host.example.org
s=secret session
c=IN IP4 192.0.2.10
t=0 0
a=ice-ufrag:abc
m=video 51372 RTP/AVP 31
m=audio 49172 RTP/AVP 18 0 96 8 101 13
c=IN IP4 192.0.2.11
a=rtpmap:96 opus/48000/2
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x
a=ptime:30
a=sendonly
m=audio 5000 RTP/SAVP 0
""".replace(b"\n", b"\r\n")


def test_the_first_audio_section_that_can_be_masked_is_taken() -> None:
    stream = offer_answer.read(sdp.parse(OFFER))
    assert (stream.address, stream.port, stream.direction, stream.ptime) == ("192.0.2.11", 49172, "sendonly", 30)
    assert stream.formats == {0: "PCMU/8000", 8: "PCMA/8000", 101: "telephone-event/8000", 13: "CN/8000"}
    assert stream.layout.audio == 1


def test_the_offer_to_the_other_side_names_this_box_only() -> None:
    stream = offer_answer.read(sdp.parse(OFFER))
    text = sdp.write(offer_answer.offer(stream, Far("198.51.100.1", 30000)), "77", 1).decode()
    assert "m=audio 30000 RTP/AVP 0 8 101 13\r\n" in text
    assert "a=fmtp:101 0-16\r\n" in text
    assert "a=sendonly\r\n" in text
    for foreign in ("192.0.2", "alice", "secret", "ice", "crypto", "opus", "video", "SAVP"):
        assert foreign not in text


def test_the_answer_has_every_section_and_the_offers_numbers() -> None:
    offered = offer_answer.read(sdp.parse(OFFER))
    theirs = (
        "v=0\r\nc=IN IP4 10.1.1.1\r\nm=audio 4000 RTP/AVP 8 97\r\na=rtpmap:97 telephone-event/8000\r\na=recvonly\r\n"
    )
    answer = offer_answer.answer(offer_answer.read(sdp.parse(theirs.encode())), offered, Far("198.51.100.2", 30002))
    text = sdp.write(answer, "78", 1).decode()
    assert [line for line in text.split("\r\n") if line.startswith("m=")] == [
        "m=video 0 RTP/AVP 0",
        "m=audio 30002 RTP/AVP 8 101",
        "m=audio 0 RTP/SAVP 0",
    ]
    assert "a=recvonly" in text


@pytest.mark.parametrize(
    "media",
    [
        "m=audio 4000 RTP/AVP 18",
        "m=audio 4000 RTP/SAVP 0",
        "m=audio 0 RTP/AVP 0",
        "m=audio 4000 RTP/AVP 101\r\na=rtpmap:101 telephone-event/8000",
        "m=image 4000 udptl t38",
        "m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/16000",
        "",
    ],
)
def test_what_cannot_be_masked_is_refused(media: str) -> None:
    with pytest.raises(PeerError) as caught:
        offer_answer.read(sdp.parse(f"v=0\r\nc=IN IP4 10.1.1.1\r\n{media}\r\n".encode()))
    assert caught.value.status == 488


def test_an_answer_without_a_shared_codec_is_refused() -> None:
    offered = offer_answer.read(sdp.parse(b"v=0\r\nc=IN IP4 10.1.1.1\r\nm=audio 4000 RTP/AVP 0\r\n"))
    other = offer_answer.read(sdp.parse(b"v=0\r\nc=IN IP4 10.1.1.1\r\nm=audio 4000 RTP/AVP 8\r\n"))
    with pytest.raises(PeerError):
        offer_answer.answer(other, offered, Far("198.51.100.2", 30002))


def test_comfort_noise_and_events_with_another_clock_are_passed_on() -> None:
    text = (
        "v=0\r\nc=IN IP4 10.1.1.1\r\nm=audio 4000 RTP/AVP 0 13 101 110\r\na=rtpmap:101 telephone-event/8000\r\n"
        "a=rtpmap:110 telephone-event/48000\r\na=fmtp:110 0-15\r\n"
    )
    stream = offer_answer.read(sdp.parse(text.encode()))
    assert stream.formats == {0: "PCMU/8000", 13: "CN/8000", 101: "telephone-event/8000", 110: "telephone-event/48000"}
    told = sdp.write(offer_answer.offer(stream, Far("10.9.9.9", 6000)), "77", 1).decode()
    assert "a=rtpmap:13 CN/8000\r\n" in told
    assert "a=fmtp:110 0-15\r\n" in told
