"""Tokens: whose they are, and everything that makes one worthless. The issuer is a real HTTPS server with real keys."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest

from mediaproxy.agent import issuers
from mediaproxy.agent.auth import Auth, Principal
from mediaproxy.agent.problem import Problem
from mediaproxy.config import AgentConfig, IssuerConfig, TokenConfig
from mediaproxy.demo import certificates
from tests.fixtures.issuer import AUDIENCE, Issuer, Key

SECRET = "a token of the configuration"


@pytest.fixture
def idp(tmp_path: Path) -> Iterator[Issuer]:
    with Issuer(certificates.make(tmp_path)) as made:
        yield made


def auth(idp: Issuer, **settings: Any) -> Auth:
    config = IssuerConfig(name="idp", issuer=idp.url, audience=AUDIENCE, ca_file=str(idp.ca_file))
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    tokens = (TokenConfig(name="desk", sha256=digest, numbers=("204",)),)
    made = AgentConfig(tokens=tokens, issuers=(msgspec.structs.replace(config, **settings),))
    return Auth(made, ("acme",))


def identify(who: Auth, *tokens: str) -> list[Principal | Problem]:
    """What becomes of each token, in turn."""

    async def ask() -> list[Principal | Problem]:
        found: list[Principal | Problem] = []
        for token in tokens:
            try:
                found.append(await who.identify(f"Bearer {token}"))
            except Problem as problem:
                found.append(problem)
        return found

    return asyncio.run(ask())


def test_a_static_token_is_known_by_its_digest(idp: Issuer) -> None:
    known, other, nothing = identify(auth(idp), SECRET, SECRET + "x", "")
    assert isinstance(known, Principal)
    assert (known.name, known.roles, known.numbers) == ("desk", {"agent"}, {"204"})
    assert isinstance(other, Problem)
    assert other.status == 401
    assert isinstance(nothing, Problem)
    assert idp.asked == 0


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_signed_token_says_who_which_roles_which_extensions(idp: Issuer, algorithm: str) -> None:
    idp.keys = [Key("k", algorithm)]
    (who,) = identify(auth(idp), idp.token(scope="openid agent supervisor", extension=[204, "205"]))
    assert isinstance(who, Principal), who
    assert (who.name, who.by, who.tenant) == ("ann@example.org", "idp", "")
    assert who.roles == {"agent", "supervisor"}
    assert who.numbers == {"204", "205"}
    assert 300 < who.expires - time.time() <= 330  # with the leeway


def test_claims_are_found_where_the_configuration_says(idp: Issuer) -> None:
    made = auth(
        idp, scope_claim="realm.roles", number_claim="https://crm/ext", name_claim="mail", tenant_claim="org",
    )  # fmt: skip
    token = idp.token(**{"realm": {"roles": ["agent"]}, "https://crm/ext": "207", "mail": "x@y", "org": "acme"})
    (who,) = identify(made, token)
    assert isinstance(who, Principal), who
    assert (who.name, who.tenant, who.numbers, who.roles) == ("x@y", "acme", {"207"}, {"agent"})


def forged(idp: Issuer) -> dict[str, str]:
    """Tokens that must be refused, by what is wrong with them."""
    good, now = idp.keys[0], int(time.time())
    head, body, signature = idp.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    more = base64.urlsafe_b64encode(json.dumps(claims | {"scope": "supervisor"}).encode()).rstrip(b"=").decode()
    none = jwt.encode(claims, None, algorithm="none", headers={"kid": "one"})
    # "HS256 with the public key": the oldest trick; made by hand, since the library refuses to make one
    confused_head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"one","typ":"JWT"}').rstrip(b"=").decode()
    mac = hmac.digest(good.pem(), f"{confused_head}.{body}".encode(), "sha256")
    confused = f"{confused_head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    return {
        "another key of the same number": idp.token(Key("one")),
        "a key nobody knows": idp.token(Key("two")),
        "another algorithm than allowed": jwt.encode(claims, good.private, algorithm="PS512", headers={"kid": "one"}),
        "no signature": f"{head}.{body}.",
        "algorithm none": none,
        "the public key as a secret": confused,
        "claims changed": f"{head}.{more}.{signature}",
        "expired": idp.token(exp=now - 60),
        "not yet valid": idp.token(nbf=now + 600),
        "issued in the future": idp.token(iat=now + 600),
        "no expiry": idp.token(exp=None),
        "another audience": idp.token(aud="crm"),
        "no audience": idp.token(aud=None),
        "another issuer": idp.token(iss="https://127.0.0.1:1"),
        "an expiry that is no number": good.sign(claims | {"exp": str(now + 300)}),
        "issuer with a slash": idp.token(iss=idp.url + "/"),
        "no owner": idp.token(sub=None),
        "an owner with a line break": idp.token(sub="a\nb"),
        "garbage": "a.b.c",
        "not three parts": "a.b",
        "huge": "a." + "b" * 9000 + ".c",
        "a list for an issuer": jwt.PyJWS().encode(
            json.dumps(claims | {"iss": [idp.url]}).encode(), good.private, "RS256", {"kid": "one"}
        ),
        "no object": jwt.PyJWS().encode(b"[1]", good.private, "RS256", {"kid": "one"}),
        "four parts": "a.b.c.d",
    }


def test_a_forged_or_stale_token_is_refused_and_the_error_repeats_nothing(idp: Issuer) -> None:
    made = auth(idp)
    tokens = forged(idp)
    good, *found = identify(made, idp.token(), *tokens.values())
    assert isinstance(good, Principal)
    for why, problem in zip(tokens, found, strict=True):
        assert isinstance(problem, Problem), why
        assert problem.status == 401, why
        assert problem.kind == ("token-expired" if why == "expired" else "unauthorized"), why
        assert "ann" not in problem.detail


def test_clocks_may_differ_by_the_leeway_and_no_more(idp: Issuer) -> None:
    now = int(time.time())
    late, too_late = identify(auth(idp, leeway_seconds=30), idp.token(exp=now - 20), idp.token(exp=now - 40))
    assert isinstance(late, Principal)
    assert isinstance(too_late, Problem)


def test_a_claim_can_never_mean_everything(idp: Issuer) -> None:
    star, tenant = identify(
        auth(idp, tenant_claim="org"), idp.token(org="acme", extension="*"), idp.token(org="*", extension="204")
    )
    assert isinstance(star, Principal)
    assert star.numbers == frozenset()
    assert not star.may_act("acme", "204")
    assert isinstance(tenant, Problem)
    for claims in ({}, {"org": "unknown"}, {"org": "../acme"}, {"org": ["acme"]}, {"org": ""}):
        (refused,) = identify(auth(idp, tenant_claim="org"), idp.token(**claims))
        assert isinstance(refused, Problem), claims


def test_keys_rotate_without_a_restart(idp: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers, "AGAIN", 0.2)
    made = auth(idp)
    old = idp.keys[0]

    async def scenario() -> None:
        await made.identify(f"Bearer {idp.token()}")
        idp.keys = [Key("next"), old]
        await asyncio.sleep(0.25)
        assert isinstance(await made.identify(f"Bearer {idp.token()}"), Principal)  # of the new key, asked for at once
        assert isinstance(await made.identify(f"Bearer {idp.token(old)}"), Principal)
        idp.keys = idp.keys[:1]  # the old one is withdrawn
        await asyncio.sleep(0.25)
        with pytest.raises(Problem):  # an unknown key makes it look again, and then the old one is gone
            await made.identify(f"Bearer {idp.token(Key('unknown'))}")
        with pytest.raises(Problem):
            await made.identify(f"Bearer {idp.token(old)}")

    asyncio.run(scenario())


def test_tokens_of_unknown_keys_do_not_make_it_ask_again_and_again(idp: Issuer) -> None:
    made = auth(idp)
    identify(made, idp.token(), *(idp.token(Key(f"k{i}")) for i in range(5)))
    assert idp.asked == 1


def test_known_keys_are_good_while_the_issuer_is_down_and_without_any_it_says_so(
    idp: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "AGAIN", 0.0)
    idp.down = True
    made = auth(idp, keys_seconds=0.0)
    (refused,) = identify(made, idp.token())
    assert isinstance(refused, Problem)
    assert (refused.status, refused.kind) == (503, "issuer-unavailable")

    async def scenario() -> None:
        other = auth(idp, keys_seconds=0.0)
        idp.down = False
        await other.identify(f"Bearer {idp.token()}")
        idp.down = True
        assert isinstance(await other.identify(f"Bearer {idp.token()}"), Principal)
        monkeypatch.setattr(issuers, "STALE", 0.0)
        await asyncio.sleep(0.01)
        with pytest.raises(Problem) as caught:
            await other.identify(f"Bearer {idp.token()}")
        assert caught.value.status == 503

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("who", "sees", "acts"),
    [
        (Principal("a", "t", frozenset({"agent"}), "", frozenset({"204"})), {("", "204")}, {("", "204")}),
        (Principal("a", "t", frozenset({"agent"}), "", frozenset({"*"})), {("", "204"), ("", "205")}, {("", "204"), ("", "205")}),
        (Principal("a", "t", frozenset({"agent"}), "", frozenset()), set(), set()),
        (Principal("s", "t", frozenset({"supervisor"}), "acme", frozenset()), {("acme", "204")}, {("acme", "204")}),
        (Principal("s", "t", frozenset({"supervisor"}), "*", frozenset()), "all", "all"),
        (Principal("x", "t", frozenset({"auditor"}), "", frozenset()), {("", "204"), ("", "205")}, set()),
        (Principal("n", "t", frozenset(), "", frozenset({"204"})), set(), set()),
    ],
)  # fmt: skip
def test_what_a_role_lets_one_see_and_do(who: Principal, sees: Any, acts: Any) -> None:
    every = {("", "204"), ("", "205"), ("acme", "204")}
    assert {c for c in every if who.may_see(*c)} == (every if sees == "all" else sees)
    assert {c for c in every if who.may_act(*c)} == (every if acts == "all" else acts)
