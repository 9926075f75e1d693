"""The gateway port against real HTTPS servers, well-behaved and not."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mediaproxy.config import GatewayConfig
from mediaproxy.demo import certificates
from mediaproxy.errors import GatewayError
from mediaproxy.vault.adapters.rest import RestGateway, render
from mediaproxy.vault.fields import Field
from mediaproxy.vault.gateway import Breaker

PAN, CVV = "4111111111111111", "947"


def keyed(pan: str = PAN) -> list[Field]:
    fields = []
    for kind, digits in (("pan", pan), ("expiry", f"12{(time.gmtime().tm_year + 2) % 100}"), ("cvv", CVV)):
        made = Field(kind)
        for digit in digits:
            made.digits.append(int(digit))
        fields.append(made)
    return fields


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return certificates.make(tmp_path_factory.mktemp("pem"))


@pytest.fixture
def bearer(tmp_path: Path) -> Path:
    path = tmp_path / "bearer"
    path.write_text("s3cret")
    return path


@pytest.fixture(params=["bearer", "certificate"])
def reference(request: pytest.FixtureRequest, pem: tuple[Path, Path, Path], bearer: Path) -> Iterator[dict[str, Any]]:
    """The reference token server as a process, and the configuration to reach it."""
    authority, certificate, key = map(str, pem)
    who = ["--bearer-file", str(bearer)] if request.param == "bearer" else ["--client-authority", authority]
    process = subprocess.Popen(
        [sys.executable, "-m", "mediaproxy.demo.tokenserver", "--certificate", certificate, "--key", key, *who],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = process.stdout.readline().split()[1]
    credentials = (
        {"bearer_file": str(bearer)}
        if request.param == "bearer"
        else {"client_certificate": certificate, "client_key": key}
    )
    yield {"name": "g", "url": f"https://127.0.0.1:{port}/v1/tokens", "ca_file": authority} | credentials
    process.terminate()
    process.wait()
    process.stdout.close()


def test_a_card_becomes_a_token_once_a_key(reference: dict[str, Any]) -> None:
    gateway = RestGateway(GatewayConfig(**reference, reference_server=True))
    first = gateway.tokenize(keyed(), "key-1")
    assert first.startswith("tok_")
    assert gateway.tokenize(keyed(), "key-1") == first
    assert gateway.tokenize(keyed(), "key-2") != first


def test_the_reference_server_is_refused_without_the_setting(reference: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        RestGateway(GatewayConfig(**reference)).tokenize(keyed(), "key-1")
    assert caught.value.reason == "test-gateway"


def test_only_test_cards_are_taken(reference: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        RestGateway(GatewayConfig(**reference, reference_server=True)).tokenize(keyed("4532015112830366"), "key-1")
    assert caught.value.reason == "invalid-field"


def test_nobody_without_credentials_is_served(reference: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "other").write_text("wrong")
    stranger = {k: v for k, v in reference.items() if not k.startswith(("client", "bearer"))} | {
        "bearer_file": str(tmp_path / "other")
    }
    with pytest.raises(GatewayError) as caught:
        RestGateway(GatewayConfig(**stranger, reference_server=True)).tokenize(keyed(), "key-1")
    assert caught.value.reason in ("not-configured", "gateway-unavailable")


class Faulty(http.server.BaseHTTPRequestHandler):
    """Answers as its path says."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append(body)
        fault = self.path.strip("/")
        if fault == "slow":
            time.sleep(3)
        if fault == "reset":
            self.connection.close()
            return
        status = {"500": 500, "402": 402, "401": 401, "422": 422, "redirect": 302}.get(fault, 200)
        answers = {
            "drip": b'{"token":"tok_123456"}',
            "garbage": b"<html>",
            "huge": b'{"token":"' + b"x" * 200_000 + b'"}',
            "echo": json.dumps({"token": "tok_1", "sent": json.loads(body)}).encode(),
            "pan-as-token": json.dumps({"token": PAN}).encode(),
            "cvv": json.dumps({"token": "tok_1", "cvv": CVV}).encode(),
            "other-pan": json.dumps({"token": "tok_1", "card": "5555 5555 5555 4444"}).encode(),
            "dashes": json.dumps({"token": "-".join(PAN[i : i + 4] for i in range(0, 16, 4))}).encode(),
            "dots": json.dumps({"token": "tok_" + ".".join(PAN[i : i + 4] for i in range(0, 16, 4))}).encode(),
            "reversed": json.dumps({"token": PAN[::-1]}).encode(),
            "escaped": b'{"token":"' + "".join(f"\\u{ord(c):04x}" for c in PAN).encode() + b'"}',
            "cvv-as-token": json.dumps({"token": f"t-{CVV}"}).encode(),
            "no-token": b'{"id": 5}',
            "empty-token": b'{"token": ""}',
            "luhn-token": b'{"token": "4242424242424242"}',
        }
        data = answers.get(fault, b'{"token":"tok_947x1"}')
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Location", "https://127.0.0.1:1/")
        self.end_headers()
        for i in range(len(data) if fault == "drip" else 0):
            try:
                self.wfile.write(data[i : i + 1])
            except OSError:
                return
            time.sleep(0.4)
        if fault != "drip":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture(scope="module")
