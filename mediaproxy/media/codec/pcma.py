"""PCMA: G.711 A-law (RFC 3551 section 4.5.14)."""

from typing import Final

from mediaproxy.media.codec.format import AUDIO, Format

FORMAT: Final = Format("PCMA/8000", AUDIO)
