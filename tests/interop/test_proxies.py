"""Behind and in front of real proxies and servers: Kamailio on either side, DNS, and the operator's own view."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from mediaproxy.demo.site import Site, free_port
from tests.fixtures.kamailio import Kamailio
from tests.fixtures.live import read_metrics
from tests.fixtures.scenario import Callee, Caller, sdp
from tests.fixtures.sipp import Sipp
from tests.interop.test_signalling import INFO, RELAY, Desk, answering, simple

pytestmark = pytest.mark.interop


def test_a_pbx_of_kamailio_with_two_phones_that_ring_at_once(tmp_path: Path) -> None:
    """The called number has two contacts: one picks up, the other is cancelled; requests follow the Record-Route."""
    pbx, first, second = free_port(), free_port(), free_port()
    desk = Desk(tmp_path)
    desk.site = Site(tmp_path, tmp_path, desk.ports[0], pbx, record=False)
    quick, slow = Callee("204"), Callee("204", tag="slow")
    quick.invited()
    quick.answer("180 Ringing").pause(700).pick_up()
    quick.expect("INVITE", "a=sendonly").reply("200 OK", sdp("a=recvonly", 2))
    quick.expect("ACK")
    quick.request("INFO", 1, INFO.format(4), kind=RELAY).expect(200)
    quick.hung_up()
    slow.invited()
    slow.answer("180 Ringing").expect("CANCEL").reply("200 OK").answer("487 Request Terminated", late=True).expect(
        "ACK"
    )
    caller = Caller("caller")
    caller.invite().ringing(100).expect(180).expect(180, optional=True)
    caller.answered().pause(200)
    caller.request("INVITE", 2, sdp("a=sendonly", 2)).expect(100, optional=True).expect(200, "a=recvonly", rrs=True)
    caller.request("ACK", 2).expect("INFO", "Signal=4").reply("200 OK")
    caller.hang_up()
    with desk.site, Kamailio(tmp_path / "k", pbx, f"sip:127.0.0.1:{desk.site.agent[1]}") as kamailio:
        kamailio.register("204", first)
        kamailio.register("204", second)
        with (
            Sipp(tmp_path, "quick", quick.xml(), first, 17000),
            Sipp(tmp_path, "slow", slow.xml(), second, 17500) as unlucky,
            Sipp(tmp_path, "caller", caller.xml(), desk.ports[0], 18500, desk.site.trunk) as uac,
        ):
            uac.finish(30)
            unlucky.finish(30)
        desk.clean()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_carrier_of_kamailio_both_ways(tmp_path: Path, transport: str) -> None:
    """Calls from it and calls to it, with its Record-Route in every dialog."""
    edge, customer, pbx = free_port(), free_port(), free_port()
    settings = {"caller": f'transport = "{transport}"'}
    site = Site(tmp_path, tmp_path, edge, pbx, record=False, settings=settings)
    with site, Kamailio(tmp_path / "k", edge, f"sip:127.0.0.1:{site.trunk[1]};transport={transport}") as kamailio:
        kamailio.register("4930", customer)
        with (
            Sipp(tmp_path, "agent", answering("204").xml(), pbx, 17000) as uas,
            Sipp(tmp_path, "customer", simple("4930").xml(), free_port(), 18500, ("127.0.0.1", edge)) as uac,
        ):
            uac.finish(30)
            uas.finish(30)
        with (
            Sipp(tmp_path, "customer2", answering("4930").xml(), customer, 17000) as uas,
            Sipp(tmp_path, "agent2", simple("204").xml(), pbx, 18500, site.agent, service="4930") as uac,
        ):
            uac.finish(30)
            uas.finish(30)
        assert '"level":"error"' not in site.log.read_text().replace(" ", "")


@contextlib.contextmanager
def name_server(records: dict[tuple[str, str], list[str]]) -> Iterator[int]:
    """A DNS server on loopback that knows these records."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.2)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    data, source = sock.recvfrom(4096)
                except TimeoutError:
                    continue
                query = dns.message.from_wire(data)
                answer = dns.message.make_response(query)
                question = query.question[0]
                kind = dns.rdatatype.to_text(question.rdtype)
                found = records.get((str(question.name).lower(), kind))
                if found:
                    answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *found))
                sock.sendto(answer.to_wire(), source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            over.set()
            thread.join()


def test_next_hops_come_from_dns_and_fail_over(tmp_path: Path) -> None:
    """SRV records: the one of the better priority is down, so the second host takes the call."""
    dead, live = free_port(), free_port()
    records = {
        ("_sip._udp.pbx.example.", "SRV"): [f"10 5 {dead} a.pbx.example.", f"20 5 {live} b.pbx.example."],
        ("a.pbx.example.", "A"): ["127.0.0.1"],
        ("b.pbx.example.", "A"): ["127.0.0.1"],
    }
    with name_server(records) as port:
        settings = {"desk": 'address = "pbx.example"', "more": f'[dns]\nservers = ["127.0.0.1:{port}"]'}
        desk = Desk(tmp_path)
        desk.ports = desk.ports[0], live
        desk.site = Site(tmp_path, tmp_path, *desk.ports, record=False, settings=settings)
        with desk.site:
            time.sleep(0.5)
            desk.play(simple(), answering())
            time.sleep(1.5)
            metrics = read_metrics(desk.site)
            assert metrics['flattone_signalling_failovers_total{worker="signalling"}'] == 1
            desk.clean()


def test_hops_that_do_not_answer_options_are_left_out_until_they_do(tmp_path: Path) -> None:
    first = free_port()
    desk = Desk(tmp_path)
    settings = f'address = "127.0.0.1:{first}"\nbackups = ["127.0.0.1:{desk.ports[1]}"]\noptions_seconds = 2\nfailover_seconds = 4'
    desk.site = Site(tmp_path, tmp_path, *desk.ports, record=False, settings={"desk": settings})
    answers = Callee("pbx").expect("OPTIONS", keep=Callee.KEEP).reply("200 OK")

    def down() -> float:
        return read_metrics(desk.site).get('flattone_signalling_down{worker="signalling"}', 0.0)

    with desk.site:
        with Sipp(tmp_path, "second", answers.xml(), desk.ports[1], 16500, calls=3):
            deadline = time.monotonic() + 15
            while down() != 1 and time.monotonic() < deadline:
                time.sleep(0.2)
            assert down() == 1
        with Sipp(tmp_path, "first", answers.xml(), first, 16500, calls=2) as back:
            back.finish(15)
            time.sleep(1.2)
        assert down() <= 1  # the second has gone meanwhile


def test_an_operator_watches_a_call_as_it_passes(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    caller, callee = Caller("4930"), Callee("204")
    caller.invite(headers="Authorization: Digest username=x\nX-Secret: s").ringing()
    caller.answered().pause(300)
    caller.request("INFO", 2, INFO.format(7), kind=RELAY).expect(200)
    caller.hang_up()
    callee.invited()
    callee.pick_up()
    callee.hung_up()
    with desk.site:
        text, capture = tmp_path / "ladder.txt", tmp_path / "ladder.pcap"
        command = [
            sys.executable, "-m", "mediaproxy", "trace", "--config", str(desk.site.config), "204",
            "--text", str(text), "--pcap", str(capture), "--seconds", "8",
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            time.sleep(1.5)
            desk.play(caller, callee)
            shown = watching.communicate(timeout=20)[0]
            assert watching.returncode == 0
        nobody = subprocess.run(
            [*command[:6], "305", "--seconds", "0.5"], capture_output=True, text=True, timeout=20, check=False
        )
    assert (nobody.returncode, nobody.stdout) == (1, "")
    arrows = [line.split(None, 3)[-1] for line in shown.splitlines()]
    assert next(a for a in arrows if "INVITE" in a).endswith(
        f":{desk.ports[0]} ──▶ flattone  UDP  INVITE sip:204@127.0.0.1:{desk.site.trunk[1]}"
    )
    assert sum("200 OK" in a for a in arrows) >= 5
    assert any("──▶ flattone  UDP  BYE" in a for a in arrows)
    assert any("INFO" in a for a in arrows)
    whole = text.read_text()
    assert "Signal" not in whole
    assert "username" not in whole
    assert "X-Secret: (not shown)" in whole
    assert "(body not shown)" in whole
    assert "m=audio" in whole
    packets = capture.read_bytes()
    assert packets[:4] == b"\xd4\xc3\xb2\xa1"
    assert packets.count(b"INVITE sip:") == 2


def test_strangers_get_nothing_or_403_by_policy(tmp_path: Path) -> None:
    """Over UDP and TCP; nothing is said to them, or 403, and they are counted."""
    text = (
        "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/{0} 127.0.0.2:{1};branch=z9hG4bK1;rport\r\nFrom: <sip:a@b>;tag=1\r\n"
        "To: <sip:c@d>\r\nCall-ID: s{1}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )
    site = Site(tmp_path, tmp_path, free_port(), free_port(), settings={"agent": 'strangers = "refuse"'})
    with site:
        assert asked(site.trunk, text) == b""
        assert asked(site.agent, text).startswith(b"SIP/2.0 403")
        with socket.create_connection(site.trunk, timeout=1, source_address=("127.0.0.2", 0)) as sock:
            said = b"?"
            with contextlib.suppress(ConnectionError):
                sock.sendall(text.format("TCP", 1).encode())
                said = sock.recv(100)
            assert said in (b"", b"?")
        time.sleep(1.5)
        assert read_metrics(site)['flattone_signalling_strangers_total{worker="signalling"}'] >= 3
        assert site.request("GET", "/v1/calls")[1] == {"calls": [], "next": None}


def asked(at: tuple[str, int], text: str) -> bytes:
    """What a stranger hears over UDP within half a second."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.2", 0))
        sock.settimeout(0.5)
        sock.sendto(text.format("UDP", sock.getsockname()[1]).encode(), at)
        try:
            return sock.recv(2000)
        except TimeoutError:
            return b""