def faulty(pem: tuple[Path, Path, Path]) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem[1], pem[2])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    server.daemon_threads = True
    server.block_on_close = False
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("slow", "gateway-unavailable"),
        ("reset", "gateway-unavailable"),
        ("500", "gateway-unavailable"),
        ("redirect", "gateway-unavailable"),
        ("402", "declined"),
        ("401", "not-configured"),
        ("422", "invalid-field"),
        ("garbage", "answer-refused"),
        ("huge", "answer-refused"),
        ("echo", "answer-refused"),
        ("pan-as-token", "answer-refused"),
        ("cvv", "answer-refused"),
        ("other-pan", "answer-refused"),
        ("dashes", "answer-refused"),
        ("dots", "answer-refused"),
        ("reversed", "answer-refused"),
        ("escaped", "answer-refused"),
        ("cvv-as-token", "answer-refused"),
        ("drip", "gateway-unavailable"),
        ("no-token", "answer-refused"),
        ("empty-token", "answer-refused"),
    ],
)
def test_every_fault_has_a_reason_and_nothing_is_kept(
    faulty: str, pem: tuple[Path, Path, Path], bearer: Path, fault: str, reason: str
) -> None:
    config = GatewayConfig(
        name="g", url=f"{faulty}/{fault}", ca_file=str(pem[0]), bearer_file=str(bearer), timeout_seconds=1
    )
    with pytest.raises(GatewayError) as caught:
        RestGateway(config).tokenize(keyed(), "key")
    assert caught.value.reason == reason
    assert PAN not in repr(caught.value)


@pytest.mark.parametrize("fine", ["fine", "luhn-token"])
def test_a_token_may_look_like_a_card_and_hold_three_digits_by_chance(
    faulty: str, pem: tuple[Path, Path, Path], bearer: Path, fine: str
) -> None:
    config = GatewayConfig(name="g", url=f"{faulty}/{fine}", ca_file=str(pem[0]), bearer_file=str(bearer))
    assert RestGateway(config).tokenize(keyed(), "key")
    assert json.loads(Faulty.bodies[-1])["pan"] == PAN


def test_a_certificate_of_nobody_we_know_is_refused(faulty: str, bearer: Path) -> None:
    config = GatewayConfig(name="g", url=f"{faulty}/fine", bearer_file=str(bearer))
    with pytest.raises(GatewayError) as caught:
        RestGateway(config).tokenize(keyed(), "key")
    assert caught.value.reason == "gateway-unavailable"


def test_the_body_is_built_in_one_buffer() -> None:
    body = render(keyed())
    assert json.loads(body) == {"pan": PAN, "expiry": f"12{(time.gmtime().tm_year + 2) % 100}", "cvv": CVV}
    assert isinstance(body, bytearray)


def test_after_many_failures_the_gateway_rests() -> None:
    breaker = Breaker(3, 60)
    for _ in range(3):
        breaker.check()
        breaker.failed()
    with pytest.raises(GatewayError):
        breaker.check()
