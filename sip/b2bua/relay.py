"""Which headers pass from one leg to the other: all but those that belong to a hop, a dialog or the box itself."""

from __future__ import annotations

from typing import Final

from sip.message import Message, canonical

ALLOW: Final = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, MESSAGE"
METHODS: Final = frozenset(ALLOW.split(", "))
_OWN = frozenset(
    {
        "via", "route", "record-route", "contact", "max-forwards", "call-id", "cseq", "from", "to", "content-length",
        "content-type", "supported", "require", "proxy-require", "allow", "allow-events", "unsupported",
        "session-expires", "min-se", "rseq", "rack", "server", "user-agent", "path", "service-route", "replaces",
    }
)  # fmt: skip
"""Set anew a hop or a leg (RFC 7092 section 3); option tags are what this box supports, not what the peer does."""


def carry(source: Message, target: Message, without: str = "") -> None:
    """Append to `target` every header of `source` that passes, in order; `without` names one more that does not."""
    held = without.lower()
    for name, value in source.headers:
        key = canonical(name)
        if key not in _OWN and key != held:
            target.headers.append((name, value))


def carry_body(source: Message, target: Message) -> None:
    """Hand on the body with its type as it came."""
    if source.body:
        target.put_body(source.get("Content-Type") or "application/octet-stream", source.body)
