"""Comfort noise (RFC 3389): what a sender that falls silent says of its background.

Only the level passes: the coefficients of the spectrum could hold what a key sounds like.
"""

from typing import Final

from mediaproxy.media.codec.format import NOISE, Format

FORMAT: Final = Format("CN/8000", NOISE)
QUIETEST: Final = 127
"""-dBov; also what a silenced leg says."""
