"""Signalling: set-ups a second beside the Sippy B2BUA, calls with media while others come and go, 10,000 calls, the
delay that the box adds to dialling, parsing beside sipmessage, the torture messages of RFC 4475 and RFC 5118.

sipp places and answers the calls. Rates are those at which both its sides count no failure; every process of flattone
shares one core with the others, as Sippy has one to itself, and sipp has the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.peers import sippy
from benchmarks.table import Row, arguments, finish
from dsp import g711, synth
from mediaproxy.demo.phone import Phone
from mediaproxy.demo.site import Site, free_port
from sip.errors import PeerError
from sip.message import parse
from tests.fixtures import sipp
from tests.fixtures.listener import Listener, Packet
from tests.fixtures.sipp import Sipp
from tests.fixtures.torture import CASES

FIXED = "sip:[remote_ip]:[remote_port]"
"""Where ACK and BYE go: Sippy's Contact has a display name, which sipp's own keyword mangles."""
INVITE = (
    b"INVITE sip:+4930123456@203.0.113.7:5060;user=phone SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 198.51.100.5:5060;branch=z9hG4bK87asdks7;rport\r\n"
    b"Via: SIP/2.0/UDP 198.51.100.9:5060;branch=z9hG4bKnashds8;received=192.0.2.3\r\n"
    b"Record-Route: <sip:198.51.100.5;lr>\r\nRecord-Route: <sip:198.51.100.9;lr>\r\nMax-Forwards: 68\r\n"
    b'From: "Ann Example" <sip:+4989123456@carrier.example.com;user=phone>;tag=9fxced76sl\r\n'
    b"To: <sip:+4930123456@example.com;user=phone>\r\nCall-ID: 3848276298220188511@atlanta.example.com\r\n"
    b"CSeq: 2 INVITE\r\nContact: <sip:+4989123456@198.51.100.9:5060>\r\n"
    b"P-Asserted-Identity: <sip:+4989123456@carrier.example.com>\r\n"
    b"Diversion: <sip:+4930999@example.com>;reason=unconditional\r\n"
    b"Identity: eyJhbGciOiJFUzI1NiJ9.eyJhdHRlc3QiOiJBIn0.abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJK\r\n"
    b"Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, PRACK\r\nSupported: 100rel, timer\r\n"
    b"User-Agent: carrier/1.0\r\n"
    b"Content-Type: application/sdp\r\nContent-Length: 205\r\n\r\n"
    b"v=0\r\no=- 1 1 IN IP4 198.51.100.9\r\ns=-\r\nc=IN IP4 198.51.100.9\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0 8 101\r\n"
    b"a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=maxptime:60\r\n"
    b"a=rtcp:40001\r\na=sendrecv\r\n"
)


def main() -> int:
    """Run; returns the exit code."""
    args = arguments(__doc__)
    rows = parsing() + torture()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        rows += dial_delay(directory, 100 if args.quick else 400)
        rows += set_ups(directory, args.quick)
        rows += many_calls(directory, 2000 if args.quick else 10_000, 200 if args.quick else 130)
        rows += churn(directory, 100 if args.quick else 500)
    return finish(rows, args.json)


# Without a network


def parsing() -> list[Row]:
    """One INVITE in and out, beside sipmessage: what a B2BUA reads of it is read by both."""
    from sipmessage import Message

    def ours() -> None:
        message = parse(INVITE)
        _ = message.via, message.from_, message.to, message.cseq, message.call_id
        _ = message.every("Contact"), message.every("Record-Route")
        message.encode()

    def theirs() -> None:
        message = Message.parse(INVITE)
        _ = message.via, message.from_address, message.to_address, message.cseq, message.call_id
        _ = message.contact, message.record_route
        bytes(message)

    turns = [(_spent(ours), _spent(theirs)) for _ in range(7)]
    mine, other = (statistics.median(column) for column in zip(*turns, strict=True))
    ratio = statistics.median(a / b for a, b in turns)
    return [
        Row("parse, read and serialise an INVITE, of sipmessage's time", 0.5, ratio, "ratio", "lower"),
        Row("  flattone", 0, 1e6 * mine, "us", "lower", published=True),
        Row("  sipmessage", 0, 1e6 * other, "us", "lower", published=True),
    ]


def _spent(work: Callable[[], None], times: int = 400) -> float:
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times


def torture() -> list[Row]:
    """Shares of the RFCs' messages that are read or refused as they should be (tests/unit/test_torture.py sends them
    through the whole B2BUA)."""
    from sipmessage import Message

    def share(read: Callable[[bytes], object], wanted: bool) -> float:
        cases = [case for case in CASES if case.expect.parses is wanted]
        good = 0
        for case in cases:
            try:
                read(case.data)
                good += wanted
            except (PeerError, ValueError, IndexError, KeyError, AttributeError):
                good += not wanted
        return good / len(cases)

    return [
        Row("RFC 4475 and 5118: valid messages read", 1.0, share(parse, True), "share", "higher"),
        Row("RFC 4475 and 5118: others refused", 1.0, share(parse, False), "share", "higher"),
        Row("  sipmessage, valid ones read", 0, share(Message.parse, True), "share", "higher", published=True),
        Row("  sipmessage, others refused", 0, share(Message.parse, False), "share", "higher", published=True),
    ]


# With sipp


def _scenarios() -> tuple[str, str]:
    caller = sipp.caller("").replace("[next_url]", FIXED)
    caller = caller.replace('<send retrans="500">', '<send retrans="500" start_rtd="1">', 1)
    caller = caller.replace('<recv response="180" optional="true"/>', '<recv response="180" optional="true" rtd="1"/>')
    return caller, sipp.callee()


@contextlib.contextmanager
def _flattone(directory: Path, calls: int, core: int | None = None) -> Iterator[tuple[Site, tuple[int, int]]]:
    """A site whose processes share `core`, if one is given."""
    ports = free_port(), free_port()
    site = Site(directory, directory, *ports, calls=calls, record=False, settings={"media": "port_rest_seconds = 1"})
    allowed = os.sched_getaffinity(0)
    if core is not None and len(allowed) > 1:
        os.sched_setaffinity(0, {sorted(allowed)[core]})
    try:
        with site:
            os.sched_setaffinity(0, allowed)
            yield site, ports
    finally:
        os.sched_setaffinity(0, allowed)


def _place(
    directory: Path, callee: int, caller: int, to: tuple[str, int], rate: float, calls: int, *options: str
) -> bool:
    """Place calls at a rate; whether both sides count none that failed."""
    calling, called = _scenarios()
    common = ["-buff_size", "4194304", "-timeout", "90s"]
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[-1]})
    try:
        with (
            Sipp(directory, "uas", called, callee, 17000, calls=calls, options=common) as uas,
            Sipp(
                directory, "uac", calling, caller, 18500, to, calls=calls,
                options=[*common, "-r", str(rate), "-l", "3000", *options],
            ) as uac,
        ):  # fmt: skip
            os.sched_setaffinity(0, allowed)
            try:
                uac.finish(100)
                uas.finish(20)
            except (AssertionError, subprocess.TimeoutExpired):
                return False
            return True
    finally:
        os.sched_setaffinity(0, allowed)


def _cpu(pids: list[int]) -> float:
    """Seconds of CPU that processes have used."""
    spent = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def set_ups(directory: Path, quick: bool) -> list[Row]:
    """CPU a call at 100 calls a second, and (not with --quick) the highest rate without a failure."""
    calls = 600 if quick else 1500
    with _flattone(directory, 1500, core=0) as (site, ports):
        pids = list(site.pids().values())
        begun = _cpu(pids)
        good = _place(directory, ports[1], ports[0], site.trunk, 100, calls)
        ours = (_cpu(pids) - begun) / calls
        most = _highest(quick, 300, lambda r: _place(directory, ports[1], ports[0], site.trunk, r, int(8 * r)))
    listen, callee, caller = free_port(), free_port(), free_port()
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    with sippy.running(listen, callee) as pid:
        os.sched_setaffinity(0, allowed)
        time.sleep(2.5)
        to = ("127.0.0.1", listen)
        begun = _cpu([pid])
        peer_good = _place(directory, callee, caller, to, 100, calls)
        theirs = (_cpu([pid]) - begun) / calls
        peer_most = _highest(quick, 200, lambda r: _place(directory, callee, caller, to, r, int(8 * r)))
    assert peer_good, "sippy failed calls at 100 a second"
    rows = [
        Row("calls that failed at 100 a second", 0, 0.0 if good else 1.0, "runs", "lower"),
        Row("set-ups a second of CPU, of sippy's", 3.0, theirs / ours, "ratio", "higher"),
        Row("  flattone, all processes, CPU a call", 0, 1000 * ours, "ms", "lower", published=True),
        Row("  sippy, CPU a call", 0, 1000 * theirs, "ms", "lower", published=True),
    ]
    if not quick:
        rows += [
            Row("set-ups a second on one core without a failure, of sippy's", 3.0, most / peer_most, "ratio", "higher"),
            Row("  flattone", 0, most, "calls/s", "higher", published=True),
            Row("  sippy", 0, peer_most, "calls/s", "higher", published=True),
        ]
    return rows


def _highest(quick: bool, rate: float, place: Callable[[float], bool]) -> float:
    """The highest rate that is carried, in steps of 15 %."""
    best = 0.0
    while not quick and place(rate):
        best, rate = rate, rate * 1.15
        time.sleep(2)
    return best


def many_calls(directory: Path, calls: int, rate: int) -> list[Row]:
    """One call after the other; memory when half have been, and after the last: what SIP's own timers keep (32 s of
    calls) is there by then, unless the run is a quick one."""
    with _flattone(directory, 500) as (site, ports):
        pid = site.pids()["signalling"]
        good = _place(directory, ports[1], ports[0], site.trunk, rate, calls // 2)
        early = _resident(pid)
        good &= _place(directory, ports[1], ports[0], site.trunk, rate, calls - calls // 2)
        late = _resident(pid)
        time.sleep(2)
        left = site.request("GET", "/v1/calls")[1]["calls"]
    return [
        Row(f"{calls} calls at {rate} a second: runs with a failure", 0, 0.0 if good else 1.0, "runs", "lower"),
        Row("  calls left behind", 0, len(left), "calls", "lower"),
        Row("  signalling's memory at the end, of that at half", 1.1, late / early, "ratio", "lower", calls < 10_000),
    ]


def _resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def dial_delay(directory: Path, calls: int) -> list[Row]:
    """From INVITE to 180, idle: through flattone and from sipp to sipp."""
    options = ("-trace_rtt", "-rtt_freq", "1")
    callee, caller = free_port(), free_port()
    assert _place(directory, callee, caller, ("127.0.0.1", callee), 20, calls, *options)
    direct = _times(directory)
    with _flattone(directory, 200) as (site, ports):
        assert _place(directory, ports[1], ports[0], site.trunk, 20, calls, *options)
        through = _times(directory)
    added = np.percentile(through, [50, 99]) - np.percentile(direct, [50, 99])
    return [
        Row("delay added to dialling, p99", 5.0, float(added[1]), "ms", "lower"),
        Row("  median", 0, float(added[0]), "ms", "lower", published=True),
    ]


def _times(directory: Path) -> np.ndarray:
    """sipp's own times, milliseconds; the file is taken away."""
    (path,) = directory.glob("uac_*_rtt.csv")
    found = np.array([float(line.split(";")[1]) for line in path.read_text().splitlines()[1:]])
    path.unlink()
    return found


