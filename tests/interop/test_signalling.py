"""sipp against a running flattone, a scenario pair a behaviour: what a carrier and a PBX do to each other all day."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mediaproxy.demo.site import Site, free_port
from tests.fixtures import live
from tests.fixtures.scenario import Callee, Caller, Steps, sdp
from tests.fixtures.sipp import Sipp

pytestmark = pytest.mark.interop
TRUNK_SDP, AGENT_SDP = "m=audio [0-9]+ RTP/AVP 0 101", "m=audio [0-9]+ RTP/AVP 0 101"
INFO = "Signal={0}\nDuration=160\n"
RELAY = "application/dtmf-relay"
PICTURE = (
    "<media_control><vc_primitive><to_encoder><picture_fast_update/></to_encoder></vc_primitive></media_control>\n"
)


class Desk:
    """A site with a sipp on either side."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.ports = free_port(), free_port()
        self.site = Site(directory, directory, *self.ports, record=False, settings=settings)
        self.count = 0

    def play(
        self, caller: Steps, callee: Steps, side: str = "trunk", calls: tuple[int, int] = (1, 1), transport: str = "u1",
        during: Any = None, service: str = "204",
    ) -> None:  # fmt: skip
        """Run both to their end; both must have seen what they expect."""
        self.count += 1
        inbound = side == "trunk"
        remote = self.site.trunk if inbound else self.site.agent
        called, calling = (self.ports[1], self.ports[0]) if inbound else self.ports
        directory = self.directory / f"{self.count}"
        directory.mkdir(exist_ok=True)
        options = ["-timeout", "100s", "-t", transport, *(["-max_socket", "2000"] if transport == "tn" else [])]
        with (
            Sipp(directory, "callee", callee.xml(), called, 17000, calls=calls[1], options=options) as uas,
            Sipp(
                directory,
                "caller",
                caller.xml(),
                calling,
                18500,
                remote,
                service=service,
                calls=calls[0],
                options=options,
            ) as uac,
        ):
            if during is not None:
                during(self.site)
            uac.finish(100)
            uas.finish(100)

    def records(self) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 3
        while not self.site.cdr.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return [json.loads(line) for line in self.site.cdr.read_text().splitlines()]

    def clean(self) -> None:
        assert '"level":"error"' not in self.site.log.read_text().replace(" ", "")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The plainest configuration, shared."""
    made = Desk(tmp_path_factory.mktemp("signalling"))
    with made.site:
        yield made
    made.clean()


def simple(user: str = "caller") -> Caller:
    made = Caller(user)
    made.invite().ringing()
    made.answered(TRUNK_SDP).pause(300)
    made.hang_up()
    return made


def answering(user: str = "callee") -> Callee:
    made = Callee(user)
    made.invited(AGENT_SDP)
    made.answer("180 Ringing")
    made.pick_up()
    made.hung_up()
    return made


@pytest.mark.parametrize("side", ["trunk", "agent"])
def test_a_call_over_tcp(tmp_path: Path, side: str) -> None:
    """One connection for each sipp; what the called one asks goes back over it."""
    desk = Desk(tmp_path, caller='transport = "tcp"', desk='transport = "tcp"')
    callee = Callee("callee")
    callee.invited()
    callee.pick_up()
    callee.request("INFO", 1, PICTURE, kind="application/media_control+xml").expect(200)
    callee.hung_up()
    caller = Caller("caller")
    caller.invite().ringing()
    caller.answered().expect("INFO").reply("200 OK")
    caller.hang_up()
    with desk.site:
        desk.play(caller, callee, side, transport="t1")
        desk.play(simple(), answering(), side, transport="tn", calls=(20, 20))
        desk.clean()


def test_headers_pass_both_ways(desk: Desk) -> None:
    caller, callee = Caller("caller"), Callee("callee")
    caller.invite(
        headers="P-Asserted-Identity: <sip:+4930123@carrier.example>\nDiversion: <sip:99@x>;reason=busy\nX-Trunk: one\n"
        "User-to-User: 56a390f3;encoding=hex\nIdentity: abc;info=<https://x>\nHistory-Info: <sip:9@x>;index=1"
    )
    caller.ringing().expect(200, "X-Agent: two", lacks=("PBX/1",), rrs=True)
    caller.request("ACK", 1).pause(200)
    caller.request("BYE", 2, headers='Reason: Q.850;cause=16;text="bye"').expect(200)
    callee.invited(
        "P-Asserted-Identity: <sip:.4930123@carrier.example>", "Diversion: <sip:99@x>;reason=busy", "X-Trunk: one",
        "User-to-User: 56a390f3", "Identity: abc", "History-Info: <sip:9@x>", "Max-Forwards: 69",
    )  # fmt: skip
    callee.answer("200 OK", sdp(), "X-Agent: two\nServer: PBX/1").expect("ACK")
    callee.expect("BYE", "Reason: Q.850;cause=16").reply("200 OK")
    desk.play(caller, callee)


def test_a_late_offer(desk: Desk) -> None:
    caller, callee = Caller("caller"), Callee("callee")
    caller.invite(body="").ringing()
    caller.answered(TRUNK_SDP, ack=sdp()).pause(300)
    caller.hang_up()
    callee.invited(lacks=("m=audio",))
    callee.answer("200 OK", sdp()).expect("ACK", AGENT_SDP)
    callee.hung_up()
    desk.play(caller, callee)


def test_prack_with_an_offer(desk: Desk) -> None:
    caller, callee = Caller("caller"), Callee("callee")
    caller.invite(headers="Supported: 100rel").expect(100, optional=True)
    caller.expect(183, "RSeq: [0-9]+", "Require:.*100rel", TRUNK_SDP, rrs=True, keep=RSEQ)
    caller.request("PRACK", 2, sdp(version=2), "RAck: [$9] 1 INVITE").expect(200, "CSeq: 2 PRACK", TRUNK_SDP)
    caller.expect(200, "CSeq: 1 INVITE", rrs=True)
    caller.request("ACK", 1).pause(200)
    caller.raw('<Reference variables="9"/>')
    caller.hang_up()
    callee.invited("Supported:.*100rel")
    callee.answer("183 Session Progress", sdp(), "Require: 100rel\nRSeq: 501", again=False)
    callee.expect("PRACK", "RAck: 501 1 INVITE", AGENT_SDP).reply("200 OK", sdp(version=2))
    callee.pause(200).answer("200 OK", late=True)
    callee.expect("ACK")
    callee.hung_up()
    desk.play(caller, callee)


RSEQ = '<ereg regexp="[0-9]+" search_in="hdr" header="RSeq:" assign_to="9"/>'


def test_update_in_an_early_dialog(desk: Desk) -> None:
    caller, callee = Caller("caller"), Callee("callee")
    caller.invite(headers="Supported: 100rel\nAllow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE").expect(
        100, optional=True
    )
    caller.expect(183, TRUNK_SDP, rrs=True, keep=RSEQ)
    caller.request("PRACK", 2, headers="RAck: [$9] 1 INVITE").expect(200, "CSeq: 2 PRACK")
    caller.raw('<Reference variables="9"/>')
    caller.request("UPDATE", 3, sdp("a=sendonly", 2)).expect(200, "CSeq: 3 UPDATE", "a=recvonly")
    caller.expect(200, "CSeq: 1 INVITE", rrs=True)
    caller.request("ACK", 1).pause(200)
    caller.hang_up()
    callee.invited()
    callee.answer("183 Session Progress", sdp(), "Require: 100rel\nRSeq: 9", again=False)
    callee.expect("PRACK").reply("200 OK")
    callee.expect("UPDATE", "a=sendonly").reply("200 OK", sdp("a=recvonly", 2))
    callee.pause(300).answer("200 OK", late=True)
    callee.expect("ACK")
    callee.hung_up()
    desk.play(caller, callee)


def test_a_fork_with_two_early_dialogs(desk: Desk) -> None:
    tag = '<ereg regexp="tag=([0-9a-f]+)" search_in="hdr" header="To:" assign_to="{0},{1}"/>'
    caller, callee = Caller("caller"), Callee("callee", tag="two")
    caller.invite().expect(100, optional=True)
    caller.expect(180, keep=tag.format(10, 11)).expect(183, TRUNK_SDP, keep=tag.format(12, 13))
    caller.expect(200, rrs=True, keep=tag.format(14, 15) + _same("13", "15", True) + _same("11", "15", False))
    caller.request("ACK", 1).pause(200)
    caller.hang_up()
    caller.raw('<Reference variables="10,12,14,11,13,15,30,31,32,33"/>')
    callee.invited()
    callee.answer("180 Ringing", tag="one").answer("183 Session Progress", sdp(), tag="two")
    callee.pause(300).answer("200 OK", sdp(), tag="two")
    callee.expect("ACK", "To:.*tag=two").expect("BYE", "To:.*tag=two").reply("200 OK")
    desk.play(caller, callee)


def _same(left: str, right: str, wanted: bool) -> str:
    """Two variables are the same text, or are not."""
    number = 30 if wanted else 32
    return (
        f'<strcmp assign_to="{number}" variable="{left}" variable2="{right}"/>'
        f'<test assign_to="{number + 1}" variable="{number}" compare="{"equal" if wanted else "not_equal"}" value="0"/>'
    )


def test_glare_is_answered_491_and_tried_again(desk: Desk) -> None:
    caller, callee = Caller("caller"), Callee("callee")
    caller.invite().ringing()
    caller.answered().pause(200)
    caller.request("INVITE", 2, sdp(version=2)).expect(100, optional=True).expect(200, "CSeq: 2 INVITE", rrs=True)
    caller.request("ACK", 2)
    caller.expect("INVITE", TRUNK_SDP).reply("200 OK", sdp(version=3))
    caller.expect("ACK").pause(200)
    caller.hang_up()
    callee.invited()
    callee.pick_up()
    callee.expect("INVITE", keep=Callee.KEEP_VIA)
    callee.request("INVITE", 1, sdp(version=2)).expect(100, optional=True).expect(491)
    callee.request("ACK", 1, refused=True)
    callee.pause(200).answer("200 OK", sdp(version=2), late=True)
    callee.expect("ACK").pause(300)
    callee.request("INVITE", 2, sdp(version=3)).expect(100, optional=True).expect(200, "CSeq: 2 INVITE")
    callee.request("ACK", 2)
    callee.hung_up()
    desk.play(caller, callee)


@pytest.mark.parametrize("side", ["trunk", "agent"])
def test_hold_and_resume(desk: Desk, side: str) -> None:
    caller, callee = Caller("caller"), Callee("callee")
    caller.invite().ringing()
    caller.answered().pause(200)
    for cseq, direction, back in ((2, "sendonly", "recvonly"), (3, "sendrecv", "sendrecv")):
        caller.request("INVITE", cseq, sdp(f"a={direction}", cseq)).expect(100, optional=True)
        caller.expect(200, f"a={back}", rrs=True)
        caller.request("ACK", cseq).pause(200)
    caller.hang_up()
    callee.invited()
    callee.pick_up()
    for version, direction, back in ((2, "sendonly", "recvonly"), (3, "sendrecv", "sendrecv")):
        callee.expect("INVITE", f"a={direction}").reply("200 OK", sdp(f"a={back}", version))
        callee.expect("ACK")
    callee.hung_up()
    desk.play(caller, callee, side)


def test_a_cancel_that_crosses_the_200(desk: Desk) -> None:
    caller, callee = Caller("caller"), Callee("callee")
    caller.invite().expect(100, optional=True).expect(180)
    caller.request("CANCEL", 1).expect(200, "CSeq: 1 CANCEL").expect(487)
    caller.request("ACK", 1, refused=True)
    callee.invited()
    callee.answer("180 Ringing").expect("CANCEL").reply("200 OK").answer("200 OK", sdp(), late=True)
    callee.expect("ACK").expect("BYE").reply("200 OK")
    desk.play(caller, callee)


def test_a_bye_that_crosses_a_reinvite(desk: Desk) -> None:
    caller, callee = Caller("caller"), Callee("callee")
    caller.invite().ringing()
    caller.answered().pause(200)
    caller.request("INVITE", 2, sdp(version=2)).expect(100, optional=True).expect(487)
    caller.request("ACK", 2, refused=True).expect("BYE").reply("200 OK")
    callee.invited()
    callee.pick_up()
    callee.expect("INVITE", keep=Callee.KEEP_VIA).request("BYE", 1).expect(200, "CSeq: 1 BYE")
    callee.answer("487 Request Terminated", late=True).expect("ACK")
    desk.play(caller, callee)


def test_session_timer_expiry_ends_the_call(tmp_path: Path) -> None:
    """The shortest that RFC 4028 allows: 90 s, given up a third before."""
    desk = Desk(tmp_path, caller="session_seconds = 90")
    caller, callee = Caller("caller"), Callee("callee")
    caller.invite(headers="Session-Expires: 90;refresher=uac\nSupported: timer").ringing()
    caller.answered("Session-Expires: 90;refresher=uac")
    caller.expect("BYE", "Reason: SIP;cause=408", timeout=70_000).reply("200 OK")
    callee.invited("Session-Expires: 1800")
    callee.pick_up()
    callee.expect("BYE", timeout=70_000).reply("200 OK")
    with desk.site:
        begun = time.monotonic()
        desk.play(caller, callee)
        assert 55 < time.monotonic() - begun < 70
        assert desk.records()[0]["reason"] == "session-expired"


@pytest.mark.parametrize("ask", ["INVITE", "UPDATE"])
def test_a_peer_that_refreshes_keeps_its_call(desk: Desk, ask: str) -> None:
    caller, callee = Caller("caller"), Callee("callee")
    caller.invite(headers="Session-Expires: 120;refresher=uac\nSupported: timer").ringing()
    caller.answered("Session-Expires: 120;refresher=uac").pause(200)
    headers = "Session-Expires: 120;refresher=uac\nSupported: timer"
    caller.request(ask, 2, sdp() if ask == "INVITE" else "", headers).expect(100, optional=True)
    caller.expect(200, "Session-Expires: 120;refresher=uac", rrs=True)
    if ask == "INVITE":
        caller.request("ACK", 2)
    caller.hang_up()
    callee.invited()
    callee.pick_up()
    if ask == "INVITE":
        callee.expect("INVITE").reply("200 OK", sdp())
        callee.expect("ACK")
    callee.hung_up()
    desk.play(caller, callee)


def test_an_outbound_call_is_anchored_and_masked_on_its_trunk_side(tmp_path: Path) -> None:
    """Keys that the called one sends in signalling stay here; those of the agent pass. A site of its own: here the called
    one is where other tests call from, and what is still repeated to those would be the first that it hears."""
    desk = Desk(tmp_path)
    caller, callee = Caller("204"), Callee("customer")
    caller.invite().ringing()
    caller.answered().pause(200)
    caller.request("INFO", 2, INFO.format(5), kind=RELAY).expect(200)
    caller.pause(2000).hang_up()
    callee.invited()
    callee.pick_up()
    callee.expect("INFO", "Signal=5").reply("200 OK")
    callee.request("INFO", 1, INFO.format(7), kind=RELAY).expect(200)
    callee.hung_up()
    with desk.site:
        desk.play(caller, callee, "agent")


@pytest.mark.parametrize(
    ("kind", "event", "body"),
    [
        ("application/kpml-response+xml", "kpml", '<kpml-response version="1.0" code="200" digits="42" tag="d"/>'),
        ("application/dtmf", "", "7"),
    ],
)
def test_keys_in_notify_and_info_stay_here(desk: Desk, kind: str, event: str, body: str) -> None:
    caller, callee = Caller("caller"), Callee("callee")
    caller.invite().ringing()
    caller.answered().pause(200)
    method = "NOTIFY" if event else "INFO"
    headers = f"Event: {event}\nSubscription-State: active" if event else ""
    caller.request(method, 2, body + "\n", headers, kind).expect(200)
    caller.pause(300).hang_up()
    callee.invited()
    callee.pick_up()
    callee.hung_up()
    desk.play(caller, callee)


def test_an_ivr_in_passthrough_that_then_reaches_an_agent(tmp_path: Path) -> None:
    """The IVR hears the caller's keys, transfers, and the agent hears none."""
    desk = Desk(tmp_path, inbound='mode = "passthrough"')
    caller, callee = Caller("caller"), Callee("ivr")
    caller.invite().ringing()
    caller.answered().pause(300)
    caller.request("INFO", 2, INFO.format(1), kind=RELAY).expect(200).pause(2500)
    caller.request("INFO", 3, INFO.format(2), kind=RELAY).expect(200).pause(500)
    caller.hang_up()
    callee.expect("INVITE", keep=Callee.KEEP + REFERRED).raw('<nop next="agent" test="8"/>')
    callee.pick_up()
    callee.expect("INFO", "Signal=1").reply("200 OK")
    callee.request("REFER", 1, headers="Refer-To: <sip:305@[local_ip]:[local_port]>").expect(202)
    for status in ("100 Trying", "200 OK"):
        callee.expect("NOTIFY", "Event: refer", f"SIP/2.0 {status}").reply("200 OK")
    callee.request("BYE", 2).expect(200).raw('<nop next="end"/>')
    callee.raw('<label id="agent"/>')
    callee.pick_up().expect("BYE").reply("200 OK")
    callee.raw('<label id="end"/>')
    callee._declared.append(8)
    with desk.site:
        desk.play(caller, callee, calls=(1, 2))
        assert desk.records()[0]["modes"] == ["passthrough", "guarded"]
        assert desk.records()[0]["transfers"] == 1
        desk.clean()


