"""Identity providers: their signing keys, fetched over HTTPS and renewed, and the check of what they have signed.

Keys are asked for when a token names one that is not known (rotation), at most once in `AGAIN` seconds, and from time
to time. While a provider does not answer, keys that are known are taken for as long as `STALE`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import jwt
import msgspec

from mediaproxy import log
from mediaproxy.config import IssuerConfig
from mediaproxy.https import Client, Unanswered, Unsent, Unwanted

AGAIN = 10.0
STALE = 86_400.0
SECONDS = 5.0
"""For an answer of the provider."""


class Untrusted(Exception):
    """The token is not taken. status and kind: of the problem that says so; detail: our own words."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(kind)
        self.status, self.kind, self.detail = status, kind, detail


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


@dataclass(frozen=True, slots=True)
class _Key:
    """algorithm: the only one it is for, where its owner says so."""

    key: jwt.PyJWK
    algorithm: str


@dataclass(slots=True)
class _Provider:
    """One issuer and its keys by `kid`. asked, fetched: when, on the monotonic clock."""

    config: IssuerConfig
    keys: dict[str, _Key] = field(default_factory=dict)
    asked: float = -AGAIN
    fetched: float = -STALE
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Issuers:
    """All of them, by what `iss` must be."""

    def __init__(self, issuers: tuple[IssuerConfig, ...]) -> None:
        self._renewing: set[asyncio.Task[None]] = set()
        self._providers = {issuer.issuer: _Provider(issuer) for issuer in issuers}

    async def verify(self, token: str) -> tuple[IssuerConfig, dict[str, object]]:
        """(who has signed it, its claims). Raises Untrusted."""
        try:
            header = jwt.get_unverified_header(token)
            said = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except (jwt.PyJWTError, ValueError):
            raise Untrusted(401, "unauthorized", "the token is not known") from None
        provider = self._providers.get(said) if isinstance(said, str) else None
        if provider is None or header.get("alg") not in provider.config.algorithms:
            raise Untrusted(401, "unauthorized", "the token is not known")
        key = await self._key(provider, header.get("kid"))
        config = provider.config
        if key.algorithm and key.algorithm != header["alg"]:
            raise Untrusted(401, "unauthorized", "the token is not valid here")
        try:
            claims = jwt.decode(
                token, key.key.key, algorithms=list(config.algorithms), audience=config.audience, issuer=config.issuer,
                leeway=config.leeway_seconds, options={"require": ["exp", "iss", "aud"]},
            )  # fmt: skip
        except jwt.ExpiredSignatureError:
            raise Untrusted(401, "token-expired", "the token has expired") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise Untrusted(401, "unauthorized", "the token is not valid here") from None
        return config, claims

    async def _key(self, provider: _Provider, kid: object) -> _Key:
        """The key that a token names, or the only one. Raises Untrusted."""
        if self._known(provider, kid) is None:
            await self._renew(provider, kid)
        elif time.monotonic() - provider.fetched > provider.config.keys_seconds:  # nobody waits for that
            task = asyncio.create_task(self._renew(provider, kid))
            self._renewing.add(task)
            task.add_done_callback(self._renewing.discard)
        now = time.monotonic()
        if not provider.keys or now - provider.fetched > max(STALE, provider.config.keys_seconds):
            raise Untrusted(503, "issuer-unavailable", "the identity provider's keys cannot be had")
        key = self._known(provider, kid)
        if key is None:
            raise Untrusted(401, "unauthorized", "the token is signed by a key that its issuer does not have")
        return key

    async def _renew(self, provider: _Provider, kid: object) -> None:
        """Ask for the keys, unless that has just been done."""
        async with provider.lock:
            now = time.monotonic()
            stale = now - provider.fetched > provider.config.keys_seconds
            if (self._known(provider, kid) is None or stale) and now - provider.asked >= AGAIN:
                provider.asked = now
                await self._fetch(provider)

    @staticmethod
    def _known(provider: _Provider, kid: object) -> _Key | None:
        if isinstance(kid, str):
            return provider.keys.get(kid)
        return next(iter(provider.keys.values())) if len(provider.keys) == 1 else None

    async def _fetch(self, provider: _Provider) -> None:
        try:
            keys = await asyncio.to_thread(_fetch, provider.config)
        except (Unsent, Unanswered, Unwanted, OSError, ValueError) as error:
            why = str(error) if isinstance(error, Unsent | Unanswered | Unwanted) else "no-document"
            log.get().error("issuer-unavailable", user=provider.config.name, reason=why)
            return
        provider.keys, provider.fetched = keys, time.monotonic()


def _fetch(config: IssuerConfig) -> dict[str, _Key]:
    """A provider's signing keys. Raises what `_get` does."""
    url = config.jwks_url
    if not url:
        place = f"{config.issuer.rstrip('/')}/.well-known/openid-configuration"  # OpenID Connect Discovery 1.0, 4
        found = msgspec.json.decode(_get(config, place), type=_Discovery)
        if found.issuer != config.issuer or not found.jwks_uri.startswith("https://"):
            raise ValueError("discovery of another issuer")
        url = found.jwks_uri
    keys: dict[str, _Key] = {}
    listed = msgspec.json.decode(_get(config, url), type=dict[str, object]).get("keys")
    for item in listed if isinstance(listed, list) else []:
        if not isinstance(item, dict) or item.get("use", "sig") != "sig" or item.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            keys[str(item.get("kid", ""))] = _Key(jwt.PyJWK(item), str(item.get("alg", "")))
        except jwt.PyJWTError:
            continue  # of a kind that this side does not know
    if not keys:
        raise ValueError("no keys")
    return keys


def _get(config: IssuerConfig, url: str) -> bytes:
    """Raises Unsent, Unanswered, Unwanted, OSError, ValueError."""
    answer = Client(url, config.ca_file).get({"Accept": "application/json"}, time.monotonic() + SECONDS)
    if answer.status != 200 or not answer.whole:
        raise ValueError("no document")
    return bytes(answer.body)