def churn(directory: Path, calls: int) -> list[Row]:
    """Calls with media at rest, then with 50 set-ups a second beside them: what one caller's packets wait."""
    rng = np.random.default_rng(1)
    (directory / "talk.ulaw").write_bytes(g711.encode(synth.speechlike(60, rng), g711.PCMU).tobytes())
    talk = sipp.stream(directory / "talk.ulaw") + sipp.pause(45_000)
    with Listener() as ear, _flattone(directory, calls + 200) as (site, ports):
        answers = sipp.callee(media_port=str(ear.port))
        with (
            Sipp(directory, "callee", answers, ports[1], 17000, calls=100_000, options=["-timeout", "300s"]),
            Sipp(
                directory, "talkers", sipp.caller(talk), free_port(), 12000, site.trunk, calls=calls,
                options=["-r", "50", "-l", str(calls), "-timeout", "300s"],
            ),
        ):  # fmt: skip
            time.sleep(calls / 50 + 3)
            quiet = asyncio.run(_relay_times(site, ear))
            calling, _ = _scenarios()
            churning = ["-r", "50", "-l", "500"]
            with Sipp(directory, "churn", calling, ports[0], 18500, site.trunk, calls=400, options=churning) as uac:
                busy = asyncio.run(_relay_times(site, ear))
                try:
                    uac.finish(60)
                    failed = 0.0
                except AssertionError:
                    failed = 1.0
    still, moving = np.percentile(quiet, 99), np.percentile(busy, 99)
    return [
        Row(f"50 set-ups a second beside {calls} calls with media: failed", 0, failed, "runs", "lower"),
        Row("  p99 of a packet's way, of that at rest", 1.3, float(moving / still), "ratio", "lower"),
        Row("  at rest", 0, float(still), "ms", "lower", published=True),
    ]


async def _relay_times(site: Site, ear: Listener) -> np.ndarray:
    """Milliseconds that each of one phone's packets took through the box."""
    ear.packets.clear()
    phone = Phone("timed")
    await phone.open()
    phone.call("204", site.trunk)
    await asyncio.wait_for(phone.established.wait(), 10)
    pattern = np.tile(np.repeat(np.array([0x80, 0x00], np.uint8), 40), 500)
    phone.say(pattern)
    await asyncio.sleep(5.2)
    sent = list(phone.media.sent)
    phone.hang_up()
    await asyncio.sleep(0.1)
    phone.close()
    streams: dict[int, list[Packet]] = {}
    for packet in list(ear.packets):
        streams.setdefault(packet.ssrc, []).append(packet)
    mine = max(streams.values(), key=lambda ps: sum(p.payload.count(0x80) + p.payload.count(0x00) > 150 for p in ps))
    left = {packet.timestamp: packet.at for packet in sent}
    offset = mine[0].timestamp - sent[0].timestamp
    took = [1000 * (p.at - left[t]) for p in mine if (t := (p.timestamp - offset) % 2**32) in left]
    assert len(took) > 100, "the timed call's packets were not found again"
    return np.array(took)


if __name__ == "__main__":
    sys.exit(main())
