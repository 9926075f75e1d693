"""DTLS-SRTP (RFC 5763, RFC 5764): one association, sans I/O, whose outcome is a pair of SRTP keys.

The peer is whoever holds the certificate whose fingerprint its SDP told: nothing else is believed of it, and there are
no keys before that is verified.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha-256": hashes.SHA256(),
    "sha-384": hashes.SHA384(),
    "sha-512": hashes.SHA512(),
}
"""What a fingerprint may be made with (RFC 8122 section 5, without those that are broken)."""
_PROFILES: Final = {
    b"SRTP_AEAD_AES_128_GCM": ("AEAD_AES_128_GCM", 16, 12),
    b"SRTP_AEAD_AES_256_GCM": ("AEAD_AES_256_GCM", 32, 12),
    b"SRTP_AES128_CM_SHA1_80": ("AES_CM_128_HMAC_SHA1_80", 16, 14),
}
"""Profiles as OpenSSL names them: suite, octets of key and of salt (RFC 5764 section 4.1.2, RFC 7714 section 14.2)."""
_CIPHERS: Final = b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256"
_DTLS1_2: Final = 0xFEFD
_MTU: Final = 1200
_RECORD: Final = 13
"""Octets of a record's header (RFC 6347 section 4.1)."""
HANDSHAKE_SECONDS: Final = 30.0
"""An association that takes longer has failed."""
_AGAIN: Final = 0.05
_DAYS: Final = 3650


class Certificate:
    """This box's own, self-signed, and the context of all its associations. pem: a former one; None: a new one."""

    def __init__(self, pem: bytes | None = None) -> None:
        if pem is None:
            pem = _make()
        self.pem = pem
        certificate = x509.load_pem_x509_certificate(pem)
        key = serialization.load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.fingerprint = written(certificate.fingerprint(hashes.SHA256()))
        """As SDP writes it, by SHA-256."""
        self.context = SSL.Context(SSL.DTLS_METHOD)
        self.context.set_min_proto_version(_DTLS1_2)
        self.context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
        self.context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self.context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)  # by fingerprint
        self.context.use_certificate(certificate)
        self.context.use_privatekey(key)
        self.context.set_cipher_list(_CIPHERS)
        self.context.set_tlsext_use_srtp(b":".join(_PROFILES))


def _make() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "flattone")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=_DAYS))
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def written(digest: bytes) -> str:
    """A fingerprint as SDP writes it."""
    return ":".join(f"{octet:02X}" for octet in digest)


@dataclass(frozen=True, slots=True)
class Keys:
    """suite; own and theirs: key and salt together, by which this box and the peer send."""

    suite: str
    own: bytes = field(repr=False)
    theirs: bytes = field(repr=False)


class Association:
    """active: this box begins. fingerprint: hash and value of the peer's, as SDP has them."""

    def __init__(self, certificate: Certificate, active: bool, fingerprint: tuple[str, str], now: float) -> None:
        self._connection = SSL.Connection(certificate.context, None)
        self._connection.set_ciphertext_mtu(_MTU)
        self._active, self._fingerprint = active, fingerprint
        self.keys: Keys | None = None
        """Once the peer is verified."""
        self.failed = ""
        """Why there never will be any: fingerprint, handshake, timeout, profile."""
        self._give_up, self._next = now + HANDSHAKE_SECONDS, now
        self.outgoing: list[bytes] = []
        """Datagrams to send."""
        if active:
            self._connection.set_connect_state()
            self._step()
        else:
            self._connection.set_accept_state()

    @property
    def waiting(self) -> bool:
        """Whether it is still being set up."""
        return self.keys is None and not self.failed

    def receive(self, data: bytes, now: float) -> None:
        """Take a datagram."""
        if self.failed:
            return
        try:
            self._connection.bio_write(data)
        except SSL.Error:
            return
        if self.waiting:
            self._step()
            return
        try:
            while True:
                self._connection.recv(2048)  # nobody has anything to say this way; what was repeated is answered
        except SSL.Error:  # nothing more, or goodbye
            self._flush()

    def tick(self, now: float) -> None:
        """Repeat what is due; give up after a while."""
        if not self.waiting or now < self._next:
            return
        self._next = now + _AGAIN
        if now > self._give_up:
            self.failed = "timeout"
            return
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error:
            self.failed = "handshake"
        self._flush()

    def _step(self) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return
        except SSL.Error:
            self.failed = "handshake"
            self._flush()  # the alert that says so
            return
        self._flush()
        self._finish()

    def _finish(self) -> None:
        """Verify whom this is, and only then make the keys."""
        algorithm, value = self._fingerprint
        shown = self._connection.get_peer_certificate(as_cryptography=True)
        made = HASHES.get(algorithm.lower())
        if shown is None or made is None:
            self.failed = "fingerprint"
            return
        if not hmac.compare_digest(written(shown.fingerprint(made)).encode(), value.upper().encode()):
            self.failed = "fingerprint"
            return
        profile = _PROFILES.get(self._connection.get_selected_srtp_profile())
        if profile is None:
            self.failed = "profile"
            return
        suite, key, salt = profile
        octets = self._connection.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key + salt))
        client = octets[:key] + octets[2 * key : 2 * key + salt]
        server = octets[key : 2 * key] + octets[2 * key + salt :]
        self.keys = Keys(suite, client, server) if self._active else Keys(suite, server, client)

    def _flush(self) -> None:
        """Take what OpenSSL has written, a datagram at most _MTU octets: whole records, which must not be cut."""
        data = b""
        while True:
            try:
                data += self._connection.bio_read(1 << 16)
            except SSL.Error:
                break
        part = b""
        while len(data) >= _RECORD:
            size = _RECORD + (data[11] << 8 | data[12])
            if part and len(part) + size > _MTU:
                self.outgoing.append(part)
                part = b""
            part, data = part + data[:size], data[size:]
        if part:
            self.outgoing.append(part)
