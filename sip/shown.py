"""What may be shown of a message to whoever watches a call: an allow-list of headers, and of session descriptions.

Never a body that is no description, a key of SRTP, or credentials.
"""

from __future__ import annotations

from typing import Final

from sip.message import Message, canonical

_HEADERS: Final = frozenset(
    {
        "via", "from", "to", "call-id", "cseq", "contact", "max-forwards", "route", "record-route", "allow",
        "supported", "require", "unsupported", "accept", "content-type", "content-length", "session-expires", "min-se",
        "rseq", "rack", "event", "subscription-state", "refer-to", "referred-by", "replaces", "reason", "retry-after",
        "date", "p-asserted-identity", "p-preferred-identity", "remote-party-id", "privacy", "diversion",
        "history-info", "expires", "warning", "user-agent", "server", "allow-events", "info-package",
        "content-disposition",
    }
)  # fmt: skip
_PLAIN: Final = frozenset({"content-type", "event", "info-package"})
"""Shown without their parameters."""
_LINES: Final = ("v=", "o=", "s=", "c=", "t=", "m=", "b=")
_ATTRIBUTES: Final = frozenset(
    {"rtpmap", "fmtp", "ptime", "maxptime", "rtcp", "sendrecv", "sendonly", "recvonly", "inactive", "mid", "group"}
)


def shown(message: Message) -> str:
    """The message as text, a line each, what is not on the list named but not shown."""
    lines = [message.start_line()]
    for name, value in message.headers:
        key = canonical(name)
        if key in _PLAIN:
            value = value.partition(";")[0]
        lines.append(f"{name}: {value}" if key in _HEADERS else f"{name}: (not shown)")
    lines.append("")
    if message.content_type == "application/sdp":
        lines += [_line(line) for line in message.body.decode("utf-8", "replace").splitlines()]
    elif message.body:
        lines.append("(body not shown)")
    return "\r\n".join("".join(c if c.isprintable() or c in "\r\n\t" else "?" for c in line) for line in lines) + "\r\n"


def _line(line: str) -> str:
    if line.startswith(_LINES):
        return line
    name = line.removeprefix("a=").partition(":")[0]
    if line.startswith("a=") and name in _ATTRIBUTES:
        return line
    return f"a={name}:(not shown)" if line.startswith("a=") and name.replace("-", "").isalnum() else "(not shown)"
