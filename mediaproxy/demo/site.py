"""A whole site for one run: token server, configuration, `flattone serve`, and its API."""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from mediaproxy.demo import certificates

EXTENSION = "204"
_UNSAFE = {4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697}
"""Ports that browsers connect to for nobody (Fetch standard, section 2.9)."""


class SiteError(Exception):
    """The site could not be set up; the text says what failed."""


def free_port() -> int:
    """A UDP port that is free on loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def listening_port() -> int:
    """A port that is free on loopback for UDP and TCP, and that the system gives nobody by itself meanwhile."""
    while True:
        port = 4000 + secrets.randbelow(6000)
        if port in _UNSAFE:
            continue
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as streams,
        ):
            try:
                datagrams.bind(("127.0.0.1", port))
                streams.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Site:
    """Everything between two phones. `trunk` and `agent`: where they send; peers are at the ports given."""

    def __init__(
        self,
        directory: Path,
        recordings: Path,
        caller_port: int,
        agent_port: int,
        calls: int = 250,
        record: bool = True,
        settings: dict[str, str] | None = None,
    ) -> None:
        """settings: further lines of the configuration: of the peers `caller` and `desk`, of the routes `inbound` and
        `outbound`, of the sides `trunk` and `agent`, of `media`, `api` and `recording`, and `more` for whole tables."""
        self._settings = settings or {}
        self.directory, self.recordings = directory, recordings
        self.trunk = ("127.0.0.1", listening_port())
        self.agent = ("127.0.0.1", listening_port())
        self.trace = directory / "trace.sock"
        self.cdr = directory / "calls.jsonl"
        self.api = listening_port()
        self.token, self.agent_token, self.auditor_token = (secrets.token_urlsafe(24) for _ in range(3))
        self.audit = directory / "audit"
        self.signing_key = directory / "recording.key"
        self.log = directory / "flattone.log"
        self.config = directory / "flattone.toml"
        self._phones = (caller_port, agent_port)
        self._calls, self._record = calls, record
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        authority, certificate, key = certificates.make(self.directory)
        self.audit.mkdir(exist_ok=True)
        certificates.signing_key(self.signing_key)
        bearer = self.directory / "gateway.token"
        bearer.write_text(secrets.token_urlsafe(24))
        arguments = ["--certificate", str(certificate), "--key", str(key), "--bearer-file", str(bearer)]
        tokens = subprocess.Popen(
            [sys.executable, "-m", "mediaproxy.demo.tokenserver", *arguments], stdout=subprocess.PIPE, text=True
        )
        self._processes.append(tokens)
        assert tokens.stdout is not None
        said = tokens.stdout.readline().split()
        if len(said) != 2:
            raise SiteError("the token server did not start")
        self._tokens, self._trust = int(said[1]), ssl.create_default_context(cafile=authority)
        self.config.write_text(self._text(self._tokens, authority, bearer))
        with self.log.open("w") as log:
            serve = subprocess.Popen(
                [sys.executable, "-m", "mediaproxy", "serve", "--config", str(self.config)], stderr=log, text=True
            )
        self._processes.append(serve)
        deadline = time.monotonic() + 30
        while not self._ready():
            if serve.poll() is not None or time.monotonic() > deadline:
                raise SiteError(f"flattone did not start; see {self.log}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            return self.request("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def pids(self) -> dict[str, int]:
        """Every process of flattone by name, by its log."""
        found: dict[str, int] = {"supervisor": self.pid}
        for line in self.log.read_text().splitlines():
            entry = json.loads(line)
            if entry["event"] == "started":
                found[entry["worker"]] = entry["pid"]
        return found

    def _text(self, gateway_port: int, authority: Path, bearer: Path) -> str:
        caller, agent = self._phones
        digests = [hashlib.sha256(t.encode()).hexdigest() for t in (self.token, self.agent_token, self.auditor_token)]
        add = (
            dict.fromkeys(
                ("caller", "desk", "inbound", "outbound", "trunk", "agent", "media", "api", "recording", "more"), ""
            )
            | self._settings
        )
        desk = "" if "address" in add["desk"] or "registered" in add["desk"] else f'address = "127.0.0.1:{agent}"'
        last = 4 * (self._calls + 8) - 1  # with room for emergencies
        first = 20000 + 2 * secrets.randbelow((12600 - last) // 2)  # below the ports that the system gives out itself
        return f"""# Written by the demo: one trunk peer, one agent phone, the reference token server.
[trunk]
sip_listen = "127.0.0.1:{self.trunk[1]}"
rtp_address = "127.0.0.1"
{add["trunk"]}

[agent]
sip_listen = "127.0.0.1:{self.agent[1]}"
rtp_address = "127.0.0.1"
{add["agent"]}

[media]
ports = "{first}-{first + last}"
workers = 1
max_calls = {self._calls}
{add["media"]}

[[peer]]
name = "caller"
side = "trunk"
address = "127.0.0.1:{caller}"
{add["caller"]}

[[peer]]
name = "desk"
side = "agent"
{desk}
{add["desk"]}

[[route]]
name = "emergency"
from = "caller"
to = "desk"
users = "112"
emergency = true

[[route]]
name = "inbound"
from = "caller"
to = "desk"
gateway = "reference"
record = {str(self._record).lower()}
{add["inbound"]}

[[route]]
name = "outbound"
from = "desk"
to = "caller"
gateway = "reference"
record = {str(self._record).lower()}
{add["outbound"]}

[[gateway]]
name = "reference"
url = "https://127.0.0.1:{gateway_port}/v1/tokens"
ca_file = "{authority}"
bearer_file = "{bearer}"
reference_server = true

[api]
listen = "127.0.0.1:{self.api}"
{add["api"]}

[[api.tokens]]
name = "desk"
sha256 = "{digests[0]}"
role = "supervisor"
tenant = "*"
numbers = ["*"]

[[api.tokens]]
name = "agent {EXTENSION}"
sha256 = "{digests[1]}"
role = "agent"
numbers = ["{EXTENSION}"]

[[api.tokens]]
name = "auditor"
sha256 = "{digests[2]}"
role = "auditor"
tenant = "*"

[audit]
directory = "{self.audit}"

[recording]
directory = "{self.recordings}"
signing_key = "{self.signing_key}"
{add["recording"]}

[stop]
grace_seconds = 1

[trace]
socket = "{self.trace}"

[cdr]
file = "{self.cdr}"

{add["more"]}
"""

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One call of the agent API: (status, parsed answer)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api, timeout=10)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        finally:
            connection.close()

    def issued(self) -> int:
        """How many tokens the token server has made."""
        connection = http.client.HTTPSConnection("127.0.0.1", self._tokens, context=self._trust, timeout=5)
        try:
            connection.request("GET", "/")
            return int(json.loads(connection.getresponse().read())["issued"])
        finally:
            connection.close()

    def events(self, capture: str) -> Iterator[dict[str, Any]]:
        """Follow a capture's event stream to its end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api, timeout=60)
        try:
            connection.request(
                "GET", f"/v1/captures/{capture}/events", headers={"Authorization": f"Bearer {self.token}"}
            )
            for line in connection.getresponse():
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        finally:
            connection.close()

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._processes[1].pid

    def alive(self) -> bool:
        """Whether everything that was started still runs."""
        return all(process.poll() is None for process in self._processes)

    def stop(self) -> int:
        """End everything; returns flattone's exit code."""
        code = 0
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            code = code or (process.returncode if process is not self._processes[0] else 0)
        for process in self._processes:
            if process.stdout is not None:
                process.stdout.close()
        self._processes.clear()
        return code
