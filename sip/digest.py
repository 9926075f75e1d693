"""Digest authentication towards a peer that asks for it (RFC 7616 and 8760: MD5 and SHA-256, RFC 3261 section 22)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

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

    def digest(*parts: str) -> str:
        return hashlib.new(kind, ":".join(parts).encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()

    secret = digest(credentials.user, challenge.realm, credentials.password)
    if challenge.session:
        secret = digest(secret, challenge.nonce, cnonce)
    what = digest(request.method, request.uri)
    times = f"{challenge.count:08x}"
    middle = (challenge.nonce, times, cnonce, "auth") if challenge.qop else (challenge.nonce,)
    values = [
        f'username="{_quoted(credentials.user)}"', f'realm="{_quoted(challenge.realm)}"',
        f'nonce="{_quoted(challenge.nonce)}"', f'uri="{request.uri}"', f'response="{digest(secret, *middle, what)}"',
        f"algorithm={challenge.algorithm}",
    ]  # fmt: skip
    if challenge.qop or challenge.session:
        values += [f'cnonce="{cnonce}"']
    if challenge.qop:
        values += ["qop=auth", f"nc={times}"]
    if challenge.opaque is not None:
        values.append(f'opaque="{_quoted(challenge.opaque)}"')
    return challenge.header, "Digest " + ", ".join(values)


def _plain(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
