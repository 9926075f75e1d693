"""The part of a configuration's check that looks into certificates."""

from __future__ import annotations

import ssl

from mediaproxy.errors import ConfigError


def fits(certificate: str, key: str, where: str) -> None:
    """Whether a key belongs to its certificate. Raises ConfigError."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError):
        raise ConfigError(f"{where}: does not belong to its certificate, or one of them is not in PEM") from None


def authority(file: str, where: str) -> None:
    """Whether a file holds certificates to trust. Raises ConfigError."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ssl.SSLError):
        raise ConfigError(f"{where}: holds no certificates in PEM") from None
