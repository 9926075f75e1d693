"""TLS of one side: the certificate a client asks for by name, who must show one, and reading them again."""

import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest

from mediaproxy.config import CertificateConfig, TlsConfig
from mediaproxy.demo import certificates as made
from mediaproxy.signalling import certificates
from mediaproxy.signalling.certificates import Tls


def settings(tmp_path: Path, **more: Any) -> TlsConfig:
    """Two identities, of an authority each; those who connect are believed by the first one's."""
    pairs = []
    for name in ("localhost", "other.example"):
        (tmp_path / name).mkdir()
        pairs.append(made.make(tmp_path / name, name))
    (authority, certificate, key), (_, other, other_key) = pairs
    others = (CertificateConfig(certificate=str(other), key=str(other_key)),)
    return TlsConfig(
        listen="127.0.0.1:5061",
        certificate=str(certificate),
        key=str(key),
        ca_file=str(authority),
        others=others,
        **more,
    )


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A handshake in memory; returns both ends."""
    wires = [ssl.MemoryBIO() for _ in range(4)]
    ours = server.wrap_bio(wires[0], wires[1], server_side=True)
    theirs = client.wrap_bio(wires[2], wires[3], server_hostname=name)
    done: set[int] = set()
    for _ in range(20):
        for i, end in enumerate((theirs, ours)):
            if i not in done:
                try:
                    end.do_handshake()
                    done.add(i)
                except ssl.SSLWantReadError:
                    pass
            wires[0].write(wires[3].read())
            wires[2].write(wires[1].read())
    with contextlib.suppress(ssl.SSLWantReadError):
        ours.read(1)  # what TLS 1.3 says of the client's certificate
    return ours, theirs


def caller(tmp_path: Path, name: str = "localhost", certificate: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tmp_path / name / "authority.pem")
    if certificate:
        context.load_cert_chain(tmp_path / "localhost" / "server.pem", tmp_path / "localhost" / "server.key")
    return context


@pytest.mark.parametrize("name", ["localhost", "other.example"])
def test_a_client_gets_the_certificate_it_asks_for(tmp_path: Path, name: str) -> None:
    tls = Tls(settings(tmp_path))
    ours, theirs = shake(tls.server, caller(tmp_path, name), name)
    assert certificates.names(theirs) == [name]
    assert certificates.names(ours) == ["localhost"]


@pytest.mark.parametrize("name", ["localhost", "other.example"])
def test_who_shows_no_certificate_is_refused_whatever_name_is_asked_for(tmp_path: Path, name: str) -> None:
    config = settings(tmp_path)
    with pytest.raises(ssl.SSLError):
        shake(Tls(config).server, caller(tmp_path, name, certificate=False), name)


def test_a_certificate_is_not_asked_for_where_policy_says_so(tmp_path: Path) -> None:
    ours, _ = shake(Tls(settings(tmp_path, clients="none")).server, caller(tmp_path, certificate=False), "localhost")
    assert certificates.names(ours) == []


def test_certificates_are_read_again_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    config = settings(tmp_path)
    tls = Tls(config)

    def shown() -> Any:
        context = caller(tmp_path)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return shake(tls.server, context, "localhost")[1].getpeercert(binary_form=True)

    first = shown()
    Path(config.certificate).write_text("broken")
    with pytest.raises((ssl.SSLError, ValueError)):
        tls.reload()
    authority, certificate, key = made.make(tmp_path)
    Path(config.certificate).write_bytes(certificate.read_bytes())
    Path(config.key).write_bytes(key.read_bytes())
    Path(config.ca_file).write_bytes(authority.read_bytes())
    tls.reload()
    assert shown() != first