REFERRED = '<ereg regexp="Referred-By" search_in="msg" assign_to="8"/>'


def test_a_transfer_with_a_capture_armed_goes_on_to_the_token(tmp_path: Path) -> None:
    """REFER while the caller keys: carried out here, nothing goes to the trunk, and the capture ends in a token."""
    desk = Desk(tmp_path)
    card = live.CARD
    caller, callee = Caller("caller"), Callee("agent")
    caller.invite().ringing()
    caller.answered().pause(1500)
    keys = f"{card}{live.EXPIRY}737"
    for i, key in enumerate(keys):
        caller.request("INFO", 2 + i, INFO.format(key), kind=RELAY).expect(200).pause(250)
    caller.pause(1500).hang_up()
    callee.expect("INVITE", keep=Callee.KEEP + REFERRED).raw('<nop next="agent" test="8"/>')
    callee.pick_up().pause(2500)
    callee.request("REFER", 1, headers="Refer-To: <sip:305@[local_ip]:[local_port]>").expect(202)
    for status in ("100 Trying", "200 OK"):
        callee.expect("NOTIFY", "Event: refer", f"SIP/2.0 {status}").reply("200 OK")
    callee.expect("BYE", timeout=12_000).reply("200 OK").raw('<nop next="end"/>')
    callee.raw('<label id="agent"/>')
    callee.pick_up().expect("BYE").reply("200 OK")
    callee.raw('<label id="end"/>')
    callee._declared.append(8)
    seen: dict[str, Any] = {}

    def capture(site: Site) -> None:
        seen.update(live.capture(site, "204"))

    with desk.site:
        desk.play(caller, callee, calls=(1, 2), during=capture)
        assert seen["state"] == "token"
        assert desk.records()[0]["captures"] == 1
        assert card not in desk.site.log.read_text() + desk.site.cdr.read_text()


