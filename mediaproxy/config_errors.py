"""What is wrong with a configuration file, in the words and at the line of the person who wrote it."""

from __future__ import annotations

import re

_CHOICES = {
    "side": ("trunk", "agent"),
    "rtp": ("strict", "address", "network", "learn"),
    "mode": ("guarded", "passthrough"),
    "kind": ("rest", "stripe", "vgs", "basis-theory"),
    "encoding": ("json", "form"),
    "check": ("none", "luhn", "mod97"),
    "expiry": ("MMYY", "YYMM", "MMYYYY"),
    "start": ("api", "answer"),
    "speech": ("off", "muted", "announced"),
    "errors": ("declined", "invalid-field", "gateway-unavailable", "not-configured"),
    "role": ("agent", "supervisor", "auditor"),
    "algorithms": ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"),
    "form": ("json", "console"),
    "format": ("wav", "wav-ulaw", "opus", "mp3"),
    "transport": ("udp", "tcp", "tls"),
    "srtp": ("off", "optional", "required", "dtls"),
    "codecs": ("opus", "pcmu", "pcma", "g722"),
    "refer": ("execute", "pass", "refuse"),
    "other_media": ("remove", "refuse"),
    "strangers": ("drop", "refuse"),
    "clients": ("required", "optional", "none"),
    "action": ("strip", "set", "rewrite"),
    "guard_on": ("answer", "transfer"),
    "level": ("debug", "info", "warning", "error"),
}
"""What the keys with closed lists may be."""


def without_values(text: str) -> str:
    """`text` without anything quoted: a value may be a secret."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "...", text)


def plain(text: str) -> str:
    """msgspec's words in a telephone engineer's."""
    message, _, where = text.partition(" - at `$")
    key = where.rstrip("`").lstrip(".") or "top level"
    message = message.replace("Object", "table").replace("field", "key")
    if message.startswith("Invalid enum value"):
        name = re.findall(r"[a-z_]+", key)[-1]
        message = f"needs one of {', '.join(_CHOICES.get(name, ()))}"
    return f"{key}: {message[0].lower()}{message[1:]}"


def line(text: str, message: str) -> str:
    """`:line` of the key that a message speaks of; nothing where more than one line could be meant."""
    lines = text.splitlines()
    table, index, keys = _place(message)
    start, end = 0, len(lines)
    heads = [i for i, row in enumerate(lines) if table and re.match(rf"\s*\[+\s*{re.escape(table)}\s*\]", row)]
    if heads:
        if len(heads) > 1 and index is None:
            return ""
        start = heads[min(index or 0, len(heads) - 1)]
        end = next((i for i in range(start + 1, len(lines)) if lines[i].lstrip().startswith("[")), end)
    for key in keys:
        found = [i for i in range(start, end) if re.match(rf"\s*(\[+\s*)?{re.escape(key)}\s*(=|\])", lines[i])]
        if len(found) == 1:
            return f":{found[0] + 1}"
    return f":{start + 1}" if heads else ""


def _place(message: str) -> tuple[str, int | None, list[str]]:
    """(table, its index where there are several, keys to look for) of a message of msgspec's or of ours."""
    words = re.findall(r"`([A-Za-z0-9_]+)`", message.partition(" - at ")[0])
    path = re.search(r"at `\$([^`]*)`", message)
    if path is None:
        table, _, key = message.partition(":")[0].rpartition(".")
        return table, None, [*words, key]
    nested = re.match(r"\.(\w+\.\w+)\[(\d+)\](?:\.(\w+))?", path[1])  # like [[api.tokens]]
    inner = nested or re.match(r"\.(\w+)(?:\[(\d+)\])?(?:\.(\w+))?", path[1])
    if inner is None:
        return "", None, words
    if inner[3] is None and inner[2] is None and not words:
        return "", None, [inner[1]]
    return inner[1], int(inner[2]) if inner[2] else None, [*words, *([inner[3]] if inner[3] else [])]
