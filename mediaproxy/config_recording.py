"""The part of a configuration's check that is about recordings."""

from __future__ import annotations

import os
import string
from pathlib import Path

from mediaproxy import signing
from mediaproxy.config import Config, endpoint
from mediaproxy.errors import ConfigError

_NAMES = ("call", "route", "date", "time", "year", "month", "day")
_KBITS = {"opus": (12, 256), "mp3": (16, 64)}
"""Both channels together; MP3 of 8000 Hz knows no more."""


def check(config: Config) -> None:
    """Raises ConfigError that names the key and what is allowed."""
    recording = config.recording
    if recording.directory and not Path(recording.directory).is_dir():
        raise ConfigError("recording.directory: is not a directory")
    _name(recording.name)
    if recording.kbits:
        if recording.format not in _KBITS:
            raise ConfigError('recording.kbits: goes with format = "opus" or "mp3"')
        least, most = _KBITS[recording.format]
        if not least <= recording.kbits <= most:
            raise ConfigError(f"recording.kbits: {least} to {most} for {recording.format}")
    if recording.signing_key:
        if not Path(recording.signing_key).is_file():
            raise ConfigError("recording.signing_key: is not a file")
        if os.access(recording.signing_key, os.R_OK):
            try:
                signing.Signer.load(recording.signing_key)
            except signing.KeyFileError as error:
                raise ConfigError(f"recording.signing_key: {error}") from None
    if recording.syslog.startswith("/"):
        if not Path(recording.syslog).is_socket():
            raise ConfigError("recording.syslog: is not a socket")
    elif recording.syslog:
        endpoint(recording.syslog, "recording.syslog")
    if not 0 <= recording.retention_days <= 36_500:
        raise ConfigError("recording.retention_days: 0 (nothing is deleted) to 36500")


def _name(name: str) -> None:
    allowed = f"recording.name: needs {{call}}, may have {', '.join(f'{{{each}}}' for each in _NAMES[1:])}, and no '..'"
    try:
        fields = [(field, spec, how) for _, field, spec, how in string.Formatter().parse(name) if field is not None]
    except ValueError:
        raise ConfigError(allowed) from None
    known = all(field in _NAMES and not spec and not how for field, spec, how in fields)
    parts = name.split("/")
    if not known or "call" not in {field for field, _, _ in fields} or name.startswith("/") or name.endswith("/"):
        raise ConfigError(allowed)
    if (
        any(not part or part.startswith(".") or ".." in part for part in parts)
        or not name.isprintable()
        or len(name) > 150
    ):
        raise ConfigError(allowed)