def test_hold_while_armed_is_answered_here_and_the_keys_keep_flowing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    caller, callee = Caller("caller"), Callee("agent")
    caller.invite().ringing()
    caller.answered().pause(1500)
    for i, key in enumerate(f"{live.CARD}{live.EXPIRY}737"):
        caller.request("INFO", 2 + i, INFO.format(key), kind=RELAY).expect(200).pause(200)
    caller.pause(1500).hang_up()
    callee.invited()
    callee.pick_up().pause(2500)
    callee.request("INVITE", 1, sdp("a=sendonly", 2)).expect(100, optional=True).expect(200, "a=recvonly")
    callee.request("ACK", 1)
    callee.expect("BYE", timeout=30_000).reply("200 OK")
    seen: dict[str, Any] = {}
    with desk.site:
        desk.play(caller, callee, during=lambda site: seen.update(live.capture(site, "204")))
        assert seen["state"] == "token"


@pytest.mark.parametrize("dead", ["silent", "refusing", "closed"])
def test_failover_to_a_second_next_hop(tmp_path: Path, dead: str) -> None:
    """The first next hop says nothing, or 503, or is not there at all."""
    first = free_port()
    desk = Desk(tmp_path)
    settings = f'address = "127.0.0.1:{first}"\nbackups = ["127.0.0.1:{desk.ports[1]}"]\nfailover_seconds = 1'
    desk.site = Site(tmp_path, tmp_path, *desk.ports, record=False, settings={"desk": settings})
    silent = Callee("silent")
    if dead == "refusing":
        silent.invited()
        silent.answer("503 Service Unavailable").expect("ACK")
    else:
        silent.expect("INVITE").pause(2500)
    with desk.site:
        if dead == "closed":
            desk.play(simple(), answering())
        else:
            with Sipp(tmp_path, "first", silent.xml(), first, 16500):
                time.sleep(0.2)
                desk.play(simple(), answering())
        desk.clean()


