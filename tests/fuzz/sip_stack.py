"""Coverage-guided fuzzing of `sip/` with atheris: `python -m tests.fuzz.sip_stack [RUNS]`.

The first octet of an input chooses where the rest goes: the message parser, the stream framer (in pieces), the parser of
session descriptions, or the whole B2BUA with a call up, from either side and in one of the modes. Whatever leaves these
but PeerError, or takes more than two seconds, is a finding; what was covered is printed at the end.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sip"]):
    from sip import sdp
    from sip.errors import PeerError
    from sip.framing import Framer
    from sip.message import parse
    from sip.sdes import parse as parse_crypto
    from tests.fixtures.sipnet import CALLEE, CALLER, SDP, Net

from tests.fixtures.torture import CASES

MODES = ("guarded", "armed", "sealed", "passthrough")
FRESH = 300
"""Inputs that one B2BUA gets before the next one takes its place."""


class Target:
    """The B2BUA under attack; a call is up whenever an input comes."""

    def __init__(self) -> None:
        self.count = 0
        self.net = self._net()

    def _net(self) -> Net:
        self.count = 0
        net = Net(route={"guard_header": "X-Guard"})
        net.establish()
        return net

    def feed(self, data: bytes, choice: int) -> None:
        self.count += 1
        if self.count > FRESH or not self.net.box.calls:
            self.net = self._net()
        net = self.net
        for call in net.box.calls.values():
            call.mode = MODES[choice >> 1 & 3]
        side, source = ("trunk", CALLER) if choice & 1 else ("agent", CALLEE)
        net.box.receive(bytearray(data), side, source, net.now)
        net._settle()
        if choice & 8:
            net.wait(1.0)
        net.at["trunk"].clear()
        net.at["agent"].clear()
        net.events.clear()
        net.went.clear()


TARGET = Target()


def one_input(data: bytes) -> None:
    """What atheris calls."""
    if not data:
        return
    choice, rest = data[0], data[1:]
    with contextlib.suppress(PeerError):
        if choice < 32:
            parse(rest)
        elif choice < 48:
            sdp.parse(rest)
            parse_crypto(rest.decode("latin-1"))
        elif choice < 64:
            framer = Framer()
            for at in range(0, len(rest), 1 + choice % 7 * 9):
                framer.receive(rest[at : at + 1 + choice % 7 * 9])
        else:
            TARGET.feed(rest, choice)


def corpus(directory: Path) -> None:
    """Seeds: the torture messages, and what the two phones of a call say to each other."""
    net = Net()
    ok, invite = net.establish()
    body, kind = SDP.format("192.0.2.1", 6000), "application/sdp"
    talk = [
        net.within("trunk", ok, "INVITE", 3, body, kind), net.within("trunk", ok, "UPDATE", 4, body, kind),
        net.within("trunk", ok, "PRACK", 5, headers="RAck: 1 1 INVITE\r\n"),
        net.within("trunk", ok, "INFO", 6, "Signal=5", "application/dtmf-relay"),
        net.within("trunk", ok, "NOTIFY", 7, '<kpml-response digits="5"/>', "application/kpml-response+xml"),
        net.within("agent", invite, "REFER", 3, headers="Refer-To: <sip:305@x?Replaces=a%3Bto-tag%3D1%3Bfrom-tag%3D2>\r\n"),
        net.within("agent", invite, "INVITE", 4, SDP.format("198.51.100.1", 7000), kind),
        net.within("agent", invite, "UPDATE", 5, headers="Session-Expires: 90;refresher=uac\r\nSupported: timer\r\n"),
        net.within("agent", invite, "SUBSCRIBE", 6, headers="Event: kpml\r\n"), net.within("agent", invite, "BYE", 9),
        net.within("trunk", ok, "BYE", 9),
    ]  # fmt: skip
    seeds = [case.data for case in CASES] + [text.encode() for text in talk] + [invite.encode(), ok.encode()]
    for i, seed in enumerate(seeds):
        for choice in (0, 50, 65, 66, 67, 70, 73):
            (directory / f"{i:03}-{choice}").write_bytes(bytes([choice]) + seed)
    (directory / "sdp").write_bytes(bytes([40]) + body.encode() + b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n")


def bound_memory() -> None:
    """Let this process have 2 GiB of addresses, so that a message which eats memory is a finding (MemoryError).

    libFuzzer's own limit is off: it reads ru_maxrss, which execve(2) carries over from whoever started this process.
    """
    limit = 2 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    bound_memory()
    runs = sys.argv[1] if len(sys.argv) > 1 else "1000000"
    with tempfile.TemporaryDirectory() as directory:
        corpus(Path(directory))
        options = [
            f"-runs={runs}",
            "-timeout=2",
            "-rss_limit_mb=0",
            "-max_len=4096",
            "-print_final_stats=1",
            f"-artifact_prefix={directory}/",
        ]
        atheris.Setup([sys.argv[0], directory, *options], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
