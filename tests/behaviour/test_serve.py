"""`flattone serve` under bad input and faults: a clear error or counter, no crash of the rest, masked throughout."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dsp import g711, synth
from mediaproxy.demo.phone import Phone
from mediaproxy.demo.site import EXTENSION, listening_port
from tests.fixtures import live
from tests.fixtures.live import CARD, CVV, EXPIRY, Live, read_metrics


def run(scenario: object) -> None:
    asyncio.run(scenario)  # type: ignore[arg-type]


def serve(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mediaproxy", "serve", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


LISTENS = ("trunk.sip_listen", "agent.sip_listen", "api.listen")


def minimal(ports: dict[str, str]) -> str:
    """The smallest configuration."""
    return (
        f'[trunk]\nsip_listen = "{ports["trunk.sip_listen"]}"\nrtp_address = "127.0.0.1"\n'
        f'[agent]\nsip_listen = "{ports["agent.sip_listen"]}"\nrtp_address = "127.0.0.1"\n'
        f'[api]\nlisten = "{ports["api.listen"]}"\n[media]\nworkers = 1\n'
        '[[peer]]\nname = "a"\nside = "trunk"\naddress = "127.0.0.1:5099"\n'
        '[[peer]]\nname = "b"\nside = "agent"\naddress = "127.0.0.1:5098"\n'
        '[[route]]\nname = "r"\nfrom = "a"\nto = "b"\n'
    )


@pytest.mark.parametrize("setting", LISTENS)
def test_an_occupied_port_is_named(tmp_path: Path, setting: str) -> None:
    kind = socket.SOCK_STREAM if setting == "api.listen" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        ports = {name: f"127.0.0.1:{listening_port()}" for name in LISTENS}
        ports[setting] = f"127.0.0.1:{taken.getsockname()[1]}"
        config = tmp_path / "f.toml"
        config.write_text(minimal(ports))
        done = serve(config)
    assert done.returncode == 1
    assert setting in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_configuration_exits_2(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text("[trunk]\nsip_listen = 5\n")
    done = serve(tmp_path / "f.toml")
    assert done.returncode == 2
    assert "f.toml:2: trunk.sip_listen" in done.stderr


def test_sigterm_refuses_new_calls_and_ends_running_ones(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            os.kill(up.site.pid, signal.SIGTERM)
            await up.until("stopping")
            late = Phone("late")
            await late.open()
            late.call(EXTENSION, up.site.trunk)
            await asyncio.wait_for(late.ended.wait(), 3)
            assert late.status == 503
            late.close()
            await asyncio.wait_for(asyncio.gather(up.caller.ended.wait(), up.desk.ended.wait()), 8)
            assert await asyncio.to_thread(up.site.stop) == 0
            assert len(list(tmp_path.glob("*.wav"))) == 1

    run(scenario())


@pytest.mark.parametrize("worker", ["media-0", "vault", "agent", "signalling", "recording"])
def test_a_killed_process_harms_nothing_else_and_unmasks_nothing(tmp_path: Path, worker: str) -> None:
    """In the middle of a capture, keys before, while and after."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            up.caller.say(g711.encode(synth.speechlike(0.5, np.random.default_rng(1), -20), g711.PCMU))
            capture = await up.start()
            up.key(CARD[:10])
            await asyncio.sleep(0.9)
            others = {
                name: up.pid(name)
                for name in ("media-0", "vault", "agent", "signalling", "recording")
                if name != worker
            }
            before = len(up.desk.media.heard)
            os.kill(up.pid(worker), signal.SIGKILL)
            await up.until("process-ended", worker)
            up.key(CARD[10:] + EXPIRY + CVV)
            await up.silent()
            await asyncio.sleep(1.2)
            assert all(live.alive(pid) for pid in others.values())
            assert len(up.desk.media.heard) > before + 50  # the call goes on
            assert len(up.caller.media.heard) > before + 50
            assert up.leaked() == []
            if worker == "media-0":  # the same capture goes on once a supervisor has released the leg
                (shown,) = (await up.api("GET", "/v1/calls"))[1]["calls"]
                assert shown["mode"] == "sealed"
                state = (await up.api("GET", f"/v1/captures/{capture}"))[1]
                assert (state["state"], state["fields"][0]["digits_received"]) == ("keying", 0)
                assert state["fields"][0]["reason"] == "interrupted"
                assert (await up.api("POST", f"/v1/calls/{shown['id']}/release"))[0] == 202
                await asyncio.sleep(0.3)
                up.key(CARD + EXPIRY + CVV)
                assert (await up.ended(capture))["state"] == "token"
            elif worker in ("vault", "signalling"):
                last = await up.ended(capture)
                assert last["state"] == "failed", last
                calls = (await up.api("GET", "/v1/calls"))[1]["calls"]
                assert [c["mode"] for c in calls] == ([] if worker == "signalling" else ["sealed"])
                if calls:
                    assert (await up.api("POST", f"/v1/calls/{calls[0]['id']}/release"))[0] == 202
                    await asyncio.sleep(0.3)
                    again = await up.start()
                    up.key(CARD + EXPIRY + CVV)
                    assert (await up.ended(again))["state"] == "token"
            elif worker == "recording":
                assert (await up.ended(capture))["state"] == "token"
                assert list(tmp_path.glob("*.part"))  # what was lost shows
            else:  # the agent process learns of the capture again
                assert (await up.ended(capture))["state"] == "token"
            assert up.leaked() == []
            text = up.files()
            assert CARD not in text
            assert '"error"' in up.site.log.read_text()

    run(scenario())


