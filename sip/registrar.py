"""Where configured agents can be reached now (RFC 3261 section 10, RFC 5626): one or several browsers each.

What is believed of a REGISTER is who sent it, by digest (RFC 7616, RFC 8760) or a bearer token (RFC 8898), and the
connection it came by; its Contact is only what requests are addressed to. A browser that comes back over a new
connection takes its old place, so that a call of before reaches it there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from sip import digest
from sip.digest import Credentials, Nonces
from sip.errors import PeerError
from sip.headers.address import Address
from sip.headers.params import number
from sip.hop import Hop
from sip.message import Request, Response
from sip.uri import Uri

LONGEST, USUAL, LEAST = 3600, 600, 30
"""Seconds of a registration: granted at most, where none are asked for, and at least (423)."""
PLACES: Final = 8
"""Browsers of one number at once: the oldest goes."""
KEEP: Final = 120
"""Flow-Timer (RFC 5626 section 4.4.1): a browser that says nothing for so long is taken for gone."""
_INSTANCE = re.compile(r'"?<?(urn:uuid:[0-9A-Fa-f-]{36}|[A-Za-z0-9:._-]{1,80})>?"?')


@dataclass(frozen=True, slots=True)
class Identity:
    """Who registers. tenant: whose agent, empty where there is one only; numbers: the extensions it may register;
    until: when that ends."""

    tenant: str
    numbers: frozenset[str]
    until: float = float("inf")


@dataclass(slots=True)
class Place:
    """One browser. flow: its name, the same over all its connections; hop: the connection it has now."""

    flow: str
    contact: str
    hop: Hop
    until: float
    sequence: tuple[str, int]
    """Call-ID and CSeq of its last REGISTER: an older one changes nothing (RFC 3261 section 10.3)."""


@dataclass(slots=True)
class Registrar:
    """phones: password of each (tenant, number) that registers by digest. ids: gives unguessable tokens."""

    realm: str
    phones: dict[tuple[str, str], Credentials]
    ids: Callable[[], str]
    places: dict[tuple[str, str], list[Place]] = field(default_factory=dict)
    nonces: Nonces = field(init=False)
    counters: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("registered", "challenged", "unauthorized"), 0)
    )

    def __post_init__(self) -> None:
        self.nonces = Nonces(self.ids)

    # Who it is

    def challenge(self, request: Request, stale: bool = False) -> Response:
        """401, with every way to answer it."""
        self.counters["challenged"] += 1
        answer = request.response(401, "Unauthorized", self.ids())
        if self.phones:
            answer.headers.append(("WWW-Authenticate", self.nonces.challenge(self.realm, stale)))
        answer.headers.append(("WWW-Authenticate", f'Bearer realm="{self.realm}"'))
        return answer

    def by_digest(self, request: Request, tenants: Iterable[str], now: float) -> Identity | Response:
        """Who answers a challenge rightly, or what else to say. The same number may be there in several tenants: it is
        the one whose password fits."""
        value = next((v for v in request.lines("Authorization") if v[:7].lower() == "digest "), "")
        given = digest.parse(value)
        user = given.get("username", "")
        stale = not self.nonces.fresh(given.get("nonce", ""), given.get("nc", ""), now)
        nobody = Credentials(user, self.ids())
        right = [
            tenant
            for tenant in tenants
            if digest.verify(given, self.phones.get((tenant, user), nobody), self.realm, request)
        ]
        if not right:
            self.counters["unauthorized"] += 1
            return self.challenge(request)
        if stale:
            return self.challenge(request, stale=True)
        return Identity(right[0], frozenset({user}))

    # What it says

    def register(self, request: Request, who: Identity, source: Hop, now: float) -> tuple[Response, str]:
        """(the answer to a REGISTER of somebody known, the name of its flow: empty where it binds none). Raises
        PeerError."""
        aor = Uri.parse(request.to.uri).number
        if aor not in who.numbers or "/" in aor:  # which parts a flow's name
            self.counters["unauthorized"] += 1
            raise PeerError("that extension is not theirs", 403)
        own = [place for place in self.places.get((who.tenant, aor), []) if place.until > now]
        contacts = request.every("Contact")
        asked = number(request.get("Expires") or str(USUAL), 2**31 - 1)
        flow = ""
        if contacts == ["*"]:
            if asked != 0:
                raise PeerError("a Contact of * goes with Expires: 0")
            own = []
        elif len(contacts) > 1:
            raise PeerError("one Contact a registration: further browsers register themselves")
        elif contacts:
            flow, own = self._bind(request, Address.parse(contacts[0]), asked, who, aor, own, source, now)
        self.places[who.tenant, aor] = own
        if not own:
            del self.places[who.tenant, aor]
        answer = request.response(200, tag=self.ids())
        for place in own:
            answer.headers.append(("Contact", f"<{place.contact}>;expires={max(int(place.until - now), 0)}"))
        if contacts and flow and {"reg-id", "+sip.instance"} <= Address.parse(contacts[0]).params.keys():
            answer.headers += [("Require", "outbound"), ("Flow-Timer", str(KEEP))]
        answer.headers.append(("Supported", "outbound, path"))
        self._count()
        return answer, flow

    def _bind(
        self, request: Request, contact: Address, asked: int | None, who: Identity, aor: str, own: list[Place],
        source: Hop, now: float,
    ) -> tuple[str, list[Place]]:  # fmt: skip
        uri = Uri.parse(contact.uri)
        seconds = number(contact.params.get("expires") or "", 2**31 - 1) if "expires" in contact.params else asked
        if seconds is None:
            raise PeerError("Expires cannot be read")
        if 0 < seconds < LEAST:
            raise PeerError("the registration would be too short", 423)
        flow = f"{who.tenant}/{aor}/{_instance(contact, str(uri))}"
        before = next((place for place in own if place.flow == flow), None)
        sequence = request.call_id, request.cseq[0]
        if before is not None and before.sequence[0] == sequence[0] and sequence[1] <= before.sequence[1]:
            raise PeerError("an older registration", 500)
        rest = [place for place in own if place is not before]
        if not seconds:
            return "", rest
        until = min(now + min(seconds, LONGEST), who.until)
        if until - now < 1:
            raise PeerError("the token has expired", 403)
        hop = source._replace(name=flow)
        return flow, [*rest[-(PLACES - 1) :], Place(flow, str(uri), hop, until, sequence)]

    # Where they are

    def located(self, tenant: str, aor: str, now: float) -> list[Place]:
        """The browsers of a number that can be reached, the newest first."""
        return [p for p in reversed(self.places.get((tenant, aor), [])) if p.until > now and p.hop.connection]

    def of_flow(self, flow: str) -> Hop | None:
        """The connection that a browser has now."""
        tenant, aor, _ = flow.split("/", 2)
        found = next((p for p in self.places.get((tenant, aor), []) if p.flow == flow), None)
        return found.hop if found is not None and found.hop.connection else None

    def lost(self, connection: int) -> None:
        """A connection has ended: whoever had it is nowhere, until it comes back or its time is up."""
        for place in self._every():
            if place.hop.connection == connection:
                place.hop = place.hop._replace(connection=0)
        self._count()

    def _count(self) -> None:
        """Those that can be rung."""
        self.counters["registered"] = sum(bool(place.hop.connection) for place in self._every())

    def sweep(self, now: float) -> None:
        """Forget what is over."""
        for key, places in list(self.places.items()):
            self.places[key] = [place for place in places if place.until > now]
            if not self.places[key]:
                del self.places[key]
        self.nonces.sweep(now)
        self._count()

    def _every(self) -> Iterable[Place]:
        return (place for places in self.places.values() for place in places)


def _instance(contact: Address, uri: str) -> str:
    """What a browser is known by: its instance and reg-id (RFC 5626 section 4.1), else its Contact."""
    said = _INSTANCE.fullmatch(contact.params.get("+sip.instance") or "")
    text = f"{said[1]} {contact.params.get('reg-id', '')}" if said is not None else uri
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def owner(flow: str) -> tuple[str, str]:
    """(tenant, number) of a flow's name."""
    tenant, _, rest = flow.partition("/")
    return tenant, rest.partition("/")[0]
