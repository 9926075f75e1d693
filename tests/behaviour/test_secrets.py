"""Unique cards, keyed in-band, by event and by INFO; then a search of everything that a digit could be left in."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mediaproxy.demo import certificates
from tests.fixtures import gateways, keyed, live, memory
from tests.fixtures.live import CVV, EXPIRY, Live

WORKERS = ("signalling", "media-0", "vault", "agent", "recording")


@pytest.fixture(autouse=True, scope="module")
def _may_read_memory() -> None:
    """Fails, not skips, without root or CAP_SYS_PTRACE: a promise hangs on it."""
    script = "import ctypes; import sys; print(ctypes.CDLL(None).prctl(4, 0, 0, 0, 0), flush=True); sys.stdin.read()"
    guarded = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert guarded.stdin is not None
    assert guarded.stdout is not None
    with guarded, guarded.stdin, guarded.stdout:
        guarded.stdout.readline()
        try:
            Path(f"/proc/{guarded.pid}/maps").read_text()
        except PermissionError:
            pytest.fail("this test reads other processes' memory: run it as root or with CAP_SYS_PTRACE")


def test_the_search_finds_what_is_there() -> None:
    """Control: a number in this process is found in every encoding, whole and strided."""
    digits = keyed.card(np.random.default_rng(77))
    held = {
        name: ctypes.create_string_buffer(pattern, len(pattern)) for name, pattern in memory.encodings(digits).items()
    }
    strided = np.zeros(16 * 48, np.uint8)
    strided[::48] = np.frombuffer(digits.encode(), np.uint8)
    found = {hit.encoding for hit in memory.search(os.getpid(), digits)}
    assert set(held) <= found
    assert "ascii, stride 48" in found


def test_while_a_capture_runs_the_vault_holds_the_card_and_nobody_else_does(tmp_path: Path) -> None:
    """Control and promise at once: the search sees into these processes, and digits are where the design says."""
    card = keyed.card(np.random.default_rng(78))

    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            await up.start()
            up.key(card + EXPIRY[:2])
            await up.silent()
            await asyncio.sleep(0.7)
            left = {worker: await asyncio.to_thread(memory.search, up.pid(worker), card) for worker in WORKERS}
            assert {hit.encoding for hit in left["vault"]} == {"ascii"}
            assert not any(hits for worker, hits in left.items() if worker != "vault"), left

    asyncio.run(scenario())


async def send_info(up: Live, keys: str) -> None:
    phone = up.caller
    for key in keys:
        assert phone._dialog is not None
        request = phone._dialog.request("INFO")
        request.put_body("application/dtmf-relay", f"Signal={key}\r\nDuration=160\r\n".encode())
        phone._layer.send(request, "phone", phone._dialog.peer, time.monotonic())
        phone._work(time.monotonic())
        await asyncio.sleep(0.15)


@pytest.mark.parametrize("how", ["in-band", "event", "info", "failed", "abandoned"])
def test_no_digit_is_left_anywhere(tmp_path: Path, how: str) -> None:
    card = keyed.card(np.random.default_rng(list(how.encode())))

    async def scenario() -> None:
        async with live.call(tmp_path) as up:
            if how == "failed":
                up.site._processes[0].kill()
                up.site._processes[0].wait()
            capture = await up.start()
            if how == "info":
                await send_info(up, card + EXPIRY + CVV)
            elif how == "event":
                up.caller.key_events(card + EXPIRY + CVV)
            else:
                up.key(card + (EXPIRY + CVV if how != "abandoned" else ""))
            await up.silent()
            if how == "abandoned":
                await asyncio.sleep(0.5)
                up.caller.hang_up()
            last = await up.ended(capture)
            assert last["state"] == ("token" if how in ("in-band", "event", "info") else "failed")
            if how == "in-band":
                assert last["last4"] == card[-4:]
            up.caller.hang_up()
            await asyncio.sleep(1.0)
            pids = {"supervisor": up.site.pid} | {worker: up.pid(worker) for worker in WORKERS}
            left = {worker: await asyncio.to_thread(memory.search, pid, card) for worker, pid in pids.items()}
            print({worker: hits for worker, hits in left.items() if hits})
            for worker in ("supervisor", "agent", "recording", "signalling", "media-0"):
                assert left[worker] == [], (worker, left[worker])
            assert left["vault"] == [], left["vault"]
            await asyncio.to_thread(up.site.stop)
            text = up.files()
            for number in (card, card[:12], card[4:]):
                assert number not in text
            for path in tmp_path.rglob("*"):
                if path.is_file():
                    data = path.read_bytes()
                    assert not [name for name, pattern in memory.encodings(card).items() if pattern in data], path
            for process in Path("/tmp").glob("core*"):
                assert process.stat().st_mtime < time.time() - 60

    asyncio.run(scenario())


FAILURES = (
    "declined", "invalid", "unavailable", "garbage", "echo", "reset", "redirect", "cancelled", "wrong", "cleared",
    "reset by agent", "vgs", "slow",
)  # fmt: skip


def _answer(how: str, digits: str) -> object:
    """What the gateway answers."""
    alias = {"data": [{"value": digits, "aliases": [{"alias": "tok_sandbox_b", "format": "UUID"}]}]}
    return {
        "declined": (402, {"error": "declined"}),
        "invalid": lambda request: (422, request.body.encode()),
        "unavailable": (500, {}),
        "garbage": (200, b"<html>"),
        "echo": lambda request: (200, {"token": "tok_1", "sent": request.json}),
        "reset": None,
        "redirect": (302, {}),
        "vgs": (201, alias),
    }.get(how, (200, {"token": "tok_b"}))


@pytest.mark.timeout(400)
def test_unique_cards_through_every_failure_path_leave_nothing(tmp_path: Path) -> None:
    """One call, one capture a path, a card for each; then files, events, answers, metrics, a trace and all memory."""
    rng = np.random.default_rng(4711)
    cards = {how: keyed.card(rng) for how in FAILURES}
    (tmp_path / "other").mkdir()
    pem = certificates.make(tmp_path / "other")
    secret = tmp_path / "other" / "secret"
    secret.write_text("user:word")

    async def scenario() -> None:
        with gateways.server(pem) as merchant:
            lines = ["[capture]\ntries = 2"]
            for kind in ("rest", "vgs"):
                lines.append(
                    f'[[gateway]]\nname = "g-{kind}"\nkind = "{kind}"\nurl = "{merchant.url}/x"\nca_file = "{pem[0]}"\n'
                    f'basic_file = "{secret}"\ntimeout_seconds = 2\n'
                    f'[[template]]\nname = "{kind}"\nfields = ["pan"]\ngateway = "g-{kind}"\n'
                )
            settings = {"inbound": 'templates = ["rest", "vgs"]', "more": "\n".join(lines)}
            async with live.call(tmp_path, settings=settings) as up:
                watcher = subprocess.Popen(
                    [sys.executable, "-m", "mediaproxy", "trace", "*", "--config", str(up.site.config), "--full"],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                said: list[str] = []
                for how in FAILURES:
                    card = cards[how]
                    merchant.answers, merchant.pause = [_answer(how, card)], 4.0 if how == "slow" else 0.0
                    capture = await up.start(template="vgs" if how == "vgs" else "rest")
                    if how == "wrong":
                        up.key(2 * (card[:-1] + str((int(card[-1]) + 5) % 10)))
                    elif how == "cleared":
                        up.key(card[:15] + "**")
                    elif how in ("cancelled", "reset by agent"):
                        up.key(card[:15])
                    else:
                        up.key(card)
                    await up.silent()
                    await asyncio.sleep(0.6)
                    if how == "reset by agent":
                        await up.api("POST", f"/v1/captures/{capture}/fields/pan/reset")
                    if how in ("cancelled", "cleared", "reset by agent"):
                        await up.api("POST", f"/v1/captures/{capture}/cancel")
                    last = await up.ended(capture)
                    said.append(f"{how}: {last}")
                    assert (last["state"] == "token") == (how == "vgs"), said[-1]
                    said += [str(e) for e in await asyncio.to_thread(lambda c=capture: list(up.site.events(c)))]
                    await send_info(up, "5")  # something for the trace
                await asyncio.sleep(1.5)
                said.append(str(await asyncio.to_thread(live.read_metrics, up.site)))
                said.append(str(await up.api("GET", "/v1/calls")))
                pids = {"supervisor": up.site.pid} | {worker: up.pid(worker) for worker in WORKERS}
                for worker, pid in pids.items():
                    found = await asyncio.to_thread(memory.search_all, pid, [c[:15] for c in cards.values()])
                    assert found == [], (worker, [FAILURES[i] for i, _ in found], found)
                watcher.terminate()
                trace, _ = watcher.communicate(timeout=10)
                assert b"INFO" in trace
                await asyncio.to_thread(up.site.stop)
                text = "\n".join(said) + trace.decode("utf-8", "replace") + up.files()
                for how, card in cards.items():
                    for number in (card, card[:12], card[3:15]):
                        assert number not in text, how
                for path in tmp_path.rglob("*"):
                    if path.is_file():
                        data = path.read_bytes()
                        for how, card in cards.items():
                            assert not [n for n, p in memory.encodings(card[:15]).items() if p in data], (how, path)

    asyncio.run(scenario())
