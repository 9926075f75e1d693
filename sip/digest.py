"""Digest authentication (RFC 7616 and 8760, RFC 3261 section 22): towards a peer that asks for it, by MD5 or SHA-256,
and of phones that register here, by SHA-256 alone."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sip.message import Request, Response

_HASHES = ("sha-256", "md5")
"""In order of preference; as hashlib names them, but for the dash."""
_PAIR = re.compile(r'(?<![A-Za-z0-9_-])([A-Za-z0-9_-]{1,32})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]+)')


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whom this box is to a peer."""

    user: str
    password: str = field(repr=False)


@dataclass(slots=True)
class Challenge:
    """What a peer asked for last; `count` is how often its nonce has been used."""

    header: str
    realm: str
    nonce: str
    algorithm: str
    session: bool
    qop: bool
    opaque: str | None
    count: int = 0


def read(response: Response) -> Challenge | None:
    """The challenge of a 401 or 407 that can be met, the best of several; None where there is none."""
    name, header = {
        401: ("WWW-Authenticate", "Authorization"),
        407: ("Proxy-Authenticate", "Proxy-Authorization"),
    }.get(response.status, ("", ""))
    found: dict[str, Challenge] = {}
    for line in response.lines(name) if name else []:
        scheme, _, rest = line.partition(" ")
        values = {key.lower(): _plain(value) for key, value in _PAIR.findall(rest)}
        algorithm = values.get("algorithm", "MD5").lower()
        base = algorithm.removesuffix("-sess")
        qops = [q.strip() for q in values.get("qop", "").lower().split(",") if q.strip()]
        usable = scheme.lower() == "digest" and "realm" in values and "nonce" in values and base in _HASHES
        if usable and (not qops or "auth" in qops):
            found.setdefault(
                base,
                Challenge(
                    header, values["realm"], values["nonce"], values.get("algorithm", "MD5"),
                    algorithm.endswith("-sess"), bool(qops), values.get("opaque"),
                ),
            )  # fmt: skip
    return next((found[name] for name in _HASHES if name in found), None)


def answer(challenge: Challenge, credentials: Credentials, request: Request, cnonce: str) -> tuple[str, str]:
    """(header name, value) for `request`. cnonce: an unguessable token."""
    challenge.count += 1
    kind = challenge.algorithm.lower().removesuffix("-sess").replace("-", "")
    secret = _digest(kind, credentials.user, challenge.realm, credentials.password)
    if challenge.session:
        secret = _digest(kind, secret, challenge.nonce, cnonce)
    what = _digest(kind, request.method, request.uri)
    times = f"{challenge.count:08x}"
    middle = (challenge.nonce, times, cnonce, "auth") if challenge.qop else (challenge.nonce,)
    values = [
        f'username="{_quoted(credentials.user)}"', f'realm="{_quoted(challenge.realm)}"',
        f'nonce="{_quoted(challenge.nonce)}"', f'uri="{request.uri}"',
        f'response="{_digest(kind, secret, *middle, what)}"', f"algorithm={challenge.algorithm}",
    ]  # fmt: skip
    if challenge.qop or challenge.session:
        values += [f'cnonce="{cnonce}"']
    if challenge.qop:
        values += ["qop=auth", f"nc={times}"]
    if challenge.opaque is not None:
        values.append(f'opaque="{_quoted(challenge.opaque)}"')
    return challenge.header, "Digest " + ", ".join(values)


# Of those that register here


def parse(value: str) -> dict[str, str]:
    """The values of an Authorization header, by lower-case name."""
    return {key.lower(): _plain(text) for key, text in _PAIR.findall(value.partition(" ")[2])}


def verify(given: dict[str, str], credentials: Credentials, realm: str, request: Request) -> bool:
    """Whether an answer is that of who knows the password: by SHA-256 with qop=auth, for this request."""
    if given.get("algorithm", "").upper() != "SHA-256" or given.get("qop") != "auth" or given.get("realm") != realm:
        return False
    if given.get("uri") != request.uri:
        return False
    secret = _digest("sha256", credentials.user, realm, credentials.password)
    middle = given.get("nonce", ""), given.get("nc", ""), given.get("cnonce", ""), "auth"
    right = _digest("sha256", secret, *middle, _digest("sha256", request.method, request.uri))
    return hmac.compare_digest(right.encode(), given.get("response", "").lower().encode("utf-8", "surrogateescape"))


class Nonces:
    """What has been asked: each lasts for LASTS seconds, and counts upwards only (RFC 7616 section 5.12)."""

    LASTS: Final = 300.0
    MOST: Final = 20_000

    def __init__(self, ids: Callable[[], str]) -> None:
        self._ids = ids
        self._counts: dict[str, int] = {}
        self._fresh: dict[str, float] = {}

    def challenge(self, realm: str, stale: bool) -> str:
        """The value of WWW-Authenticate."""
        nonce = self._ids()
        if len(self._counts) >= self.MOST:
            self._forget(next(iter(self._counts)))
        self._counts[nonce] = 0
        again = ", stale=true" if stale else ""
        return f'Digest realm="{_quoted(realm)}", nonce="{nonce}", algorithm=SHA-256, qop="auth"{again}'

    def fresh(self, nonce: str, count: str, now: float) -> bool:
        """Whether a nonce of this box's is answered for the first time with this count."""
        if nonce not in self._counts or not re.fullmatch(r"[0-9a-fA-F]{8}", count):
            return False
        since = self._fresh.setdefault(nonce, now)
        if now - since > self.LASTS or int(count, 16) <= self._counts[nonce]:
            return False
        self._counts[nonce] = int(count, 16)
        return True

    def sweep(self, now: float) -> None:
        """Forget what has become old."""
        for nonce in [nonce for nonce, since in self._fresh.items() if now - since > self.LASTS]:
            self._forget(nonce)

    def _forget(self, nonce: str) -> None:
        self._counts.pop(nonce, None)
        self._fresh.pop(nonce, None)


def _digest(kind: str, *parts: str) -> str:
    return hashlib.new(kind, ":".join(parts).encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


def _plain(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
