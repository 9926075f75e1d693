"""Telephone-events (RFC 4733), also with the clock of a wideband codec beside which they were negotiated."""

from typing import Final

from mediaproxy.media.codec.format import EVENT, Format

FORMATS: Final = tuple(Format(f"telephone-event/{clock}", EVENT, clock) for clock in (8000, 16000, 32000, 48000))
