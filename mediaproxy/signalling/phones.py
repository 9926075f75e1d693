"""Browsers that register as phones: whose word is taken, which connection is whose, and where a call to one goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mediaproxy import log
from mediaproxy.config import Config
from mediaproxy.ipc import messages as m
from sip.b2bua.peers import Peer
from sip.b2bua.refusal import answer_unread
from sip.digest import Credentials
from sip.errors import PeerError
from sip.hop import WSS, Hop
from sip.message import Request, Response, parse
from sip.registrar import Identity, Registrar
from sip.transaction import Outgoing

WAITING: Final = 1000
"""Tokens that are being looked at."""
ATTEMPTS: Final = 5
"""Registrations of one connection that may be refused in a row before it is closed."""
PATIENCE: Final = 10.0
"""Seconds for the agent process to say whose a token is."""
LONGEST_TOKEN: Final = 8192


class Phones:
    """send: gives a message to its connection; ask: asks the agent process whose a token is; name: gives a connection
    the name of its flow, empty where it has none; hang_up: closes one."""

    def __init__(
        self,
        config: Config,
        ids: Callable[[], str],
        send: Callable[[Outgoing], None],
        ask: Callable[[m.Vouch], None],
        name: Callable[[int, str], None],
        hang_up: Callable[[int], None],
    ) -> None:
        phones = {
            (phone.tenant, phone.number): Credentials(
                phone.number, Path(phone.password_file).read_text("utf-8").rstrip("\r\n")
            )
            for phone in config.phones
        }
        self.registrar = Registrar("flattone", phones, ids)
        self._tenants = [peer.tenant for peer in config.peers if peer.registered]
        self._send, self._ask, self._name, self._hang_up = send, ask, name, hang_up
        self._asked: dict[int, tuple[Request, str, Hop, float]] = {}
        self._questions = 0
        self._failures: dict[int, int] = {}

    def take(self, data: bytearray, side: str, source: Hop, now: float) -> bool:
        """Whether a message is a REGISTER; then it is dealt with here."""
        if not data.startswith(b"REGISTER "):
            return False
        try:
            request = parse(data)
            if not isinstance(request, Request):
                raise PeerError("no request")
            request.stamp(request.via.received_from(source))
            self._register(request, side, source, now)
        except PeerError as error:
            answer = answer_unread(data, error.status)
            if answer is not None:
                self._answer(answer, side, source)
            self._failed(source)
        return True

    def _register(self, request: Request, side: str, source: Hop, now: float) -> None:
        """Raises PeerError."""
        given = next(iter(request.lines("Authorization")), "")
        scheme, _, rest = given.partition(" ")
        if scheme.lower() == "bearer":
            token = rest.strip()
            if not token or len(token) > LONGEST_TOKEN:
                raise PeerError("that token cannot be looked at", 403 if token else 400)
            busy = any(asked.connection == source.connection for _, _, asked, _ in self._asked.values())
            if busy or len(self._asked) >= WAITING:  # one at a time
                answer = request.response(503, tag=self.registrar.ids())
                answer.headers.append(("Retry-After", "2"))
                self._answer(answer, side, source)
                return
            self._questions += 1
            self._asked[self._questions] = request, side, source, now
            self._ask(m.Vouch(self._questions, token))
        elif scheme.lower() == "digest":
            found = self.registrar.by_digest(request, self._tenants, now)
            self._known(request, found, side, source, now)
        else:
            self._answer(self.registrar.challenge(request), side, source)

    def vouched(self, message: m.Vouched, now: float) -> None:
        """The agent process says whose a token is."""
        request, side, source, _ = self._asked.pop(message.question, (None, "", None, 0.0))
        if request is None or source is None:
            return
        if message.status != 200:
            self._answer(self._refusal(request, message.status), side, source)
            self._failed(source)
            return
        until = now + message.until - time.time() if message.until else float("inf")
        who = Identity(message.tenant, frozenset(message.numbers), until)
        if message.tenant not in self._tenants:
            self._answer(self._refusal(request, 403), side, source)
            self._failed(source)
            return
        self._known(request, who, side, source, now)

    def _refusal(self, request: Request, status: int) -> Response:
        if status == 401:
            return self.registrar.challenge(request)
        return request.response(403 if status < 500 else 503, tag=self.registrar.ids())

    def _known(self, request: Request, who: Identity | Response, side: str, source: Hop, now: float) -> None:
        if isinstance(who, Response):
            self._answer(who, side, source)
            self._failed(source)
            return
        try:
            answer, flow = self.registrar.register(request, who, source, now)
        except PeerError as error:
            refusal = request.response(error.status, tag=self.registrar.ids())
            if error.status == 423:
                refusal.headers.append(("Min-Expires", "30"))
            self._answer(refusal, side, source)
            self._failed(source)
            return
        self._failures.pop(source.connection, None)
        if flow:  # who takes it back, or only asks, may still end the calls that it has
            self._name(source.connection, flow)
        self._answer(answer, side, source)

    def _answer(self, answer: Response, side: str, source: Hop) -> None:
        self._send(Outgoing(answer.encode(), side, source))

    def _failed(self, source: Hop) -> None:
        """Whoever guesses has to connect anew."""
        count = self._failures.get(source.connection, 0) + 1
        self._failures[source.connection] = count
        if count >= ATTEMPTS:
            log.get().warning("registration-refused", peer=source.host, count=count)
            self._hang_up(source.connection)

    def locate(self, peer: Peer, number: str) -> list[tuple[Hop, str]]:
        """Where the browsers of a number are."""
        return [(p.hop, p.contact) for p in self.registrar.located(peer.tenant, number, time.monotonic())]

    def connection(self, hop: Hop) -> int:
        """The connection by which a browser can be reached now; 0: by none."""
        now = self.registrar.of_flow(hop.name) if hop.transport == WSS and hop.name else None
        return now.connection if now is not None else 0

    def lost(self, connection: int) -> None:
        """A connection has ended."""
        self._failures.pop(connection, None)
        for question in [q for q, (_, _, source, _) in self._asked.items() if source.connection == connection]:
            del self._asked[question]
        self.registrar.lost(connection)

    def sweep(self, now: float) -> None:
        """Forget what is over: registrations, and questions that nobody has answered."""
        self.registrar.sweep(now)
        for question, (request, side, source, since) in list(self._asked.items()):
            if now - since > PATIENCE:
                del self._asked[question]
                self._answer(self._refusal(request, 503), side, source)
