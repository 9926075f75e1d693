"""Who asks: static bearer tokens by their SHA-256, and signed ones (JWT) of the configured issuers."""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from mediaproxy.agent.issuers import Issuers, Untrusted
from mediaproxy.agent.problem import Problem
from mediaproxy.config import EVERYTHING, AgentConfig, IssuerConfig, Role

LONGEST_TOKEN = 8192
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody known. by: `token`, or the issuer that vouches; numbers: an agent's extensions; expires: seconds since
    1970."""

    name: str
    by: str
    roles: frozenset[Role]
    tenant: str
    numbers: frozenset[str]
    expires: float = math.inf

    @property
    def key(self) -> str:
        return f"{self.by}:{self.tenant}:{self.name}"

    @property
    def home(self) -> str:
        """In whose audit log they are."""
        return "" if self.tenant == EVERYTHING else self.tenant

    @property
    def unlimited(self) -> bool:
        """Whether it acts for many people."""
        return EVERYTHING in self.numbers

    def of_tenant(self, tenant: str) -> bool:
        return self.tenant in (EVERYTHING, tenant)

    def may_see(self, tenant: str, number: str) -> bool:
        """Whether a call, or a capture on it, is their business."""
        if not self.of_tenant(tenant):
            return False
        return bool(self.roles & {"supervisor", "auditor"}) or self.may_act(tenant, number)

    def may_act(self, tenant: str, number: str) -> bool:
        """Whether they may capture on a call of extension `number`."""
        if not self.of_tenant(tenant):
            return False
        own = "agent" in self.roles and (EVERYTHING in self.numbers or number in self.numbers)
        return own or "supervisor" in self.roles


class Auth:
    """Everyone who may come in."""

    def __init__(self, config: AgentConfig, tenants: Iterable[str] = ()) -> None:
        """tenants: those there are; a signed token can be of no other."""
        self._tokens, self._tenants = config.tokens, frozenset(tenants) | {""}
        self._issuers = Issuers(config.issuers)

    async def identify(self, authorization: str) -> Principal:
        """Whose header this is. Raises Problem 401, or 503 where an issuer's keys cannot be had."""
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given or len(given) > LONGEST_TOKEN:
            raise Problem(401, "unauthorized", "a bearer token is needed")
        known = self._static(given)
        if known is not None:
            return known
        if given.count(".") != 2:
            raise Problem(401, "unauthorized", "the token is not known")
        try:
            issuer, claims = await self._issuers.verify(given)
        except Untrusted as error:
            raise Problem(error.status, error.kind, error.detail) from None
        who = _principal(issuer, claims)
        if who.tenant not in self._tenants:
            raise Problem(401, "unauthorized", "the token is of no tenant that is known here")
        return who

    def _static(self, given: str) -> Principal | None:
        digest = hashlib.sha256(given.encode()).hexdigest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(digest, token.sha256):
                found = token
        if found is None:
            return None
        return Principal(found.name, "token", frozenset({found.role}), found.tenant, frozenset(found.numbers))


def _principal(issuer: IssuerConfig, claims: dict[str, object]) -> Principal:
    """What an issuer's token says of its owner. Raises Problem 401 where it says too little."""
    name = _claim(claims, issuer.name_claim)
    tenant = _claim(claims, issuer.tenant_claim) if issuer.tenant_claim else issuer.tenant
    numbers = _words(_claim(claims, issuer.number_claim))
    found = _words(_claim(claims, issuer.scope_claim))
    roles: set[Role] = {role for role in ("agent", "supervisor", "auditor") if role in found}
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        raise Problem(401, "unauthorized", "the token does not say whose it is")
    if not isinstance(tenant, str) or tenant == EVERYTHING or (issuer.tenant_claim and not tenant):
        raise Problem(401, "unauthorized", "the token does not say which tenant it is for")
    expires = claims["exp"]
    if not isinstance(expires, int | float):
        raise Problem(401, "unauthorized", "the token does not say when it ends")
    own = frozenset(numbers) - {EVERYTHING}  # only the configuration can say so much
    return Principal(name, issuer.name, frozenset(roles), tenant, own, expires + issuer.leeway_seconds)


def _claim(claims: object, path: str) -> object:
    """The claim at `path`; dots lead into objects, unless a claim has the whole name."""
    if isinstance(claims, dict) and path in claims:
        return claims[path]
    for part in path.split("."):
        claims = claims.get(part) if isinstance(claims, dict) else None
    return claims


def _words(claim: object) -> list[str]:
    """A string of words, a number, or a list of them."""
    if isinstance(claim, str):
        return claim.split()
    if isinstance(claim, int) and not isinstance(claim, bool):
        return [str(claim)]
    return [text for item in claim for text in _words(item)] if isinstance(claim, list) else []


def seconds_left(principal: Principal) -> float:
    """Until the token is stale."""
    return principal.expires - time.time()
