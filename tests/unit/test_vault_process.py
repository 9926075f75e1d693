"""The vault as a process: what it does to itself, and what it keeps when nobody waits for it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mediaproxy.config import CaptureConfig
from mediaproxy.demo import certificates
from mediaproxy.ipc import messages as m
from tests.fixtures import gateways, keyed, memory
from tests.fixtures.live import CVV, EXPIRY
from tests.fixtures.vault import TokenServer, VaultProcess


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    server = TokenServer(tmp_path_factory.mktemp("tokens"))
    yield server
    server.close()


def test_it_is_hardened_and_listens_to_nobody(tokens: TokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", "/tmp/never-written")
    with VaultProcess(tokens.gateway, CaptureConfig()) as vault:
        status = Path(f"/proc/{vault.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert int(re.search(r"VmLck:\s+(\d+)", status)[1]) > 1000  # type: ignore[index]
        assert re.search(r"Max core file size\s+0\s+0", Path(f"/proc/{vault.pid}/limits").read_text())
        assert vault.pong().counters["memory_locked"] == 1
        vault.begin(1, ("pan",))
        vault.key(1, keyed.card(np.random.default_rng(1)))
        vault.wait(lambda: vault.state(1) == "token")
        assert not Path("/tmp/never-written").exists()
        inodes = {
            os.readlink(entry).removeprefix("socket:[").removesuffix("]")
            for entry in Path(f"/proc/{vault.pid}/fd").iterdir()
            if os.readlink(entry).startswith("socket:")
        }
        listening = [
            line.split()
            for table in ("tcp", "tcp6", "udp", "udp6")
            for line in Path(f"/proc/{vault.pid}/net/{table}").read_text().splitlines()[1:]
        ]
        assert not [row for row in listening if row[9] in inodes]


def test_digits_lie_in_a_place_that_is_locked_and_left_out_of_dumps(tokens: TokenServer) -> None:
    card = keyed.card(np.random.default_rng(2))
    with VaultProcess(tokens.gateway, CaptureConfig(auto_submit=False)) as vault:
        vault.begin(1, ("pan", "expiry", "cvv"))
        vault.key(1, card + EXPIRY + CVV)
        vault.wait(lambda: vault.state(1) == "complete")
        hits = 0
        with open(f"/proc/{vault.pid}/smaps") as smaps, open(f"/proc/{vault.pid}/mem", "rb") as contents:
            blocks = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", smaps.read())[1:]
            for block in blocks:
                start, end = (int(x, 16) for x in block.split(" ", 1)[0].split("-"))
                if " rw" not in block.splitlines()[0] or "[v" in block.splitlines()[0]:
                    continue
                contents.seek(start)
                if card.encode() in contents.read(end - start):
                    flags = re.search(r"VmFlags: (.*)", block)
                    assert flags is not None
                    assert {"lo", "dd"} <= set(flags[1].split()), flags[1]
                    hits += 1
        assert hits == 1


@pytest.mark.parametrize("how", ["cancel", "timeout", "call-ended", "agent-restarted", "signalling-restarted", "stop"])
def test_every_way_out_wipes(tokens: TokenServer, how: str) -> None:
    card = keyed.card(np.random.default_rng(list(how.encode())))
    rules = CaptureConfig(field_seconds=1.5 if how == "timeout" else 60)
    with VaultProcess(tokens.gateway, rules) as vault:
        vault.begin(1, ("pan", "expiry", "cvv"))
        vault.key(1, card + EXPIRY)
        vault.hear(0.2)
        assert memory.search(vault.pid, card)
        if how == "cancel":
            vault.act(1, "cancel")
        elif how == "call-ended":
            vault.near["signalling"].send(m.Act(1, "call-ended"))
        elif how == "signalling-restarted":
            vault.near["signalling"].send(m.Hello("signalling"))
        elif how == "agent-restarted":
            vault.near["agent"].send(m.Hello("agent"))
            vault.key(1, CVV)  # nothing is lost by that
        elif how == "stop":
            return  # a stopped process has no memory; that it stops is what closing shows
        vault.wait(lambda: vault.state(1) in ("token", "failed", "cancelled"))
        time.sleep(0.3)
        assert memory.search(vault.pid, card) == []


def test_a_gateway_that_never_answers_leaves_nothing_when_time_is_up(
    tokens: TokenServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pem = certificates.make(tmp_path_factory.mktemp("pem"))
    card = keyed.card(np.random.default_rng(5))
    with gateways.server(pem) as slow:
        slow.answers, slow.pause = [(200, {"token": "t"})], 30.0
        config = msgspec.structs.replace(tokens.gateway, url=slow.url, ca_file=str(pem[0]), timeout_seconds=1.0)
        with VaultProcess(config, CaptureConfig()) as vault:
            vault.begin(1, ("pan", "expiry", "cvv"))
            vault.key(1, card + EXPIRY + CVV)
            vault.wait(lambda: vault.state(1) == "failed")
            assert vault.states[1].reason == "gateway-unavailable"
            time.sleep(1.0)
            assert memory.search(vault.pid, card) == []
            for number in range(2, 80):  # more than there are threads
                vault.begin(number, ("pan",))
                vault.key(number, card)
            vault.wait(lambda: all(vault.state(n) == "failed" for n in range(2, 80)), 30)
            assert memory.search(vault.pid, card) == []


ECHOES = {
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n"
    + b'{"token":"a","n":"PANPANPANPA"}'[:0]
    + b'{"t":1,"sent":"%s"}      ',
    "refusal": b'HTTP/1.1 400 Bad %s\r\nContent-Length: 27\r\n\r\n{"sent":"%s"}',
    "header": b"HTTP/1.1 200 OK\r\nX-Echo: %s\r\nSet-Cookie: c=%s\r\nContent-Length: 2\r\n\r\n{}",
    "chunks": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1b\r\n{"sent":"%s"}\r\n0\r\n\r\n',
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz%s\r\n",
    "no status": b"%s\r\n\r\n",
    "no head": b"%s" * 2000,
    "cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n%s",
    "to the end": b'HTTP/1.1 200 OK\r\n\r\n{"sent":"%s"}',
}


@pytest.mark.parametrize("how", [*ECHOES, "vgs"])
def test_what_a_gateway_repeats_stays_nowhere(tokens: TokenServer, tmp_path: Path, how: str) -> None:
    """Answers in one write, so that head and body share a record."""
    pem = certificates.make(tmp_path)
    card = keyed.card(np.random.default_rng(list(how.encode())))
    with gateways.server(pem) as echoing:
        alias = b'{"data":[{"value":"%s","aliases":[{"alias":"tok_b","format":"UUID"}]}]}' % card.encode()
        head = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(alias)
        echoing.answers = [head + alias if how == "vgs" else ECHOES[how].replace(b"%s", card.encode())]
        config = msgspec.structs.replace(tokens.gateway, url=echoing.url, ca_file=str(pem[0]), timeout_seconds=2.0)
        if how == "vgs":
            config = msgspec.structs.replace(config, kind="vgs")
        with VaultProcess(config, CaptureConfig()) as vault:
            vault.begin(1, ("pan",))
            vault.key(1, card)
            vault.wait(lambda: vault.state(1) in ("token", "failed"))
            assert vault.state(1) == ("token" if how == "vgs" else "failed")
            time.sleep(1.0)
            assert memory.search(vault.pid, card) == []
