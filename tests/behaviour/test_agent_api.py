"""The agent API on live calls: who may see and do what, from which pages, how fast; what is written down about it."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mediaproxy.demo import certificates
from mediaproxy.demo.site import EXTENSION
from tests.fixtures import live
from tests.fixtures.issuer import Issuer, Key
from tests.fixtures.live import CARD, CVV, EXPIRY, Live

RULES = Path(__file__).parents[1] / "fixtures" / "schemathesis.toml"
CRM = "https://crm.example.com"
TOKENS = {
    "other-agent": 'numbers = ["205"]', "acme-agent": 'tenant = "acme"\nnumbers = ["204"]',
    "acme-supervisor": 'tenant = "acme"\nrole = "supervisor"', "own-auditor": 'role = "auditor"', "own-supervisor": 'role = "supervisor"',
}  # fmt: skip


def run(scenario: Any) -> None:
    asyncio.run(scenario)


def token(name: str, lines: str) -> str:
    """A table for a token whose secret is its name."""
    return f'[[api.tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{lines}\n'


async def ask(
    up: Live, method: str, path: str, bearer: str | None, body: Any = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """(status, parsed answer, its headers)."""

    def request() -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", up.site.api, timeout=10)
        try:
            sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): v for name, v in headers.items()}
            if bearer is not None:
                sent["Authorization"] = f"Bearer {bearer}"
            connection.request(method, path, json.dumps(body) if body is not None else None, sent)
            answer = connection.getresponse()
            data = answer.read()
            kind = answer.headers.get("content-type", "")
            parsed = json.loads(data) if "json" in kind else data.decode()
            return answer.status, parsed, {name.lower(): value for name, value in answer.headers.items()}
        finally:
            connection.close()

    return await asyncio.to_thread(request)


def audited(up: Live, tenant: str = "") -> list[dict[str, Any]]:
    """The lines of an audit log, but for those of the start."""
    path = up.site.audit / f"audit{'-' if tenant else ''}{tenant}.jsonl"
    lines = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    return [line for line in lines if line["action"] != "started"]


def told(up: Live, tenant: str = "") -> list[tuple[str, str, str, str]]:
    """(who, action, result, reason) of each line."""
    return [(e["who"], e["action"], e["result"], e.get("reason", "")) for e in audited(up, tenant)]


START = {"call": {"extension": EXTENSION}}


def test_an_agents_token_reaches_only_calls_on_its_own_extension(tmp_path: Path) -> None:
    more = "".join(token(name, lines) for name, lines in TOKENS.items() if "acme" not in lines)

    async def scenario() -> None:
        async with live.call(tmp_path, settings={"more": more}) as up:
            other, own = "other-agent", up.site.agent_token
            (call,) = (await ask(up, "GET", "/v1/calls", own))[1]["calls"]
            assert (await ask(up, "GET", "/v1/calls", other))[1]["calls"] == []
            for which in (START, {"call": {"call_id": call["id"]}}, {"call": {"call_id": call["sip_call_ids"][0]}}):
                status, body, _ = await ask(up, "POST", "/v1/captures", other, which)
                assert (status, body["title"]) == (404, "no-call")
            assert (await ask(up, "GET", "/v1/calls", own))[1]["calls"][0]["mode"] == "guarded"
            status, capture, _ = await ask(up, "POST", "/v1/captures", own, START)
            assert status == 201
            path = f"/v1/captures/{capture['id']}"
            for method, place in (
                ("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/submit"), ("POST", "/fields/pan/reset"),
            ):  # fmt: skip
                status, body, _ = await ask(up, method, path + place, other)
                assert (status, body["title"]) == (404, "not-found"), place
            assert (await ask(up, "GET", f"/v1/captures?extension={EXTENSION}", other))[1]["captures"] == []
            assert (await ask(up, "GET", path, own))[1]["state"] == "keying"
            for path_of_supervisors in (f"/v1/calls/{call['id']}/release", f"/v1/calls/{call['id']}/guard"):
                assert (await ask(up, "POST", path_of_supervisors, own))[0] == 403
            for method, path_, who in (
                ("GET", "/v1/audit", own), ("GET", "/v1/alarms", own), ("POST", "/v1/captures", "own-auditor"),
                ("GET", path, "own-auditor"), ("POST", path + "/cancel", "own-auditor"),
            ):  # fmt: skip
                assert (await ask(up, method, path_, who, START if method == "POST" else None))[0] == 403, path_
            refused = [line for line in told(up) if line[2] == "refused"]
            assert refused[:3] == [("other-agent", "capture-start", "refused", "no-call")] * 3
            assert [line[1] for line in refused[3:8]] == [
                "capture-show", "capture-events", "capture-cancel", "capture-submit", "capture-reset",
            ]  # fmt: skip
            assert {line[3] for line in refused[8:]} == {"forbidden"}
            assert len(refused) == 15

    run(scenario())


def test_tenants_are_apart_in_calls_captures_orders_and_audit_logs(tmp_path: Path) -> None:
    settings = {
        "inbound": 'tenant = "acme"', "outbound": 'tenant = "acme"',
        "more": '[[tenant]]\nname = "acme"\n' + "".join(token(name, lines) for name, lines in TOKENS.items()),
    }  # fmt: skip

    async def scenario() -> None:
        async with live.call(tmp_path, settings=settings) as up:
            (call,) = (await ask(up, "GET", "/v1/calls", "acme-supervisor"))[1]["calls"]
            assert call["tenant"] == "acme"
            for stranger in (
                "own-supervisor",
                "own-auditor",
                up.site.agent_token,
            ):  # the same extension, another tenant
                assert (await ask(up, "GET", "/v1/calls", stranger))[1]["calls"] == []
            for stranger in ("own-supervisor", up.site.agent_token):
                assert (await ask(up, "POST", "/v1/captures", stranger, START))[0] == 404
            assert (await ask(up, "POST", f"/v1/calls/{call['id']}/release", "own-supervisor"))[0] == 404
            status, capture, _ = await ask(up, "POST", "/v1/captures", "acme-agent", START)
            assert status == 201
            path = f"/v1/captures/{capture['id']}"
            for method, place in (("GET", ""), ("POST", "/cancel"), ("GET", "/events")):
                assert (await ask(up, method, path + place, "own-supervisor"))[0] == 404
            assert (await ask(up, "POST", path + "/cancel", "acme-supervisor"))[0] == 202
            assert (await up.ended(capture["id"]))["state"] == "cancelled"
            assert ("acme-agent", "capture-start", "ok", "") in told(up, "acme")
            assert ("flattone", "capture-ended", "cancelled", "agent") in told(up, "acme")
            assert all(line[2] == "refused" for line in told(up))  # of the others only that they were turned away
            status, own, _ = await ask(up, "GET", "/v1/audit", "own-auditor")
            assert status == 200
            assert "acme" not in json.dumps(own)
            _, every, _ = await ask(up, "GET", "/v1/audit?tenant=acme", up.site.auditor_token)
            assert [e["action"] for e in every["entries"]] == [line[1] for line in told(up, "acme")]
            assert (await ask(up, "GET", "/v1/audit?tenant=acme", "own-auditor"))[0] == 404
            assert (await ask(up, "GET", "/v1/audit?tenant=nobody", up.site.auditor_token))[0] == 404
            assert (await ask(up, "GET", "/v1/alarms", "acme-supervisor"))[0] == 403  # of the whole machine
            assert (await ask(up, "GET", "/v1/alarms", up.site.token))[0] == 200
            done = [line for line in up.log() if line["event"] == "audit" and line.get("tenant") == "acme"]
            assert len(done) == len(told(up, "acme"))

    run(scenario())


def test_a_gateway_for_two_tenants_is_refused_at_the_start(tmp_path: Path) -> None:
    site = live.Site(
        tmp_path, tmp_path, 5001, 5002,
        settings={"inbound": 'tenant = "acme"', "more": '[[tenant]]\nname = "acme"'},
    )  # fmt: skip
    with pytest.raises(Exception, match="did not start"):
        site.__enter__()
    assert "reference would serve two tenants" in site.log.read_text()


def test_signed_tokens_come_in_and_stale_or_forged_ones_do_not(tmp_path: Path) -> None:
    (tmp_path / "idp").mkdir()

    async def scenario(idp: Issuer) -> None:
        async with live.call(tmp_path, settings={"more": idp.config()}) as up:
            status, me, _ = await ask(up, "GET", "/v1/me", idp.token())
            assert (status, me["name"], me["by"], me["numbers"]) == (200, "ann@example.org", "idp", ["204"])
            status, capture, _ = await ask(up, "POST", "/v1/captures", idp.token(), START)
            assert status == 201
            path = f"/v1/captures/{capture['id']}"
            now = int(time.time())
            for bad, kind in (
                (idp.token(exp=now - 100), "token-expired"),
                (idp.token(Key("one"), scope="supervisor"), "unauthorized"),
                (idp.token(aud="other"), "unauthorized"),
                (None, "unauthorized"),
                ("x", "unauthorized"),
            ):
                for method, place in (("GET", path), ("POST", path + "/cancel"), ("POST", "/v1/captures")):
                    status, body, headers = await ask(up, method, place, bad, START)
                    assert (status, body["title"]) == (401, kind)
                    assert headers["www-authenticate"] == "Bearer"
            assert (await ask(up, "POST", path + "/cancel", idp.token(extension="205")))[0] == 404
            assert (await ask(up, "GET", path, idp.token()))[1]["state"] == "keying"
            refused = [line for line in told(up) if line[2] == "refused"]
            assert len(refused) == 16
            assert ("nobody", "capture-cancel", "refused", "token-expired") in refused
            assert up.files().count("ann@example.org") >= 2
            assert idp.token().split(".")[1] not in up.files()

    with Issuer(certificates.make(tmp_path / "idp")) as idp:
        run(scenario(idp))


def test_a_stream_ends_when_its_token_does_and_goes_on_with_a_fresh_one(tmp_path: Path) -> None:
    (tmp_path / "idp").mkdir()

    async def scenario(idp: Issuer) -> None:
        async with live.call(tmp_path, settings={"more": idp.config("leeway_seconds = 0")}) as up:
            capture = await up.start()
            short = idp.token(exp=int(time.time()) + 3)
            began = time.monotonic()
            status, text, _ = await ask(up, "GET", f"/v1/captures/{capture}/events", short)
            assert status == 200
            assert 1 < time.monotonic() - began < 5
            last = [line[4:] for line in text.splitlines() if line.startswith("id: ")][-1]
            up.key("411")
            await up.silent()
            await asyncio.sleep(0.6)
            await up.api("POST", f"/v1/captures/{capture}/cancel")
            _, text, _ = await ask(up, "GET", f"/v1/captures/{capture}/events", idp.token(), Last_Event_ID=last)
            events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
            assert events[0]["digits_received"] in (1, 2, 3)
            assert events[-1]["state"] == "cancelled"

    with Issuer(certificates.make(tmp_path / "idp")) as idp:
        run(scenario(idp))


def test_pages_of_other_sites_are_turned_away(tmp_path: Path) -> None:
    acme = "https://acme.example.com"
    settings = {
        "api": f'origins = ["{CRM}"]',
        "more": f'[[tenant]]\nname = "acme"\norigins = ["{acme}"]\n' + token("acme-agent", TOKENS["acme-agent"]),
    }

    async def scenario() -> None:
        async with live.call(tmp_path, settings=settings) as up:
            own, agent = f"http://127.0.0.1:{up.site.api}", up.site.agent_token
            for origin in (None, own, CRM):
                headers = {"Origin": origin} if origin else {}
                status, _, answer = await ask(up, "GET", "/v1/calls", agent, **headers)
                assert status == 200
                assert answer.get("access-control-allow-origin") == (CRM if origin == CRM else None)
            for origin in (
                "https://evil.example.com", "null", "https://crm.example.com.evil.org", "http://crm.example.com",
                "https://crm.example.com:444", f"http://evil@127.0.0.1:{up.site.api}", "file://", "https://4111111111111111",
            ):  # fmt: skip
                status, body, answer = await ask(up, "GET", "/v1/calls", agent, Origin=origin)
                assert (status, body["title"]) == (403, "origin"), origin
                assert "access-control-allow-origin" not in answer
            # A known site, with a token of somebody else's tenant
            status, body, _ = await ask(up, "GET", "/v1/calls", agent, Origin=acme)
            assert (status, body["title"]) == (403, "origin")
            assert (await ask(up, "GET", "/v1/calls", "acme-agent", Origin=acme))[0] == 200
            assert (await ask(up, "GET", "/v1/calls", up.site.token, Origin=acme))[0] == 200  # of every tenant
            lines = [e for e in audited(up) if e["result"] == "refused"]
            assert len(lines) == 9
            assert lines[0]["origin"] == "https://evil.example.com"
            assert "4111111111111111" not in up.files()
            ask_first = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
            status, _, answer = await ask(up, "OPTIONS", "/v1/captures", None, Origin=CRM, **ask_first)
            assert (status, answer["access-control-allow-origin"]) == (204, CRM)
            assert "Authorization" in answer["access-control-allow-headers"]
            status, *_ = await ask(up, "OPTIONS", "/v1/captures", None, Origin="https://evil.example.com", **ask_first)
            assert status == 403
            for path, ancestors in (
                ("/embed", CRM), ("/embed?tenant=acme", acme), ("/agent", "'none'"), ("/live", "'none'"),
            ):  # fmt: skip
                _, _page, answer = await ask(up, "GET", path, None)
                assert answer["content-security-policy"].endswith(f"frame-ancestors {ancestors}"), path
                assert "default-src 'none'" in answer["content-security-policy"]
            assert (await ask(up, "GET", "/embed?tenant=<script>", None))[0] == 404

    run(scenario())


def test_too_many_requests_are_told_to_wait_and_harm_nobody_else(tmp_path: Path) -> None:
    settings = {"api": "requests_a_second = 2", "more": token("other-agent", TOKENS["other-agent"])}

    async def scenario() -> None:
        async with live.call(tmp_path, settings=settings) as up:
            found = [await ask(up, "GET", "/v1/calls", up.site.agent_token) for _ in range(20)]
            assert [status for status, *_ in found[:10]] == [200] * 10
            status, body, headers = found[-1]
            assert (status, body["title"], headers["retry-after"]) == (429, "too-many-requests", "1")
            assert (await ask(up, "GET", "/v1/calls", "other-agent"))[0] == 200
            assert (await ask(up, "GET", "/v1/calls", up.site.token))[0] == 200
            guesses = [(await ask(up, "GET", "/v1/calls", f"guess-{i}"))[0] for i in range(120)]
            assert guesses[:40] == [401] * 40
            assert guesses[-1] == 429
            assert (await ask(up, "GET", "/v1/calls", up.site.token))[0] == 200  # whoever has a token is not held up
            assert sum(line[2] == "refused" for line in told(up)) < 100

    run(scenario())


def test_streams_have_a_limit_and_come_back_after_a_restart_of_the_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path, settings={"api": "streams = 1"}) as up:
            capture = await up.start()
            first = asyncio.create_task(ask(up, "GET", f"/v1/captures/{capture}/events", up.site.token))
            await asyncio.sleep(0.5)
            status, body, headers = await ask(up, "GET", f"/v1/captures/{capture}/events", up.site.token)
            assert (status, body["title"], headers["retry-after"]) == (503, "too-many-streams", "5")
            up.key(CARD[:6])
            await up.silent()
            await asyncio.sleep(0.5)
            _, shown, _ = await ask(up, "GET", f"/v1/captures/{capture}", up.site.token)
            os.kill(up.pid("agent"), signal.SIGKILL)
            with pytest.raises((http.client.HTTPException, OSError)):
                await first
            for _ in range(50):
                await asyncio.sleep(0.1)
                if up.site._ready():
                    break
            up.key(CARD[6:] + EXPIRY + CVV)
            assert (await up.ended(capture))["state"] == "token"
            # What was seen before has numbers of the process before: everything comes again
            _, text, _ = await ask(
                up, "GET", f"/v1/captures/{capture}/events", up.site.token, Last_Event_ID=shown["last_event_id"]
            )
            events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
            assert events[0]["seq"] == 1
            assert [e["digits_received"] for e in events if e["field"] == "pan"][-1] == 16
            assert events[-1]["state"] == "token"
            last = [line[4:] for line in text.splitlines() if line.startswith("id: ")]
            _, text, _ = await ask(up, "GET", f"/v1/captures/{capture}/events", up.site.token, Last_Event_ID=last[-2])
            assert text.count("data: ") == 1

    run(scenario())


def test_pages_of_calls_and_captures(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            ids = []
            for _ in range(5):
                ids.append(await up.start(fields=["cvv"]))
                assert (await up.api("POST", f"/v1/captures/{ids[-1]}/cancel"))[0] == 202
                await up.ended(ids[-1])
                await up.modes("guarded")
            seen, after = [], ""
            while after is not None:
                _, page = await up.api("GET", f"/v1/captures?limit=2{'&after=' + after if after else ''}")
                seen += [capture["id"] for capture in page["captures"]]
                after = page["next"]
            assert seen == ids[::-1]
            _, found = await up.api("GET", f"/v1/captures?extension={EXTENSION}&limit=1")
            assert [capture["id"] for capture in found["captures"]] == ids[-1:]
            assert (await up.api("GET", "/v1/captures?extension=205"))[1]["captures"] == []
            (call,) = (await up.api("GET", "/v1/calls?limit=1"))[1]["calls"]
            for which in (call["id"], *call["sip_call_ids"]):
                assert len((await up.api("GET", f"/v1/captures?call_id={which}"))[1]["captures"]) == 5
            _, page = await up.api("GET", f"/v1/calls?after={call['id']}")
            assert (page["calls"], page["next"]) == ([], None)
            for wrong in ("limit=0", "limit=501", "limit=x", "limit=", "after=4111111111111111"):
                status, body = await up.api("GET", f"/v1/captures?{wrong}")
                assert (status, body["title"]) == (422, "query")
                assert "4111" not in str(body)

    run(scenario())


def test_what_is_done_is_written_down_also_what_nobody_ordered_by_the_api(tmp_path: Path) -> None:
    """Captures, release, end of passthrough by API and by keys, traces; and the log verifies."""
    settings = {"inbound": 'mode = "passthrough"\nguard_keys = 2', "more": "[capture]\nauto_submit = false"}

    async def scenario() -> None:
        async with live.call(tmp_path, settings=settings) as up:
            watch = [
                sys.executable,
                "-m",
                "mediaproxy",
                "trace",
                "*",
                "--config",
                str(up.site.config),
                "--seconds",
                "1",
            ]
            await asyncio.to_thread(subprocess.run, watch, stdout=subprocess.DEVNULL, check=False)
            up.caller.key_events("123")
            await up.silent()
            await up.modes("guarded")
            capture = await up.start()
            up.key(CARD)
            await up.silent()
            await asyncio.sleep(0.6)
            await up.api("POST", f"/v1/captures/{capture}/fields/pan/reset")
            up.key(CARD + EXPIRY + CVV)
            await up.silent()
            await asyncio.sleep(0.6)
            assert (await up.api("POST", f"/v1/captures/{capture}/submit"))[0] == 202
            assert (await up.ended(capture))["state"] == "token"
            await up.modes("guarded")
            second = await up.start()
            os.kill(up.pid("vault"), signal.SIGKILL)
            await up.ended(second)
            await up.modes("sealed")
            (call,) = (await up.api("GET", "/v1/calls"))[1]["calls"]
            await up.api("POST", f"/v1/calls/{call['id']}/release")
            await up.modes("guarded")
            _, alarms = await up.api("GET", "/v1/alarms")
            for _ in range(30):
                if any(a["kind"] == "process-restarted" and a["worker"] == "vault" for a in alarms["past"]):
                    break
                await asyncio.sleep(0.1)
                _, alarms = await up.api("GET", "/v1/alarms")
            else:
                raise AssertionError(alarms)
            lines = [line for line in told(up) if line[1] != "capture-list"]
            lines[11:13] = sorted(lines[11:13])  # the vault's end reaches two processes, whichever writes first
            assert lines == [
                ("flattone", "passthrough", "ok", ""),
                ("root" if os.getuid() == 0 else lines[1][0], "trace", "ok", "every-call"),
                (lines[1][0], "trace-ended", "ok", "every-call"),
                ("flattone", "passthrough-ended", "ok", "keys"),
                ("desk", "capture-start", "asked", ""),
                ("desk", "capture-start", "ok", ""),
                ("desk", "capture-reset", "ok", ""),
                ("desk", "capture-submit", "ok", ""),
                ("flattone", "capture-ended", "token", ""),
                ("desk", "capture-start", "asked", ""),
                ("desk", "capture-start", "ok", ""),
                ("flattone", "capture-ended", "failed", "vault-restarted"),
                ("flattone", "sealed", "ok", "vault-restarted"),
                ("desk", "release", "ok", ""),
            ]
            for line in audited(up)[4:]:
                assert line["call"] == call["id"]
            done = subprocess.run(
                [sys.executable, "-m", "mediaproxy", "verify", str(up.site.audit)], capture_output=True, text=True, check=False
            )  # fmt: skip
            assert done.returncode == 0, done.stdout
            assert CARD not in (up.site.audit / "audit.jsonl").read_text()

    run(scenario())


def test_what_cannot_be_written_down_is_not_done_but_what_makes_a_call_safer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            capture = await up.start()
            path = up.site.audit / "audit.jsonl"
            path.rename(up.site.audit / "away")
            path.mkdir()  # nothing can be written there, by root neither
            status, body = await up.api("POST", f"/v1/captures/{capture}/fields/pan/reset")
            assert (status, body["title"]) == (503, "audit-unavailable")
            assert (await up.api("POST", f"/v1/captures/{capture}/cancel"))[0] == 202
            assert (await up.ended(capture))["state"] == "cancelled"
            await up.modes("guarded")
            status, body = await up.api("POST", "/v1/captures", START)
            assert (status, body["title"]) == (503, "audit-unavailable")
            await up.modes("guarded")
            path.rmdir()
            assert (await up.api("POST", "/v1/captures", START))[0] == 201
            assert any(line["event"] == "audit-not-written" for line in up.log())

    run(scenario())


@pytest.mark.timeout(300)
def test_the_server_is_as_its_description_says(tmp_path: Path) -> None:
    """schemathesis, against a running server with a call on which captures can be started."""
    program = Path(sys.executable).parent / "schemathesis"
    soon = "[capture]\nfield_seconds = 1\ntotal_seconds = 1"  # so that streams of captures on which nobody keys end

    async def scenario() -> None:
        async with live.call(tmp_path, settings={"more": soon}) as up:
            base = f"http://127.0.0.1:{up.site.api}"
            for bearer, which, phases in (
                (up.site.token, "--exclude-path", "examples,coverage,fuzzing,stateful"),
                (up.site.auditor_token, "--include-path", "examples,coverage,fuzzing"),
            ):
                done = await asyncio.to_thread(
                    subprocess.run,
                    [
                        program, "--config-file", RULES, "run", f"{base}/openapi.yaml",
                        "-H", f"Authorization: Bearer {bearer}", which, "/v1/audit", "--phases", phases,
                        "--max-examples", "40", "--seed", "7", "--suppress-health-check", "all", "--no-color",
                        "--request-timeout", "20", "--generation-database", "none",
                    ],
                    cwd=tmp_path, capture_output=True, text=True, check=False,
                )  # fmt: skip
                assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
                assert " passed" in done.stdout
            assert not any(line["event"] == "agent-bug" for line in up.log())

    run(scenario())


def test_nobody_is_told_that_what_is_there_is_not_while_a_new_agent_process_learns(tmp_path: Path) -> None:
    """Killed again and again while a capture runs: an answer of 503, or none, but never 404 or an empty list."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            capture = await up.start()
            for _ in range(3):
                killed = up.pid("agent")
                os.kill(killed, signal.SIGKILL)
                seen = set()
                until = time.monotonic() + 20
                while time.monotonic() < until and (200 not in seen or up.pid("agent") == killed):
                    try:
                        status, body, headers = await ask(up, "GET", f"/v1/captures/{capture}", up.site.token)
                        _, calls, _ = await ask(up, "GET", "/v1/calls", up.site.token)
                    except (OSError, http.client.HTTPException):
                        continue
                    if status == 503:
                        assert (body["title"], headers["retry-after"]) == ("starting", "1")
                    elif "calls" in calls:
                        assert len(calls["calls"]) == 1
                    seen.add(status)
                assert 200 in seen
                assert seen <= {200, 503}
            up.key(CARD + EXPIRY + CVV)
            await asyncio.sleep(0.5)
            os.kill(up.pid("agent"), signal.SIGKILL)  # the end comes while nobody is there to write it down
            assert (await up.ended(capture))["state"] == "token"
            await asyncio.sleep(1)
            os.kill(up.pid("agent"), signal.SIGKILL)
            assert (await up.ended(capture))["state"] == "token"
            ends = [line for line in told(up) if line[1] == "capture-ended"]
            assert ends == [("flattone", "capture-ended", "token", "")]

    run(scenario())


