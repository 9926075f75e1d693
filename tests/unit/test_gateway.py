"""The gateway port against real HTTPS servers, well-behaved and not."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec
import pytest

from mediaproxy.config import Config, FieldConfig, GatewayConfig, SideConfig
from mediaproxy.demo import certificates
from mediaproxy.errors import GatewayError
from mediaproxy.https import Exchange
from mediaproxy.vault import adapters
from mediaproxy.vault.fields import Field, kinds
from mediaproxy.vault.gateway import Breaker, Gateway
from mediaproxy.vault.submission import Submission
from tests.fixtures import gateways as fixture

PAN, CVV = "4111111111111111", "947"


SIDE = SideConfig(sip_listen="127.0.0.1:5060", rtp_address="127.0.0.1")
YEAR = time.gmtime().tm_year + 2
SORT_CODE = FieldConfig(name="sort-code", least=6, most=6)


def keyed(pan: str = PAN, **others: str) -> list[Field]:
    known = kinds(Config(trunk=SIDE, agent=SIDE, peers=(), routes=(), fields=(SORT_CODE,)))
    fields = []
    wanted = {"pan": pan, "expiry": f"03{YEAR % 100}", "cvv": CVV} | others
    for name, digits in wanted.items():
        if digits:
            made = Field(known[name.replace("_", "-")])
            for digit in digits:
                made.digits.append(int(digit))
            fields.append(made)
    return fields


def gateways(*configs: GatewayConfig) -> list[Gateway]:
    found = adapters.gateways(Config(trunk=SIDE, agent=SIDE, peers=(), routes=(), gateways=configs))
    return [found[config.name] for config in configs]


def tokenize(config: GatewayConfig, fields: list[Field] | None = None, *standby: GatewayConfig) -> str:
    """What the vault does with a complete capture."""
    submission = Submission(gateways(config, *standby), keyed() if fields is None else fields)
    try:
        return submission.run()
    finally:
        submission.close()


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return certificates.make(tmp_path_factory.mktemp("pem"))


@pytest.fixture
def bearer(tmp_path: Path) -> Path:
    path = tmp_path / "bearer"
    path.write_text("s3cret")
    return path


def trusting(reference: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=reference["ca_file"])
    if "client_certificate" in reference:
        context.load_cert_chain(reference["client_certificate"], reference["client_key"])
    return context


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
    (gateway,) = gateways(GatewayConfig(**reference, reference_server=True))

    def ask(key: str) -> str:
        fields = keyed()
        return gateway.ask(gateway.body(fields), fields, key, time.monotonic() + 5, Exchange())

    first = ask("key-a")
    assert first.startswith("tok_")
    assert ask("key-a") == first
    assert ask("key-b") != first


def test_the_reference_server_is_refused_without_the_setting(reference: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        tokenize(GatewayConfig(**reference))
    assert caught.value.reason == "test-gateway"
    with urlopen(reference["url"], context=trusting(reference)) as answer:  # it was known before anything was sent
        assert json.loads(answer.read()) == {"issued": 0, "asked": 0}


def test_only_test_cards_are_taken(reference: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        tokenize(GatewayConfig(**reference, reference_server=True), keyed("4532015112830366"))
    assert caught.value.reason == "invalid-field"


def test_nobody_without_credentials_is_served(reference: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "other").write_text("wrong")
    stranger = {k: v for k, v in reference.items() if not k.startswith(("client", "bearer"))} | {
        "bearer_file": str(tmp_path / "other")
    }
    with pytest.raises(GatewayError) as caught:
        tokenize(GatewayConfig(**stranger, reference_server=True))
    assert caught.value.reason in ("not-configured", "gateway-unavailable")


TOKEN = {"token": "tok_947x1"}


@pytest.fixture
def faulty(pem: tuple[Path, Path, Path]) -> Iterator[fixture.Server]:
    with fixture.server(pem) as running:
        yield running


@pytest.fixture
def config(faulty: fixture.Server, pem: tuple[Path, Path, Path], bearer: Path) -> GatewayConfig:
    return GatewayConfig(
        name="g", url=f"{faulty.url}/v1/tokens", ca_file=str(pem[0]), bearer_file=str(bearer), timeout_seconds=2
    )


def change(config: GatewayConfig, **what: Any) -> GatewayConfig:
    return msgspec.structs.replace(config, **what)


def refused(config: GatewayConfig, *standby: GatewayConfig, fields: list[Field] | None = None) -> str:
    """The reason for which no token came."""
    with pytest.raises(GatewayError) as caught:
        tokenize(config, fields, *standby)
    assert PAN not in repr(caught.value)
    return caught.value.reason


ANSWERS: dict[str, tuple[Any, str]] = {
    "reset": (None, "gateway-unavailable"),
    "500": ((500, {}), "gateway-unavailable"),
    "503": ((503, {}), "gateway-unavailable"),
    "429": ((429, {}), "gateway-unavailable"),
    "409": ((409, {}), "gateway-unavailable"),
    "redirect": ((302, {}), "gateway-unavailable"),
    "402": ((402, {}), "declined"),
    "401": ((401, {}), "not-configured"),
    "422": ((422, {}), "invalid-field"),
    "422 that echoes": (lambda request: (422, request.body.encode()), "invalid-field"),
    "garbage": ((200, b"<html>"), "answer-refused"),
    "nothing": ((200, b""), "answer-refused"),
    "huge": ((200, b'{"token":"' + b"x" * 200_000 + b'"}'), "answer-refused"),
    "deep": ((200, b"[" * 60_000), "answer-refused"),
    "echo": (lambda request: (200, {"token": "tok_1", "sent": request.json}), "answer-refused"),
    "pan as token": ((200, {"token": PAN}), "answer-refused"),
    "cvv": ((200, {"token": "tok_1", "cvv": CVV}), "answer-refused"),
    "cvv as number": ((200, {"token": "tok_1", "cvv": int(CVV)}), "answer-refused"),
    "other pan": ((200, {"token": "tok_1", "card": "5555 5555 5555 4444"}), "answer-refused"),
    "other pan of 12": ((200, {"token": "tok_1", "card": "676770123450"}), "answer-refused"),
    "dashes": ((200, {"token": "-".join(PAN[i : i + 4] for i in range(0, 16, 4))}), "answer-refused"),
    "dots": ((200, {"token": "tok_" + ".".join(PAN[i : i + 4] for i in range(0, 16, 4))}), "answer-refused"),
    "backwards": ((200, {"token": PAN[::-1]}), "answer-refused"),
    "escaped": ((200, b'{"token":"' + "".join(f"\\u{ord(c):04x}" for c in PAN).encode() + b'"}'), "answer-refused"),
    "cvv as token": ((200, {"token": f"t-{CVV}"}), "answer-refused"),
    "no token": ((200, {"id": 5}), "answer-refused"),
    "percent": ((200, {"token": "".join(f"%{ord(c):02x}" for c in PAN)}), "answer-refused"),
    "full width": (
        (
            200,
            json.dumps({"token": PAN.translate({48 + i: 0xFF10 + i for i in range(10)})}, ensure_ascii=False).encode(),
        ),
        "answer-refused",
    ),
    "base64": ((200, {"token": base64.b64encode(f"card {PAN}".encode()).decode()}), "answer-refused"),
    "hexadecimal": ((200, {"token": PAN.encode().hex()}), "answer-refused"),
    "split": ((200, {"token": "tok_a", "first12": PAN[:12], "last4": PAN[-4:]}), "answer-refused"),
    "base64 behind a prefix": (
        (200, {"token": "pm_" + base64.b64encode(PAN.encode()).decode()}),
        "answer-refused",
    ),
    "full width, escaped": (
        (200, json.dumps({"token": PAN.translate({48 + i: 0xFF10 + i for i in range(10)})}).encode()),
        "answer-refused",
    ),
    "all but one": ((200, {"token": f"tok_{PAN[:15]}"}), "answer-refused"),
    "JSON in JSON": ((200, {"token": "tok_a", "raw": json.dumps({"cvv": CVV})}), "answer-refused"),
    "cvv in a form": ((200, {"token": "tok_a", "raw": f"a=b&cvc={CVV}&c=d"}), "answer-refused"),
    "cvv after a tab": ((200, b'{"token": "tok_a", "c":\t947}'), "answer-refused"),
    "other pan with dots": ((200, {"token": "tok_a", "card": "4242.4242.4242.4242"}), "answer-refused"),
    "a list": ((200, [1]), "answer-refused"),
    "number as token": ((200, {"token": 5}), "answer-refused"),
    "empty token": ((200, {"token": ""}), "answer-refused"),
    "long token": ((200, {"token": "t" * 300}), "answer-refused"),
    "token of two lines": ((200, {"token": "a\nb"}), "answer-refused"),
}


@pytest.mark.parametrize("name", list(ANSWERS))
def test_every_fault_has_a_reason_and_nothing_is_kept(faulty: fixture.Server, config: GatewayConfig, name: str) -> None:
    answer, reason = ANSWERS[name]
    faulty.answers = [answer]
    assert refused(config) == reason
    assert len(faulty.requests) == (2 if reason == "gateway-unavailable" and name != "redirect" else 1)


@pytest.mark.parametrize("kind", ["pause", "drip"])
def test_a_slow_gateway_costs_no_more_than_its_time(faulty: fixture.Server, config: GatewayConfig, kind: str) -> None:
    faulty.answers = [(200, TOKEN)]
    faulty.pause, faulty.drip = (5.0, 0.0) if kind == "pause" else (0.0, 0.3)
    began = time.monotonic()
    assert refused(change(config, timeout_seconds=1)) == "gateway-unavailable"
    assert time.monotonic() - began < 2.5


def test_whoever_waits_no_longer_can_end_it(faulty: fixture.Server, config: GatewayConfig) -> None:
    faulty.answers = [(200, TOKEN)]
    faulty.pause = 20.0
    submission = Submission(gateways(change(config, timeout_seconds=20)), keyed())
    threading.Timer(0.5, submission.abort).start()
    began = time.monotonic()
    with pytest.raises(GatewayError):
        submission.run()
    assert time.monotonic() - began < 5
    submission.close()


def test_what_is_cut_off_is_never_sent_in_the_clear(faulty: fixture.Server, config: GatewayConfig) -> None:
    """`SSLSocket.shutdown` takes TLS off before it shuts down: another thread that sends then sends readable octets."""
    (gateway,) = gateways(config)
    exchange = Exchange()
    sock = gateway._client._connect(time.monotonic() + 5, exchange)
    with sock:
        exchange.cut()
        assert sock.cipher() is not None
        with pytest.raises((BrokenPipeError, ssl.SSLError)):
            sock.sendall(PAN.encode())


def raw(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *headers)) + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "answer",
    [
        raw(b'{"token":"tok_a"}', b"content-LENGTH:17"),
        raw(b'11\r\n{"token":"tok_a"}\r\n0\r\n\r\n', b"Transfer-Encoding: chunked"),
        raw(b'0000000011 ;a=b\r\n{"token":"tok_a"}\r\n0\r\nX: y\r\n\r\n', b"transfer-encoding:chunked"),
        raw(b'5\r\n{"tok\r\nc\r\nen":"tok_a"}\r\n0\r\n\r\n', b"Transfer-Encoding: chunked", b"Content-Length: 3"),
        raw(b'{"token":"tok_a"}', b"Content-Type: application/json"),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n"
        + raw(b'{"token":"tok_a"}', b"Content-Length: 17"),
    ],
)
def test_answers_come_in_every_form_that_http_has(faulty: fixture.Server, config: GatewayConfig, answer: bytes) -> None:
    faulty.answers = [answer]
    assert tokenize(config) == "tok_a"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 100 \r\n\r\n" * 2000, "gateway-unavailable"),
        (raw(b"zz\r\n", b"Transfer-Encoding: chunked"), "gateway-unavailable"),
        (raw(b'{"token":"tok', b"Content-Length: 17"), "gateway-unavailable"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "answer-refused"),
        (b"HTTP/1.1 402 No\r\nContent-Length: 4\r\n\r\n\"\xe9\"}", "declined"),
        (raw(b'{"token":"\xe9"}', b"Content-Length: 13"), "answer-refused"),
        (raw(b'"' + b'\\"' * 30_000, b"Content-Length: 60001"), "answer-refused"),
    ],
)  # fmt: skip
def test_what_is_no_answer_ends_as_such_and_soon(
    faulty: fixture.Server, config: GatewayConfig, answer: bytes, reason: str
) -> None:
    faulty.answers = [answer]
    began = time.monotonic()
    assert refused(change(config, timeout_seconds=5)) == reason
    assert time.monotonic() - began < 2.5


FINE: list[dict[str, Any]] = [
    {"token": "tok_4242424242424242"}, {"at": 1800000000009}, {"ip": "213.10.22.41"},
    {"bin": PAN[:6], "last": PAN[-4:], "exp_month": 11}, {"bin": PAN[:8], "last4": PAN[-4:]},
    {"name": "M\u00fcller & Co"}, {"at": 1795409213005}, {"id2": "f47ac10b-58cc-4372-9bcd-123456789015"},
    {"note": "HTTP 200 ok, 947 ms"}, {"amount": 94.7, "n": [9, 4, 7]}, {"fingerprint": "79758cf4654d6cc6"},
    {"last4": PAN[-4:], "bin": PAN[:6]}, {"url": "https://x.example/%41?a=1"}, {"deep": {"a": [None, True, {"b": 1}]}},
]  # fmt: skip


@pytest.mark.parametrize("more", FINE)
def test_what_gateways_say_by_right_is_no_echo(
    faulty: fixture.Server, config: GatewayConfig, more: dict[str, Any]
) -> None:
    faulty.answers = [(200, TOKEN | more), (200, json.dumps(TOKEN | more, ensure_ascii=False).encode())]
    assert tokenize(config) == tokenize(config) == (TOKEN | more)["token"]


@pytest.mark.parametrize("what", ["slow names", "many addresses"])
def test_a_gateway_that_cannot_be_found_in_time_is_sent_nothing(
    config: GatewayConfig, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.255.255.{i}", 443)) for i in range(1, 6)]

    def look_up(*_: Any, **__: Any) -> Any:
        if what == "slow names":
            time.sleep(3.0)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    submission = Submission(gateways(change(config, url="https://gateway.example", connect_seconds=1)), keyed())
    thread = threading.Thread(target=_quietly, args=(submission,))
    began = time.monotonic()
    thread.start()
    time.sleep(0.5)
    submission.abort()
    assert not any(bytes(body.view).strip(b"\0") for _, body in submission._ways)  # blank, whatever still waits
    thread.join()
    assert time.monotonic() - began < (4.5 if what == "slow names" else 2.0)
    submission.close()


def _quietly(submission: Submission) -> None:
    with contextlib.suppress(GatewayError):
        submission.run()


@pytest.mark.parametrize("token", ["tok_947x1", "4242424242424242"])
def test_a_token_may_look_like_a_card_and_hold_three_digits_by_chance(
    faulty: fixture.Server, config: GatewayConfig, token: str
) -> None:
    faulty.answers = [(200, {"token": token})]
    assert tokenize(config) == token
    assert faulty.requests[-1].json == {"pan": PAN, "expiry": f"03{YEAR % 100}", "cvv": CVV}


def test_a_certificate_of_nobody_we_know_is_refused(faulty: fixture.Server, config: GatewayConfig) -> None:
    faulty.answers = [(200, TOKEN)]
    assert refused(change(config, ca_file="")) == "gateway-unavailable"
    assert refused(change(config, url=faulty.url.replace("127.0.0.1", "127.0.0.2"))) == "gateway-unavailable"
    assert faulty.requests == []


def test_a_client_certificate_is_shown(pem: tuple[Path, Path, Path], tmp_path: Path) -> None:
    with fixture.server(pem, clients=True) as running:
        running.answers = [(200, TOKEN)]
        mine = {"client_certificate": str(pem[1]), "client_key": str(pem[2])}
        config = GatewayConfig(name="g", url=running.url, ca_file=str(pem[0]), timeout_seconds=2, **mine)
        assert tokenize(config) == "tok_947x1"
        assert refused(change(config, client_certificate="", client_key="")) == "gateway-unavailable"
        assert len(running.requests) == 1


def test_a_security_code_that_is_the_last_four_or_the_year_is_no_echo(
    faulty: fixture.Server, config: GatewayConfig
) -> None:
    pan = "378282246310005"
    for cvv, answer in (("0005", {"token": "t", "last4": "0005"}), (str(YEAR), {"token": "t", "exp_year": YEAR})):
        faulty.answers = [(200, answer)]
        assert tokenize(config, keyed(pan, cvv=cvv)) == "t"
        faulty.answers = [(200, answer | {"c": "1234"})]
        assert refused(config, fields=keyed(pan, cvv="1234")) == "answer-refused"


def test_a_gateway_says_when_its_credentials_cannot_be_read(config: GatewayConfig, bearer: Path) -> None:
    for content, good in (("s3cret", True), (" \n", False), (None, False)):
        bearer.write_text(content) if content is not None else bearer.unlink()
        assert gateways(config)[0].has_credentials() == good


# Repeating


def test_what_failed_is_asked_again_with_the_same_key(faulty: fixture.Server, config: GatewayConfig) -> None:
    faulty.answers = [(500, {}), None, (200, TOKEN)]
    assert tokenize(change(config, retries=3)) == "tok_947x1"
    keys = {request.headers["idempotency-key"] for request in faulty.requests}
    assert len(faulty.requests) == 3
    assert len(keys) == 1
    assert not any(c.isdigit() for c in keys.pop())


@pytest.mark.parametrize(("answer", "times"), [((500, {}), 1), (None, 1), ((503, {}), 1), ((429, {}), 2)])
def test_without_idempotency_nothing_that_may_have_been_taken_is_asked_again(
    faulty: fixture.Server, config: GatewayConfig, answer: Any, times: int
) -> None:
    faulty.answers = [answer]
    assert refused(change(config, idempotent=False)) == "gateway-unavailable"
    assert len(faulty.requests) == times
    assert "idempotency-key" not in faulty.requests[0].headers


@pytest.mark.parametrize("how", ["nobody", "429", "breaker", "certificate"])
def test_the_standby_is_asked_where_the_first_took_nothing(
    faulty: fixture.Server, config: GatewayConfig, pem: tuple[Path, Path, Path], how: str
) -> None:
    with fixture.server(pem) as first:
        first.answers = [(429, {})]
        faulty.answers = [(200, TOKEN)]
        url = {"nobody": "https://127.0.0.1:1"}.get(how, first.url)
        primary = change(
            config, name="first", url=url, standby="g", ca_file="" if how == "certificate" else str(pem[0])
        )
        ways = gateways(primary, config)
        if how == "breaker":
            for _ in range(5):
                ways[0].breaker.failed()
        submission = Submission(ways, keyed())
        assert submission.run() == "tok_947x1"
        submission.close()
        assert len(first.requests) == (2 if how == "429" else 0)


def test_the_standby_is_not_asked_where_the_first_may_have_taken_it(
    faulty: fixture.Server, config: GatewayConfig, pem: tuple[Path, Path, Path]
) -> None:
    with fixture.server(pem) as first:
        for answer, reason in (
            ((503, {}), "gateway-unavailable"),
            ((500, {}), "gateway-unavailable"),
            (None, "gateway-unavailable"),
            ((402, {}), "declined"),
        ):
            first.answers = [answer]
            assert refused(change(config, name="first", url=first.url, standby="g"), config) == reason
        assert faulty.requests == []


def test_after_many_failures_the_gateway_rests_and_then_one_request_looks() -> None:
    breaker = Breaker(3, 0.2)
    for _ in range(3):
        assert breaker.admits()
        breaker.failed()
    assert not breaker.admits()
    time.sleep(0.25)
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert breaker.admits()


def test_the_body_is_wiped_and_given_back() -> None:
    (gateway,) = gateways(GatewayConfig(name="g", url="https://127.0.0.1:1"))
    body = gateway.body(keyed())
    assert json.loads(bytes(body.view))["pan"] == PAN
    body.wipe()
    assert bytes(body.view) == bytes(len(body.view))
    body.close()
    with pytest.raises(ValueError, match="released"):
        bytes(body.view)


# Kinds


def test_a_body_is_made_by_configuration_as_json(faulty: fixture.Server, config: GatewayConfig, tmp_path: Path) -> None:
    faulty.answers = [(201, {"data": [{"id": "tok_abc"}]})]
    (tmp_path / "key").write_text("k3y\n")
    (tmp_path / "basic").write_text("user:word\n")
    shape = {
        "merchant": 17, "live": True, "none": None,
        "card": {"no": "{pan}", "exp": "{expiry.month}/{expiry.yy}", "m": "int:{expiry.month}", "y": "int:{expiry.year}"},
        "secret": {"cvv": "{cvv}"}, "bank": ["{sort-code}"], "say": 'a "quote"',
    }  # fmt: skip
    config = change(
        config, body=shape, token="data.0.id", headers={"X-Version": "2"}, header_files={"X-Key": str(tmp_path / "key")},
        bearer_file="", basic_file=str(tmp_path / "basic"),
    )  # fmt: skip
    assert tokenize(config) == "tok_abc"
    assert faulty.requests[-1].json == {
        "merchant": 17, "live": True, "none": None, "secret": {"cvv": CVV}, "say": 'a "quote"',
        "card": {"no": PAN, "exp": f"03/{YEAR % 100}", "m": 3, "y": YEAR},
    }  # fmt: skip
    sent = faulty.requests[-1].headers
    assert (sent["x-version"], sent["x-key"], sent["authorization"]) == ("2", "k3y", "Basic dXNlcjp3b3Jk")
    assert tokenize(config, keyed(pan="", cvv="", expiry="", sort_code="012345")) == "tok_abc"
    assert faulty.requests[-1].json == {
        "merchant": 17,
        "live": True,
        "none": None,
        "bank": ["012345"],
        "say": 'a "quote"',
    }


def test_a_body_is_made_by_configuration_as_a_form(faulty: fixture.Server, config: GatewayConfig) -> None:
    faulty.answers = [(200, TOKEN)]
    shape = {"card": {"no": "{pan}", "exp": "{expiry.m} {expiry.year}"}, "who": "a&b=c", "live": True, "l": ["{cvv}"]}
    assert tokenize(change(config, body=shape, encoding="form")) == "tok_947x1"
    assert faulty.requests[-1].headers["content-type"] == "application/x-www-form-urlencoded"
    assert faulty.requests[-1].form == {
        "card[no]": PAN, "card[exp]": f"3 {YEAR}", "who": "a&b=c", "live": "true", "l[]": CVV,
    }  # fmt: skip


def test_a_refusal_means_what_the_configuration_says(faulty: fixture.Server, config: GatewayConfig) -> None:
    config = change(config, error="error.code", errors={"no_funds": "declined", "418": "not-configured"})
    for status, body, reason in (
        (400, {"error": {"code": "no_funds"}}, "declined"),
        (400, {"error": {"code": "other"}}, "invalid-field"),
        (400, {"error": "other"}, "invalid-field"),
        (400, b"<html>", "invalid-field"),
        (418, {"error": {"code": 5}}, "not-configured"),
    ):
        faulty.answers = [(status, body)]
        assert refused(config) == reason, (status, body)


@pytest.mark.parametrize("what", ["tokens", "payment_methods"])
def test_stripe_by_localstripe(pem: tuple[Path, Path, Path], tmp_path: Path, what: str) -> None:
    (tmp_path / "key").write_text("sk_test_flattone")
    with fixture.localstripe(pem) as url:
        config = GatewayConfig(
            name="g", kind="stripe", url=f"{url}/v1/{what}", ca_file=str(pem[0]), bearer_file=str(tmp_path / "key")
        )
        token = tokenize(config)
        assert token.startswith({"tokens": "tok_", "payment_methods": "pm_"}[what])
        key = tmp_path / "key"
        request = Request(f"{url}/v1/{what}/{token}", headers={"Authorization": f"Bearer {key.read_text()}"})
        with urlopen(request, context=ssl.create_default_context(cafile=str(pem[0]))) as answer:
            card = json.loads(answer.read())["card"]
        assert (card["last4"], card["exp_month"], card["exp_year"]) == (PAN[-4:], 3, YEAR)
        assert refused(config, fields=keyed(cvv="12")) == "not-configured"  # localstripe names no code
        key.write_text("nobody")
        assert refused(config) == "not-configured"
        assert not Path("/tmp/localstripe.pickle").exists()


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (402, {"type": "card_error", "code": "incorrect_number"}, "invalid-field"),
        (402, {"type": "card_error", "code": "invalid_expiry_year"}, "invalid-field"),
        (402, {"type": "card_error", "code": "incorrect_cvc"}, "invalid-field"),
        (402, {"type": "card_error", "code": "card_declined", "decline_code": "lost_card"}, "declined"),
        (402, {"type": "card_error", "code": "processing_error"}, "gateway-unavailable"),
        (402, {"type": "invalid_request_error", "message": "generally unsafe"}, "not-configured"),
        (400, {"type": "invalid_request_error", "param": "card"}, "not-configured"),
        (401, {"type": "invalid_request_error"}, "not-configured"),
        (400, {"type": "idempotency_error"}, "not-configured"),
        (429, {"type": "api_error"}, "gateway-unavailable"),
        (500, {"type": "api_error"}, "gateway-unavailable"),
    ],
)
def test_stripes_refusals_mean_what_its_documentation_says(
    faulty: fixture.Server, config: GatewayConfig, status: int, error: dict[str, str], reason: str
) -> None:
    faulty.answers = [(status, {"error": error})]
    assert refused(change(config, kind="stripe")) == reason


@pytest.mark.parametrize("form", ["string", "number", "spaced"])
def test_vgs_gets_the_number_alone_and_may_repeat_it_in_one_place(
    faulty: fixture.Server, config: GatewayConfig, tmp_path: Path, form: str
) -> None:
    (tmp_path / "basic").write_text("user:word")

    def echo(request: fixture.Request) -> tuple[int, bytes]:
        data = {"value": request.json["data"][0]["value"], "aliases": [{"alias": "tok_sandbox_b", "format": "UUID"}]}
        text = json.dumps({"data": [data]}, indent=1 if form == "spaced" else None)
        return 201, text.replace(f'"{PAN}"', PAN if form == "number" else f'"{PAN}"').encode()

    faulty.answers = [echo]
    config = change(config, kind="vgs", bearer_file="", basic_file=str(tmp_path / "basic"))
    assert tokenize(config) == "tok_sandbox_b"
    (sent,) = faulty.requests[-1].json["data"]
    assert sent == {"value": PAN, "format": "UUID", "storage": "PERSISTENT", "classifiers": ["card-number"]}
    assert CVV not in faulty.requests[-1].body.replace(PAN, "")
    alias = {"alias": "tok_b", "format": "UUID"}
    for extra in ({"note": PAN}, {"value": "4242424242424242"}, {"value": [PAN]}, {"note": f"value: {PAN}"}):
        faulty.answers = [(201, {"data": [{"aliases": [alias]} | extra]})]
        assert refused(config) == "answer-refused", extra
    faulty.answers = [(500, {})]
    faulty.requests.clear()
    assert refused(config) == "gateway-unavailable"
    assert len(faulty.requests) == 1


def test_basis_theory_gets_a_card_and_must_not_reveal_it(
    faulty: fixture.Server, config: GatewayConfig, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("key_test_us_pvt_x")
    faulty.answers = [(201, {"id": "d2cbc1b4-5c3a-45a3-9ee2-392a1c475ab4", "data": {"number": "XXXXXXXXXXXX1111"}})]
    config = change(config, kind="basis-theory", bearer_file="", header_files={"BT-API-KEY": str(tmp_path / "key")})
    assert tokenize(config) == "d2cbc1b4-5c3a-45a3-9ee2-392a1c475ab4"
    sent = faulty.requests[-1]
    card = {"number": PAN, "expiration_month": 3, "expiration_year": YEAR, "cvc": CVV}
    assert sent.json == {"type": "card", "data": card}
    assert sent.headers["bt-api-key"] == "key_test_us_pvt_x"
    assert sent.headers["bt-idempotency-key"].isalpha()
    faulty.answers = [(201, {"id": "x", "data": {"number": PAN}})]
    assert refused(config) == "answer-refused"
    faulty.answers = [(400, {"errors": {"data.number": ["invalid"]}, "status": 400})]
    assert refused(config) == "invalid-field"


@pytest.mark.parametrize("kind", ["stripe", "vgs", "basis-theory"])
def test_a_capture_without_a_card_goes_to_no_card_gateway(
    faulty: fixture.Server, config: GatewayConfig, kind: Any
) -> None:
    assert refused(change(config, kind=kind), fields=keyed(pan="", sort_code="012345")) == "not-configured"
    assert faulty.requests == []


class Cutter:
    """A wire to a server that is cut on the first connection: at once, after so many octets there, or back."""

    def __init__(self, port: int, there: int = 1 << 30, back: int = 1 << 30) -> None:
        self._target, self._limits = port, [(there, back)]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            there, back = self._limits.pop() if self._limits else (1 << 30, 1 << 30)
            threading.Thread(target=self._connect, args=(near, there, back), daemon=True).start()

    def _connect(self, near: socket.socket, there: int, back: int) -> None:
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            ways = [(near, far, there, (near, far)), (far, near, back, (near, far))]
            threads = [threading.Thread(target=self._carry, args=way) for way in ways]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, limit: int, both: tuple[socket.socket, ...]) -> None:
        with contextlib.suppress(OSError):
            while limit > 0 and (data := source.recv(min(4096, limit))):
                limit -= len(data)
                sink.sendall(data)
            time.sleep(0.05)  # what has been sent arrives
        for sock in both:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.mark.parametrize("way", ["there", "back"])
def test_wherever_the_wire_is_cut_one_token_is_made(reference: dict[str, Any], way: str) -> None:
    """Against the idempotent server: whatever of request and answer had passed, the repetition makes no second one."""
    port = int(reference["url"].split(":")[2].split("/")[0])
    cut = [0, 100, 600, 1000, 1500, 1800, 2200, 2600, 3000, 3500]
    for limit in cut:
        wire = Cutter(port, **{way: limit})
        config = GatewayConfig(**reference | {"url": f"https://127.0.0.1:{wire.port}/"}, reference_server=True)
        before = issued(reference)
        token = tokenize(change(config, retries=2, timeout_seconds=5))
        wire.close()
        assert token.startswith("tok_"), limit
        assert issued(reference) == before + 1, limit


def issued(reference: dict[str, Any]) -> int:
    """How many tokens the reference server has made."""
    with urlopen(reference["url"], context=trusting(reference)) as answer:
        return int(json.loads(answer.read())["issued"])
