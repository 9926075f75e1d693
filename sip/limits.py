"""Every cap on what a peer may send, with its reason."""

from typing import Final

MESSAGE_BYTES: Final = 65_535
"""The largest UDP payload; a larger message needs TCP (RFC 3261 section 18.1.1)."""
HEADER_BYTES: Final = 16_384
"""All headers together: a 20-hop INVITE with Identity and History-Info measures about 6 kB."""
SPELLINGS: Final = 1000
"""Ways to write header names that are remembered."""
PARTS: Final = 16
"""Parts of a multipart body."""
HEADERS: Final = 200
"""Header lines in one message."""
VIAS: Final = 70
"""Max-Forwards starts at 70 (RFC 3261 section 8.1.1.6), so a longer chain is a loop."""
SDP_LINES: Final = 400
MEDIA: Final = 16
"""Lines and media sections of one SDP body."""
CRYPTOS: Final = 16
"""Keys offered for one media section."""
FORMATS: Final = 64
"""Payload types of one media section."""
TRANSACTIONS: Final = 20_000
"""Transactions held at once: 64 * T1 = 32 s of some 600 new ones a second."""
CALLS: Final = 5_000
"""Calls held at once by one signalling process."""
RINGING_SECONDS: Final = 190.0
"""Timer C, set anew by every provisional answer: longer than three minutes (RFC 3261 section 16.6, step 11)."""
MEDIA_SECONDS: Final = 10.0
"""How long a call waits for its ports."""
FORKS: Final = 12
"""Early dialogs of one INVITE: phones that ring at once."""
EARLY_RESPONSES: Final = 100
"""Provisional answers relayed for one INVITE."""
EVENTS_PER_CALL: Final = 8
"""Requests of one call that may be on their way at once."""