def test_starts_at_once_are_one_capture_and_busy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            found = await asyncio.gather(*(ask(up, "POST", "/v1/captures", up.site.token, START) for _ in range(8)))
            assert sorted(status for status, *_ in found) == [201, *[409] * 7]
            assert {body["title"] for status, body, _ in found if status == 409} == {"busy"}
            (made,) = [body for status, body, _ in found if status == 201]
            assert made["mode"] == "armed"
            (listed,) = (await up.api("GET", "/v1/captures"))[1]["captures"]
            assert (listed["id"], listed["state"]) == (made["id"], "keying")

    run(scenario())


def test_connections_that_do_not_say_what_they_want_are_closed(tmp_path: Path) -> None:
    """Half a head, a body that does not come, one request and then half of another; whoever asks properly is answered."""

    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            head = f"POST /v1/captures HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {up.site.token}\r\nContent-Length: 50\r\n\r\n"
            begun = time.monotonic()
            ways = {
                "half a head": b"GET /healthz HT", "nothing": b"", "no body": head.encode(),
                "then half": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea",
            }  # fmt: skip

            async def last(data: bytes) -> tuple[bytes, float]:
                reader, writer = await asyncio.open_connection("127.0.0.1", up.site.api)
                writer.write(data)
                try:
                    found = await asyncio.wait_for(reader.read(), 25)
                except ConnectionError:
                    found = b""
                writer.close()
                return found, time.monotonic() - begun

            capture = await up.start()
            reader, writer = await asyncio.open_connection("127.0.0.1", up.site.api)
            writer.write(
                f"GET /v1/captures/{capture}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {up.site.token}\r\n\r\n".encode()
            )
            found = dict(zip(ways, await asyncio.gather(*map(last, ways.values())), strict=True))
            for way, (_, seconds) in found.items():
                assert 4 < seconds < 20, (way, seconds)
            assert b" 408 " in found["no body"][0]
            assert b" 200 OK" in found["then half"][0]
            await up.api("POST", f"/v1/captures/{capture}/cancel")
            assert b'"cancelled"' in await asyncio.wait_for(reader.read(), 15)  # a stream may be quiet for longer
            writer.close()

    run(scenario())


def test_one_token_cannot_take_every_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            capture = await up.start()
            path = f"/v1/captures/{capture}/events"
            held = []
            for _ in range(16):
                reader, writer = await asyncio.open_connection("127.0.0.1", up.site.api)
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {up.site.agent_token}\r\n\r\n".encode()
                )
                assert b" 200 OK" in await reader.readline()
                held.append(writer)
            assert (await ask(up, "GET", path, up.site.agent_token))[1]["title"] == "too-many-streams"
            other = asyncio.create_task(ask(up, "GET", path, up.site.token))
            await asyncio.sleep(0.3)
            assert not other.done()
            for writer in held:
                writer.close()
            await up.api("POST", f"/v1/captures/{capture}/cancel")
            assert (await other)[0] == 200

    run(scenario())
