"""Registration: who may, for what, by which connection, for how long."""

from __future__ import annotations

import hashlib
import itertools
import re
import uuid

import pytest

from sip.digest import Credentials
from sip.errors import PeerError
from sip.hop import WSS, Hop
from sip.message import Request, Response, parse
from sip.registrar import Identity, Registrar, owner

ANN = Identity("", frozenset({"204"}))
PASSWORD = "correct horse"


def hop(connection: int = 1) -> Hop:
    return Hop("192.0.2.7", 50_000 + connection, WSS, connection)


def registrar() -> Registrar:
    counter = itertools.count(1)
    return Registrar("flattone", {("", "204"): Credentials("204", PASSWORD)}, lambda: f"{next(counter):032x}")


def register(
    number: int = 1, contact: str = "<sip:x@y.invalid;transport=ws>", expires: str = "300", aor: str = "204",
    call_id: str = "c", more: str = "", instance: str = "one",
) -> Request:  # fmt: skip
    if "instance" not in contact and contact not in ("*", ""):
        contact += f';+sip.instance="<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, instance)}>";reg-id=1'
    text = (
        f"REGISTER sip:example.org SIP/2.0\r\nVia: SIP/2.0/WSS y.invalid;branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:{aor}@example.org>;tag=a\r\nTo: <sip:{aor}@example.org>\r\nCall-ID: {call_id}\r\n"
        f"CSeq: {number} REGISTER\r\n{f'Contact: {contact}' if contact else 'X: y'}\r\nExpires: {expires}\r\n{more}"
        "Content-Length: 0\r\n\r\n"
    )
    found = parse(text.encode())
    assert isinstance(found, Request)
    return found


def authorized(
    challenge: Response, password: str = PASSWORD, user: str = "204", uri: str = "sip:example.org", **other: str
) -> str:
    """The header of who answers a challenge by SHA-256."""
    (line,) = [v for v in challenge.lines("WWW-Authenticate") if v.startswith("Digest")]
    said = dict(re.findall(r'(\w+)="?([^",]+)"?', line))
    values = {"nc": "00000001", "cnonce": "abc", "qop": "auth", "algorithm": "SHA-256", "nonce": said["nonce"]} | other

    def h(*parts: str) -> str:
        return hashlib.sha256(":".join(parts).encode()).hexdigest()

    response = h(
        h(user, "flattone", password),
        values["nonce"],
        values["nc"],
        values["cnonce"],
        values["qop"],
        h("REGISTER", uri),
    )
    return (
        f'Authorization: Digest username="{user}", realm="flattone", uri="{uri}", response="{response}", nonce="{values["nonce"]}", '
        f'algorithm={values["algorithm"]}, qop={values["qop"]}, nc={values["nc"]}, cnonce="{values["cnonce"]}"\r\n'
    )


def test_a_browser_is_found_until_its_time_is_up() -> None:
    book = registrar()
    answer, flow = book.register(register(), ANN, hop(), 0)
    assert (answer.status, owner(flow)) == (200, ("", "204"))
    assert "expires=300" in answer.lines("Contact")[0]
    assert answer.tokens("Require") == {"outbound"}
    (place,) = book.located("", "204", 299)
    assert (place.contact, place.hop.connection, place.hop.name) == ("sip:x@y.invalid;transport=ws", 1, flow)
    assert book.located("", "204", 301) == []
    book.sweep(301)
    assert book.places == {}


def test_several_browsers_of_one_agent_are_all_found_and_the_oldest_goes() -> None:
    book = registrar()
    for i in range(10):
        book.register(register(contact=f"<sip:x{i}@y.invalid>", call_id=f"c{i}", instance=str(i)), ANN, hop(i + 1), i)
    assert [p.hop.connection for p in book.located("", "204", 20)] == [10, 9, 8, 7, 6, 5, 4, 3]


def test_who_comes_back_over_a_new_connection_takes_the_old_place() -> None:
    book = registrar()
    _, flow = book.register(register(), ANN, hop(1), 0)
    book.lost(1)
    assert book.located("", "204", 1) == []
    assert book.of_flow(flow) is None
    _, again = book.register(register(2, contact="<sip:other@z.invalid>"), ANN, hop(2), 2)
    assert again == flow
    found = book.of_flow(flow)
    assert found is not None
    assert found.connection == 2
    assert len(book.located("", "204", 3)) == 1