def test_a_dead_gateway_fails_the_capture_and_keeps_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            up.site._processes[0].kill()
            up.site._processes[0].wait()
            capture = await up.start()
            up.key(CARD + EXPIRY + CVV)
            last = await up.ended(capture)
            assert (last["state"], last["reason"]) == ("failed", "gateway-unavailable")
            assert "last4" not in last
            assert CARD not in up.files()
            await up.modes("guarded")

    run(scenario())


def test_strangers_and_unknown_payloads_are_dropped_and_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            await asyncio.sleep(0.3)
            assert up.caller.media.remote is not None
            target = up.caller.media.remote
            packet = struct.pack("!BBHII", 0x80, 0, 1, 160, 7) + bytes(160)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind(("127.0.0.2", 0))
                for _ in range(50):
                    stranger.sendto(packet, target)
                stranger.sendto(b"INVITE sip:204@x SIP/2.0\r\n\r\n", up.site.trunk)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(("127.0.0.1", 0))
                for pt in (13, 96, 110, 126):
                    peer.sendto(struct.pack("!BBHII", 0x80, pt, 1, 160, 9) + bytes(160), target)
                for size in (0, 1, 11, 2048, 9000, 60000):
                    peer.sendto(bytes([0x80]) * size, target)
                for message in (
                    b"garbage",
                    b"INVITE sip:204 SIP/2.0\r\n\r\n",
                    b"OPTIONS sip:x SIP/2.0\r\nVia: \r\n\r\n" + b"x" * 60000,
                ):
                    peer.sendto(message, up.site.trunk)
            before = len(up.desk.media.heard)
            await asyncio.sleep(2.6)
            metrics = await asyncio.to_thread(read_metrics, up.site)
            dropped = ("strangers", "kernel_drops")  # by the worker, or before it by the kernel
            assert sum(metrics[f'flattone_media_{name}_total{{worker="media-0"}}'] for name in dropped) == 50
            assert metrics['flattone_media_unknown_payload_total{worker="media-0"}'] >= 4
            assert metrics['flattone_signalling_strangers_total{worker="signalling"}'] == 1
            assert metrics['flattone_signalling_malformed_total{worker="signalling"}'] >= 2
            assert len(up.desk.media.heard) >= before + 120
            assert not any(line["level"] == "error" for line in up.log())

    run(scenario())


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    """stderr is closed, or a pipe whose reader has gone."""
    script = """
import sys
from mediaproxy import log
log.configure("t")
sys.stderr.close()
log.get().error("x")
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n"


def test_an_offer_without_a_codec_is_refused_488(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            odd = Phone("odd")
            odd._description = lambda: (
                b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 18\r\n"
            )  # type: ignore[method-assign]
            await odd.open()
            odd.call(EXTENSION, up.site.trunk)
            await asyncio.wait_for(odd.ended.wait(), 5)
            assert odd.status == 488
            odd.close()

    run(scenario())


def test_a_recording_that_cannot_be_finished_stops_no_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            before = len(up.desk.media.heard)
            for part in tmp_path.glob("*.part"):
                part.unlink()
            await asyncio.sleep(1)
            up.caller.hang_up()
            await asyncio.wait_for(up.desk.ended.wait(), 5)
            assert len(up.desk.media.heard) > before + 30
            assert (await up.until("recording-failed"))["level"] == "error"

    run(scenario())


def test_event_and_inband_keys_of_one_press_count_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            capture = await up.start()
            for key in CARD + EXPIRY + CVV:
                up.key(key, 60)  # a gateway that lets the tone through before it sends the event
                up.caller.key_events(key, packets=3, pause=6)
            last = await up.ended(capture, 40)
            assert last["state"] == "token", last
            assert [f["digits_received"] for f in last["fields"]] == [16, 4, 3]
            assert up.leaked() == []

    run(scenario())


def test_the_agents_reset_cancel_and_the_callers_star(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path, outbound=True) as up:
            capture = await up.start()
            assert (await up.api("POST", "/v1/captures", {"call": {"extension": EXTENSION}}))[0] == 409
            up.key("4111*" + CARD)
            await up.silent()
            await asyncio.sleep(0.8)
            assert (await up.api("POST", f"/v1/captures/{capture}/fields/pan/reset"))[0] == 202
            up.key(CARD + EXPIRY + CVV)
            assert (await up.ended(capture))["state"] == "token"
            second = await up.start(fields=["cvv"])
            assert (await up.api("POST", f"/v1/captures/{second}/cancel"))[0] == 202
            assert (await up.ended(second))["state"] == "cancelled"
            assert up.leaked() == []

    run(scenario())


def test_the_rhythm_of_keys_does_not_show_however_often_one_asks(tmp_path: Path) -> None:
    """Counts change on a grid of a third of a second, also for a client that asks and acts all the time."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            capture = await up.start()
            up.key(CARD[:12])
            seen, changes = 0, []
            begun = time.monotonic()
            while time.monotonic() - begun < 3:
                await up.api("POST", f"/v1/captures/{capture}/submit")
                _, body = await up.api("GET", f"/v1/captures/{capture}")
                count = body["fields"][0]["digits_received"]
                if count != seen:
                    changes.append(time.monotonic())
                    seen = count
            assert seen == 12
            assert len(changes) >= 3
            assert min(np.diff(changes)) > 0.3  # the keys themselves are 0.15 s apart

    run(scenario())


