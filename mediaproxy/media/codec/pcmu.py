"""PCMU: G.711 µ-law (RFC 3551 section 4.5.14)."""

from typing import Final

from mediaproxy.media.codec.format import AUDIO, Format

FORMAT: Final = Format("PCMU/8000", AUDIO)
