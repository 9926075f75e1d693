"""A small reference token server: HTTPS, random tokens, idempotent, test cards only. For the demo and tests.

It keeps a keyed hash of what it was given, never a card, and says in every answer what it is, so that a vault that
was not told to expect it refuses it.

    python -m mediaproxy.demo.tokenserver --certificate C --key K --bearer-file B [--port P] [--client-authority A]
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import json
import secrets
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mediaproxy.vault import card
from mediaproxy.vault.gateway import REFERENCE, REFERENCE_HEADER

TEST_RANGES = (
    "400000", "411111", "424242", "222300", "510510", "555555", "343434", "371449", "378282", "305693", "385200",
    "353011", "356600", "601111",
)  # fmt: skip
"""Leading digits of the numbers that card brands and gateways publish for testing."""
LARGEST = 4096


class Tokens:
    """Tokens by idempotency key, and how often each was asked for."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._by_key: dict[str, tuple[str, bytes]] = {}
        self._lock = threading.Lock()
        self.issued = self.asked = 0

    def issue(self, key: str, digest_of: bytes) -> str | None:
        """The token for this key; None where the key was used for something else."""
        digest = hmac.digest(self._secret, digest_of, "sha256")
        with self._lock:
            if key in self._by_key:
                token, before = self._by_key[key]
                return token if hmac.compare_digest(digest, before) else None
            token = "tok_" + secrets.token_urlsafe(18)
            self._by_key[key] = (token, digest)
            self.issued += 1
            return token


def check(fields: dict[str, Any]) -> str:
    """What is wrong with the fields, or nothing."""
    pan, expiry, cvv = (str(fields.get(name, "")) for name in ("pan", "expiry", "cvv"))
    if not pan.isdecimal() or not card.luhn(pan.encode()):
        return "pan"
    if not pan.startswith(TEST_RANGES):
        return "not-a-test-card"
    if expiry and not (len(expiry) == 4 and expiry.isdecimal() and 1 <= int(expiry[:2]) <= 12):
        return "expiry"
    if expiry and (int(expiry[2:]), int(expiry[:2])) < (time.gmtime().tm_year % 100, time.gmtime().tm_mon):
        return "expiry"
    return "" if not cvv or (cvv.isdecimal() and len(cvv) in (3, 4)) else "cvv"


def server(host: str, port: int, bearer: str) -> ThreadingHTTPServer:
    """The server, without TLS around it yet."""
    tokens = Tokens()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            tokens.asked += 1
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > LARGEST:
                return self._answer(413, {"error": "body"})
            body = self.rfile.read(int(length))
            if bearer and not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {bearer}"):
                return self._answer(401, {"error": "unauthorized"})
            key = self.headers.get("Idempotency-Key", "")
            if not key:
                return self._answer(400, {"error": "idempotency-key"})
            try:
                fields = json.loads(body)
            except ValueError:
                return self._answer(400, {"error": "json"})
            wrong = check(fields) if isinstance(fields, dict) else "json"
            if wrong:
                return self._answer(422, {"error": wrong})
            token = tokens.issue(key, body)
            return (
                self._answer(409, {"error": "idempotency-key"})
                if token is None
                else self._answer(200, {"token": token})
            )

        def do_GET(self) -> None:
            self._answer(200, {"issued": tokens.issued, "asked": tokens.asked})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header(REFERENCE_HEADER, "test cards only")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            return

    return ThreadingHTTPServer((host, port), Handler)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--bearer-file")
    parser.add_argument("--client-authority", help="ask for a client certificate of this authority")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    bearer = Path(args.bearer_file).read_text("ascii").strip() if args.bearer_file else ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(args.certificate, args.key)
    context.set_alpn_protocols([REFERENCE, "http/1.1"])  # who knows what this is does not go on by mistake
    if args.client_authority:
        context.load_verify_locations(args.client_authority)
        context.verify_mode = ssl.CERT_REQUIRED
    httpd = server("127.0.0.1", args.port, bearer)
    httpd.daemon_threads = True
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
    print(f"port {httpd.server_address[1]}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        httpd.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