@pytest.mark.parametrize(("status", "algorithm"), [(401, "MD5"), (407, "MD5")])
def test_digest_towards_a_peer_that_asks(tmp_path: Path, status: int, algorithm: str) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    desk = Desk(tmp_path, desk=f'username = "box"\npassword_file = "{secret}"')
    callee = Callee("callee")
    name, answer = {
        401: ("WWW-Authenticate", "Authorization"),
        407: ("Proxy-Authenticate", "Proxy-Authorization"),
    }[status]
    callee.invited(lacks=(answer,))
    challenge = f'{name}: Digest realm="pbx", nonce="47ebe028cda119c35d4877b383027d28da013815", algorithm={algorithm}, qop="auth"'
    callee.answer(f"{status} Unauthorized", headers=challenge).expect("ACK")
    verify = '<verifyauth assign_to="9" username="box" password="s3cret"/>'
    if status == 407:  # sipp verifies Authorization alone
        verify = f'<ereg regexp="response=.[0-9a-f]+" search_in="hdr" header="{answer}:" assign_to="9"/>'
    callee.expect("INVITE", f'{answer}: Digest username="box"', "nc=00000001", keep=Callee.KEEP + verify)
    callee.raw('<nop next="good" test="9"/>').answer("403 Forbidden").expect("ACK")
    callee.raw('<nop next="end"/><label id="good"/>')
    callee.answer("180 Ringing").pick_up()
    callee.expect("BYE").reply("200 OK").raw('<label id="end"/>')
    callee._declared.append(9)
    with desk.site:
        desk.play(simple(), callee)
        assert "s3cret" not in desk.site.log.read_text()


def test_calls_are_recorded_a_line_each_without_digits(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    with desk.site:
        caller = Caller("4930123")
        caller.invite().ringing()
        caller.answered().pause(300)
        caller.request("INFO", 2, INFO.format(9), kind=RELAY).expect(200)
        caller.hang_up()
        desk.play(caller, answering())
        refused, busy = Caller("4930124"), Callee("busy")
        refused.invite().expect(100, optional=True).expect(486)
        refused.request("ACK", 1, refused=True)
        busy.invited()
        busy.answer("486 Busy Here").expect("ACK")
        desk.play(refused, busy)
        first, second = desk.records()
    assert (first["from"], first["to"], first["reason"], first["direction"]) == ("4930123", "204", "bye", "inbound")
    assert first["seconds"] > 0.2
    assert first["codec"] == "PCMU/8000"
    assert (second["status"], second["reason"], second["answered"]) == (486, "refused", None)
