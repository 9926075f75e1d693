"""Documents that carry their signature (Ed25519, RFC 8032), and Merkle trees (RFC 6962 section 2.1).

A signed document is a JSON object whose key `signature` holds the public key and the signature of the rest. It is
written in one way only (keys in order, indented by one), so that every octet of the file is under the signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

FIELD: Final = "signature"
Document = Mapping[str, Any]


class KeyFileError(ValueError):
    """The file holds no key of the kind that is needed; the text says what it should."""


class Forged(ValueError):
    """A document is not as it was signed; the text says how."""


class Signer:
    """An Ed25519 key that signs."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = base64.b64encode(private.public_key().public_bytes_raw()).decode()

    @classmethod
    def load(cls, path: str | Path) -> Signer:
        """From a PEM file without a password (openssl genpkey -algorithm ed25519). Raises KeyFileError."""
        try:
            key = load_pem_private_key(Path(path).read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyFileError(
                "is no PEM file with an Ed25519 private key (and no password) that can be read"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError("holds a key of another kind: Ed25519 is needed")
        return cls(key)

    def sign(self, data: bytes) -> str:
        """Base64 of the signature."""
        return base64.b64encode(self._private.sign(data)).decode()


def public_key(path: str | Path) -> str:
    """Base64 of the public key in a PEM file, of a public or a private key. Raises KeyFileError."""
    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        return Signer.load(path).public
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError("holds a key of another kind: Ed25519 is needed")
    return base64.b64encode(key.public_bytes_raw()).decode()


def fingerprint(public: str) -> str:
    """What a person compares: the beginning of the SHA-256 of a public key."""
    return hashlib.sha256(base64.b64decode(public)).hexdigest()[:16]


def render(document: Document) -> bytes:
    """The one way in which a document is written."""
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=1) + b"\n"


def seal(document: Document, signer: Signer | None) -> bytes:
    """The file of `document`, signed where there is a signer."""
    if signer is None:
        return render(document)
    return render({**document, FIELD: {"key": signer.public, "value": signer.sign(render(document))}})


class _Signature(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    value: str


def unseal(data: bytes, trusted: str = "") -> tuple[dict[str, Any], str]:
    """(the document in a file, the public key it is signed with or "" where it is not signed).

    Raises Forged where the file is not as it was written, or not signed with the `trusted` key, if one is named.
    """
    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
        written = render(document)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise Forged("is not a document that was written here") from None
    if written != data:
        raise Forged("was altered: it is not written as it was")
    held = document.pop(FIELD, None)
    if held is None:
        if trusted:
            raise Forged("is not signed")
        return document, ""
    try:
        signature = msgspec.convert(held, _Signature)
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(signature.key, validate=True))
        public.verify(base64.b64decode(signature.value, validate=True), render(document))
    except (msgspec.ValidationError, binascii.Error, ValueError, InvalidSignature):
        raise Forged("was altered: its signature does not fit") from None
    if trusted and signature.key != trusted:
        raise Forged(f"is signed with another key ({fingerprint(signature.key)})")
    return document, signature.key


def merkle_root(leaves: Sequence[bytes]) -> str:
    """Hex of the root over `leaves`, in their order (RFC 6962 section 2.1)."""
    if not leaves:
        return hashlib.sha256(b"").hexdigest()
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:  # the last of an odd number goes up alone, as in the RFC's split at a power of two
        pairs = [hashlib.sha256(b"\1" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0].hex()