def test_the_api_asks_who_is_there_and_echoes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            token, up.site.token = up.site.token, "wrong"
            for method, path in (
                ("POST", "/v1/captures"),
                ("GET", "/v1/calls"),
                ("GET", "/v1/captures/1"),
                ("POST", "/v1/calls/x/release"),
            ):
                assert (await up.api(method, path))[0] == 401
            up.site.token = token
            for path, body, status in (
                ("/v1/captures", {"call": {"extension": "4111111111111111"}}, 404),
                ("/v1/captures", {"call": {}}, 422),
                ("/v1/captures", {"call": {"extension": EXTENSION}, "fields": ["pin"]}, 422),
                ("/v1/captures", {"pan": "4111111111111111"}, 422),
                ("/v1/captures/4111111111111111/cancel", None, 404),
                ("/v1/calls/4111111111111111/guard", None, 404),
                ("/v1/nothing", None, 404),
            ):
                got, answer = await up.api("POST", path, body)
                assert got == status
                assert "4111" not in str(answer)
                assert answer["status"] == status
            assert (await up.api("GET", "/healthz"))[0] == 200
            assert (await up.api("GET", "/readyz"))[0] == 200

    run(scenario())


def test_no_process_outlives_the_supervisor(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            pids = [up.pid(worker) for worker in ("media-0", "vault", "agent", "signalling", "recording")]
            os.kill(up.site.pid, signal.SIGKILL)
            for _ in range(50):
                await asyncio.sleep(0.1)
                if not any(map(live.alive, pids)):
                    return
            raise AssertionError("a process outlived its supervisor")

    run(scenario())


@pytest.mark.parametrize("after", [0.05, 0.15, 0.3, 0.45])
def test_no_process_outlives_a_supervisor_killed_while_it_starts(tmp_path: Path, after: float) -> None:
    (tmp_path / "f.toml").write_text(minimal({name: f"127.0.0.1:{listening_port()}" for name in LISTENS}))
    command = [sys.executable, "-m", "mediaproxy", "serve", "--config", str(tmp_path / "f.toml")]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        time.sleep(0.25 + after)
        process.kill()
    left = [line["pid"] for line in live.read_log(tmp_path / "log") if line["event"] == "started"]
    deadline = time.monotonic() + 8
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = [pid for pid in left if live.alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def test_a_stuck_process_is_ended_and_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            pid = up.pid("recording")
            os.kill(pid, signal.SIGSTOP)
            await up.until("process-stuck", "recording", 20)
            await up.until("process-ended", "recording")
            assert not live.alive(pid)
            assert up.leaked() == []

    run(scenario())


def test_a_call_without_rtp_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            assert isinstance(up, Live)
            begun = time.monotonic()
            for phone in (up.caller, up.desk):
                assert phone._talking is not None
                phone._talking.cancel()
            await asyncio.wait_for(asyncio.gather(up.caller.ended.wait(), up.desk.ended.wait()), 15)
            assert time.monotonic() - begun >= 4
            assert any(line.get("reason") == "rtp-timeout" for line in up.log())

    with configured(monkeypatch, "workers = 1", "workers = 1\nrtp_timeout_seconds = 5"):
        run(scenario())


def test_passthrough_relays_keys_until_it_is_guarded_and_never_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            up.caller.key_events("12")
            await up.silent()
            await asyncio.sleep(0.3)
            before = up.desk.media.events_heard
            assert before >= 8
            (call,) = (await up.api("GET", "/v1/calls"))[1]["calls"]
            assert call["mode"] == "passthrough"
            assert (await up.api("POST", f"/v1/calls/{call['id']}/release"))[0] == 409
            assert (await up.api("POST", f"/v1/calls/{call['id']}/guard"))[0] == 202
            await asyncio.sleep(0.3)
            up.caller.key_events("34")
            up.key("56")
            await up.silent()
            await asyncio.sleep(0.3)
            assert up.desk.media.events_heard == before
            assert up.leaked() == []
            assert (await up.api("POST", f"/v1/calls/{call['id']}/guard"))[0] == 409
            assert (await up.ended(await fill(up)))["state"] == "token"
            assert (await up.ended(await fill(up)))["state"] == "token"  # at once after the first

    with configured(monkeypatch, 'name = "inbound"', 'name = "inbound"\nmode = "passthrough"'):
        run(scenario())


async def fill(up: Live) -> str:
    capture = await up.start()
    up.key(CARD + EXPIRY + CVV)
    return capture


@contextlib.contextmanager
def configured(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> Iterator[None]:
    """Sites started meanwhile have `new` for `old` in their configuration."""
    text = live.Site._text
    with monkeypatch.context() as patch:
        patch.setattr(live.Site, "_text", lambda *a: text(*a).replace(old, new))
        yield


def test_a_media_worker_that_grows_too_large_is_restarted(tmp_path: Path) -> None:
    """With a limit that every worker exceeds, and so again and again, until the supervisor gives up."""
    ports = {name: f"127.0.0.1:{listening_port()}" for name in LISTENS}
    config = tmp_path / "f.toml"
    config.write_text(minimal(ports).replace("workers = 1\n", "workers = 1\nmemory_limit_mb = 64\nmax_calls = 2000\n"))
    done = serve(config)
    assert done.returncode == 1
    assert '"process-too-large"' in done.stderr
    assert "media-0 ended" in done.stderr
