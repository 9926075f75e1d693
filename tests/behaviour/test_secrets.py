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

from tests.fixtures import keyed, live, memory
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
