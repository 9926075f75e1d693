"""Which headers and bodies pass from one leg to the other: all but those that belong to a hop, a dialog or the box."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sip import multipart
from sip.b2bua.peers import Peer
from sip.errors import PeerError
from sip.message import Message, Request, canonical
from sip.multipart import Part

SDP: Final = "application/sdp"
ALLOW: Final = "INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO, MESSAGE, NOTIFY, SUBSCRIBE, REFER"
METHODS: Final = frozenset(ALLOW.split(", "))
TAGS: Final = frozenset({"100rel", "timer", "replaces"})
"""Option tags that this box knows, whatever the far side does."""
_PICTURE = re.compile(
    rb"\s*(<\?xml version=.1\.0.( encoding=.utf-8.)?\s*\?>)?"
    rb"(\s*</?(media_control|vc_primitive|to_encoder|picture_fast_update)\s*/?>)*\s*",
    re.IGNORECASE,
)
"""The one body of INFO that passes to the agent side: a picture request (RFC 5168), and nothing else in it."""
_WHILE_ARMED = frozenset(
    {
        "p-asserted-identity", "privacy", "date", "retry-after", "reason", "event", "subscription-state", "expires",
        "identity", "diversion", "history-info", "referred-by", "proxy-authenticate", "www-authenticate", "warning",
        "alert-info", "allow-events", "accept",
    }
)  # fmt: skip
"""Headers that pass from the trunk to the agent side while keys are captured: any other could hold one."""
_OWN = frozenset(
    {
        "via", "route", "record-route", "contact", "max-forwards", "call-id", "cseq", "from", "to", "content-length",
        "content-type", "supported", "require", "proxy-require", "allow", "unsupported", "session-expires", "min-se",
        "rseq", "rack", "server", "user-agent", "path", "service-route", "replaces", "refer-to", "refer-sub",
        "content-disposition", "content-encoding", "mime-version",
    }
)  # fmt: skip
"""Set anew a hop or a leg (RFC 7092 section 3); option tags are what this box supports, not what the peer does."""
_NAMING = frozenset(
    {"p-asserted-identity", "p-preferred-identity", "remote-party-id", "diversion", "history-info", "referred-by"}
)
_NOT_OF_A_BROWSER = _NAMING | {"authorization", "proxy-authorization", "identity"}
_AT_ADDRESS = re.compile(r"@(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\])(?::\d+)?")
_OF_THE_BODY = ("Content-Disposition", "Content-Encoding", "MIME-Version")


def carry(
    source: Message,
    target: Message,
    peer: Peer,
    host: str,
    without: str = "",
    armed: bool = False,
    browser: bool = False,
) -> None:
    """Append to `target`, which goes to `peer`, every header of `source` that passes, in order.

    host: this box's address towards the peer, for what names others; without: one more header that does not pass;
    armed: to the agent side while keys are captured; browser: from one, whose token is for this box, and whose word on
    who calls nobody has to take.
    """
    held = without.lower()
    headers = [(name, value) for name, value in source.headers if (key := canonical(name)) not in _OWN and key != held]
    if browser:
        headers = [(name, value) for name, value in headers if canonical(name) not in _NOT_OF_A_BROWSER]
    if armed:
        headers = [(name, value) for name, value in headers if canonical(name) in _WHILE_ARMED]
    if peer.hide_topology:
        headers = [(name, hide(value, host) if canonical(name) in _NAMING else value) for name, value in headers]
    target.headers += headers


def hide(value: str, host: str) -> str:
    """`value` with this box's address in the place of any other address after an @."""
    return _AT_ADDRESS.sub(f"@{host}", value)


def rule(message: Message, peer: Peer) -> None:
    """Apply the peer's policy to a message that is about to go to it."""
    for rule in peer.rules:
        if rule.action == "strip":
            message.remove(rule.name)
        elif rule.action == "set":
            message.set(rule.name, rule.value)
        elif rule.matches is not None:
            wanted = rule.name.lower()
            message.headers = [
                (name, rule.matches.sub(rule.value, value) if canonical(name) == wanted else value)
                for name, value in message.headers
            ]


def carry_body(source: Message, target: Message, passes: Callable[[Part], bool] = lambda part: True) -> None:
    """Hand on the body with its type as it came; of several parts those that pass. Never a description as it came."""
    if not source.body:
        return
    kind, body = source.get("Content-Type") or "application/octet-stream", bytes(source.body)
    if source.content_type.startswith("multipart/"):
        parts = [part for part in multipart.split(kind, source.body) if _is_plain(part) and passes(part)]
        if not parts:
            return
        kind, body = multipart.join(kind, parts)
    elif source.content_type == SDP or source.body.lstrip()[:3] == b"v=0":
        return
    target.put_body(kind, body)
    for name in _OF_THE_BODY:
        for value in source.lines(name):
            target.headers.append((name, value))


def _is_plain(part: Part) -> bool:
    return part.content_type != SDP and not part.opaque


def description(message: Message) -> bytearray | None:
    """The session description in a body, alone or as a part of several (RFC 5621); None where there is none.

    Raises PeerError (415) where it is packed in a way that cannot be rebuilt.
    """
    kind = message.content_type
    if kind == SDP:
        if (message.get("Content-Encoding") or "identity").strip().lower() != "identity":
            raise PeerError("SDP is encoded", 415)
        return message.body
    if kind.startswith("multipart/"):
        parts = multipart.split(message.get("Content-Type") or "", message.body)
        return next((part.body for part in parts if part.content_type == SDP), None)
    return None


def is_picture_request(message: Message) -> bool:
    """Whether the body is a request for a whole picture and holds nothing else."""
    return message.content_type == "application/media_control+xml" and _PICTURE.fullmatch(message.body) is not None


def put_description(source: Message, target: Message, body: bytes, passes: Callable[[Part], bool]) -> None:
    """Give `target` the description `body` where `source` has one; of its other parts those that pass."""
    if not source.content_type.startswith("multipart/"):
        target.put_body(SDP, body)
        return
    kind = source.get("Content-Type") or ""
    parts, described = [], False
    for part in multipart.split(kind, source.body):
        if part.content_type == SDP and not described:
            described = True
            part.body[:] = body
            parts.append(part)
        elif _is_plain(part) and passes(part):
            parts.append(part)
    if len(parts) == 1:
        target.put_body(SDP, body)
        return
    target.put_body(*multipart.join(kind, parts))
    target.headers += [("MIME-Version", value) for value in source.lines("MIME-Version")]


def unsupported(request: Request) -> list[str]:
    """Option tags that the request insists on and this box does not know."""
    return sorted((request.tokens("Require") | request.tokens("Proxy-Require")) - TAGS)
