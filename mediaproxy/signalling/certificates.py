"""TLS contexts of one side: its own certificates by the name a client asks for, and whom it believes."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from mediaproxy.config import CertificateConfig, TlsConfig

_VERIFY = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


class Tls:
    """server: for connections that are taken; client: for those that are made. Raises OSError or ssl.SSLError."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._own = CertificateConfig(certificate=config.certificate, key=config.key)
        self.server = self._context(ssl.PROTOCOL_TLS_SERVER)
        self.client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        self._others = [(other, self._context(ssl.PROTOCOL_TLS_SERVER)) for other in config.others]
        self._by_name: dict[str, ssl.SSLContext] = {}
        self.reload()
        if config.others:
            self.server.sni_callback = self._choose

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._config.ca_file:
            context.load_verify_locations(self._config.ca_file)
        else:
            context.load_default_certs()
        if protocol == ssl.PROTOCOL_TLS_SERVER:  # also in those chosen by name: OpenSSL takes theirs over
            context.verify_mode = _VERIFY[self._config.clients]
        return context

    def reload(self) -> None:
        """Read all certificates again, or none of them. Raises OSError, ssl.SSLError or ValueError."""
        every = [self._own, *(other for other, _ in self._others)]
        for pair in every:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pair.certificate, pair.key)
        by_name = {}
        for other, context in self._others:
            context.load_cert_chain(other.certificate, other.key)
            for name in _written(other.certificate):
                by_name[name] = context
        for context in (self.server, self.client):
            context.load_cert_chain(self._own.certificate, self._own.key)
        if self._config.ca_file:
            for context in (self.server, self.client):
                context.load_verify_locations(self._config.ca_file)
        self._by_name = by_name

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        other = self._by_name.get((name or "").lower())
        if other is not None:
            connection.context = other


def names(connection: ssl.SSLObject | None) -> list[str]:
    """What the peer's certificate says of who it is: DNS names and SIP domains (RFC 5922 section 7.1)."""
    shown = connection.getpeercert() if connection is not None else None
    found: list[str] = []
    for entry in (shown or {}).get("subjectAltName", ()):
        kind, value = str(entry[0]), str(entry[1])
        if kind == "DNS":
            found.append(value.lower())
        elif kind == "URI" and value.lower().startswith(("sip:", "sips:")):
            found.append(value.partition(":")[2].lower())
    return found


def _written(path: str) -> list[str]:
    """The DNS names in a certificate file."""
    certificate = x509.load_pem_x509_certificates(Path(path).read_bytes())[0]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]
    except x509.ExtensionNotFound:
        return [str(a.value).lower() for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
