"""RFC 4475 and RFC 5118: what is valid is read, kept and forwarded as it came; what is not is refused as the RFC says."""

import pytest

from sip.errors import PeerError
from sip.hop import Hop
from sip.message import Message, Request, parse
from tests.fixtures.sipnet import CALLER, Net
from tests.fixtures.torture import CASES, Case

METHOD = "the box takes no such requests (405): it is no registrar and keeps no messages outside a call"
DIALOG = "a request within a dialog that this box does not have (481)"
CODEC = "no audio in a codec that the box decodes (488): what cannot be masked is not taken"
OWN = {
    "wsinv": (DIALOG, 481), "escnull": (METHOD, 405), "dblreq": (METHOD, 405), "mpart01": (METHOD, 405),
    "unksm2": (METHOD, 405), "regbadct": (METHOD, 405), "cparam01": (METHOD, 405), "cparam02": (METHOD, 405),
    "regescrt": (METHOD, 405), "ipv6-good": (METHOD, 405), "port-ambiguous": (METHOD, 405),
    "port-unambiguous": (METHOD, 405), "via-received-param-with-delim": (DIALOG, 481),
    "mult-ip-in-header": (DIALOG, 481), "ipv6-in-sdp": (CODEC, 488), "ipv4-mapped-ipv6": (CODEC, 488),
}  # fmt: skip
"""Cases that the RFC leaves to what an element is for, and what this one answers."""
DROPPED = {"insuf", "scalarlg", "bigcode"}
"""Messages that say not to whom an answer should go, or are answers."""


class Wire(Net):
    """Without parsing what the box sends: an answer to a broken request repeats its headers."""

    def _settle(self) -> None:
        for event in list(self.box.events):
            if type(event).__name__ == "MediaWanted":
                self.box.media_opened(event.call, (("10.0.0.1", 40000), ("10.0.0.2", 40002)), self.now)
        self.answers = [bytes(o.data) for o in self.box.outgoing if o.side == "trunk"]
        self.forwarded = [parse(o.data) for o in self.box.outgoing if o.side == "agent"]

    def status(self) -> int:
        return max((int(data.split(b" ", 2)[1]) for data in self.answers), default=0)


def received(case: Case) -> Wire:
    net = Wire()
    net.box.receive(bytearray(case.data), "trunk", CALLER, net.now)
    net._settle()
    return net


def test_every_case_is_there() -> None:
    assert len(CASES) == 61
    assert len({case.section for case in CASES if case.section.startswith("3.1")}) == 32


@pytest.mark.parametrize("case", [c for c in CASES if c.expect.parses], ids=lambda c: c.name)
def test_what_is_valid_is_read_and_kept(case: Case) -> None:
    message = parse(case.data)
    again = parse(message.encode())
    named = [h for h in message.headers if h[0].strip().lower() not in ("content-length", "l")]
    assert [h for h in again.headers if h[0].lower() != "content-length"] == named
    assert again.body == message.body
    net = received(case)
    wanted = {case.expect.status, *case.expect.also}
    if case.name in OWN:
        wanted = {OWN[case.name][1]}
    if isinstance(message, Request) and wanted == {0}:
        wanted = {100} if message.method == "INVITE" else {200}
    assert net.status() in wanted | ({0} if not isinstance(message, Request) else set())
    if net.forwarded:
        passes(message, net.forwarded[0])


def passes(message: Message, forwarded: Message) -> None:
    """Every header that is the peers' own arrives in order and as it was written."""
    own = {
        "p-asserted-identity",
        "subject",
        "s",
        "unknownheaderwithunusualvalue",
        "newfangledheader",
        "date",
        "organization",
    }
    kept = [(n, v) for n, v in message.headers if n.strip().lower() in own or n.lower().startswith("unknown")]
    there = [(n, v) for n, v in forwarded.headers]
    assert [h for h in there if h in kept] == kept
    assert forwarded.from_.uri == message.from_.uri
    assert forwarded.to.uri == message.to.uri


@pytest.mark.parametrize("case", [c for c in CASES if c.expect.parses is False], ids=lambda c: c.name)
def test_what_is_not_valid_is_refused_as_the_rfc_says(case: Case) -> None:
    with pytest.raises(PeerError):
        parse(case.data)
    net = received(case)
    assert not net.forwarded
    wanted = {case.expect.status, *case.expect.also} if case.name not in DROPPED else {0}
    assert net.status() in wanted


@pytest.mark.parametrize("case", [c for c in CASES if c.expect.parses is None], ids=lambda c: c.name)
def test_where_the_rfc_leaves_it_open_it_is_refused_or_taken_cleanly(case: Case) -> None:
    """Refused with the RFC's code, or taken; if taken, what goes on can be read by a strict parser."""
    net = received(case)
    status = net.status()
    assert status in {case.expect.status, *case.expect.also, 100, 200, OWN.get(case.name, ("", 0))[1]}
    for message in net.forwarded:
        assert isinstance(message, Request)
        assert "?" not in message.uri
        assert '"' in str(message.from_) or "," not in message.from_.display


def test_strangers_torture_nobody() -> None:
    for case in CASES:
        net = Wire()
        net.box.receive(bytearray(case.data), "trunk", Hop("203.0.113.1", 5060), net.now)
        assert not net.box.outgoing