def test_unregistering_and_asking() -> None:
    book = registrar()
    book.register(register(), ANN, hop(), 0)
    answer, flow = book.register(register(2, contact=""), ANN, hop(), 1)
    assert (len(answer.lines("Contact")), flow) == (1, "")
    book.register(register(3, expires="0"), ANN, hop(), 1)
    assert book.places == {}
    book.register(register(4), ANN, hop(), 1)
    book.register(register(5, contact="*", expires="0"), ANN, hop(), 1)
    assert book.places == {}


@pytest.mark.parametrize(
    ("request_", "status"),
    [(register(aor="205"), 403), (register(expires="5"), 423), (register(contact="*"), 400), (register(contact="tel:1"), 416),
     (register(contact="<sip:a@b.invalid>, <sip:c@d.invalid>"), 400), (register(expires="x"), 400)],
)  # fmt: skip
def test_what_may_not_be_registered_is_refused(request_: Request, status: int) -> None:
    book = registrar()
    with pytest.raises(PeerError) as refused:
        book.register(request_, ANN, hop(), 0)
    assert refused.value.status == status
    assert book.places == {}


def test_the_password_tells_which_tenants_phone_it_is() -> None:
    book = registrar()
    book.phones["b", "204"] = Credentials("204", "another one")
    first, second = book.challenge(register()), book.challenge(register())
    assert book.by_digest(register(more=authorized(second, "another one")), ("", "b"), 0) == Identity("b", ANN.numbers)
    assert book.by_digest(register(more=authorized(first)), ("", "b"), 0) == ANN
    assert book.counters["unauthorized"] == 0


def test_only_browsers_that_can_be_rung_are_counted() -> None:
    book = registrar()
    book.register(register(), ANN, hop(), 0)
    assert book.counters["registered"] == 1
    book.lost(hop().connection)
    assert book.counters["registered"] == 0


def test_a_number_that_would_part_a_flows_name_is_nobodys() -> None:
    book = registrar()
    with pytest.raises(PeerError):
        book.register(register(aor="204/x"), Identity("", frozenset({"204/x"})), hop(), 0)


def test_an_older_registration_changes_nothing() -> None:
    book = registrar()
    book.register(register(5), ANN, hop(), 0)
    with pytest.raises(PeerError):
        book.register(register(5, expires="0"), ANN, hop(), 1)
    assert book.located("", "204", 2)


def test_a_registration_ends_with_the_token() -> None:
    book = registrar()
    soon = Identity("", frozenset({"204"}), until=60)
    book.register(register(), soon, hop(), 0)
    assert book.located("", "204", 59)
    assert not book.located("", "204", 61)
    with pytest.raises(PeerError) as refused:
        book.register(register(2), soon, hop(), 61)
    assert refused.value.status == 403


def test_tenants_have_books_of_their_own() -> None:
    book = registrar()
    book.register(register(), Identity("acme", frozenset({"204"})), hop(), 0)
    assert book.located("acme", "204", 1)
    assert not book.located("", "204", 1)


def test_digest_is_sha256_for_the_right_password_request_and_count() -> None:
    book = registrar()
    challenge = book.challenge(register())
    assert challenge.status == 401
    assert {line.split()[0] for line in challenge.lines("WWW-Authenticate")} == {"Digest", "Bearer"}
    assert "SHA-256" in challenge.lines("WWW-Authenticate")[0]
    good = authorized(challenge)
    assert book.by_digest(register(more=good), ("",), 0) == ANN
    again = book.by_digest(register(more=good), ("",), 1)  # the same count once more
    assert isinstance(again, Response)
    assert "stale=true" in again.lines("WWW-Authenticate")[0]
    assert book.by_digest(register(more=authorized(challenge, nc="00000002")), ("",), 2) == ANN


@pytest.mark.parametrize(
    "wrong",
    [{"password": "guess"}, {"user": "205"}, {"uri": "sip:elsewhere"}, {"algorithm": "MD5"}, {"qop": "auth-int"},
     {"nonce": "0" * 32}, {"nc": "1"}],
)  # fmt: skip
def test_a_wrong_answer_is_asked_again(wrong: dict[str, str]) -> None:
    book = registrar()
    found = book.by_digest(register(more=authorized(book.challenge(register()), **wrong)), ("",), 0)
    assert isinstance(found, Response)
    assert found.status == 401
    assert PASSWORD.encode() not in found.encode()


def test_a_nonce_is_good_for_a_while_only() -> None:
    book = registrar()
    challenge = book.challenge(register())
    assert book.by_digest(register(more=authorized(challenge)), ("",), 0) == ANN
    late = book.by_digest(register(more=authorized(challenge, nc="00000002")), ("",), 301)
    assert isinstance(late, Response)
    assert "stale=true" in late.lines("WWW-Authenticate")[0]
