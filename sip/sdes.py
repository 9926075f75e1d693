"""Keys for SRTP in a session description (RFC 4568), and the suites that the media engine has (RFC 7714 for GCM)."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

SUITES: Final = {
    "AES_CM_128_HMAC_SHA1_80": 30,
    "AES_CM_128_HMAC_SHA1_32": 30,
    "AEAD_AES_128_GCM": 28,
    "AEAD_AES_256_GCM": 44,
}
"""Octets of key and salt together (RFC 4568 section 6.2, RFC 7714 section 14.2), in the order of offers."""
_LINE = re.compile(r"(\d{1,9})\s+([A-Za-z0-9_]{1,40})\s+inline:([A-Za-z0-9+/=]{20,100})((?:\|[^;\s]*)?)(\s.*)?")


@dataclass(frozen=True, slots=True)
class Crypto:
    """One a=crypto line: tag and suite, and key with salt, never shown."""

    tag: int
    suite: str
    key: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"{self.tag} {self.suite} inline:{base64.b64encode(self.key).decode()}"


def parse(text: str) -> Crypto | None:
    """Read the value of a=crypto; None for what the engine does not have: another suite, an MKI, several keys, or
    session parameters that would change the transform (RFC 4568 section 6.3)."""
    match = _LINE.fullmatch(text.strip())
    if match is None or ";" in text.partition("inline:")[2]:
        return None
    tag, suite, text_key, lifetime, parameters = match.groups()
    if suite not in SUITES or ":" in lifetime or (parameters or "").strip():
        return None
    try:
        key = base64.b64decode(text_key + "=" * (-len(text_key) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return Crypto(int(tag), suite, key) if len(key) == SUITES[suite] else None
