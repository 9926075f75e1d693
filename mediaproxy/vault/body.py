"""The body of a request to a gateway: a template with places for fields, written once into memory that is wiped.

What is keyed is digits only, so nothing of it ever needs escaping; it goes from the capture's own memory to that of the
body without being anything else in between.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote_plus

from mediaproxy.config import PLACE
from mediaproxy.room import Room
from mediaproxy.vault.fields import Field, expiry_parts

Part = bytes | memoryview
_NUMBER: Final = "int:"


class Values:
    """The fields of a capture by the names that templates use. expiry: how the date was keyed."""

    def __init__(self, fields: Iterable[Field], expiry: str = "MMYY") -> None:
        self._views = {f.name: f.digits.view() for f in fields}
        self._expiry = expiry

    def __enter__(self) -> Values:
        return self

    def __exit__(self, *_: object) -> None:
        for view in self._views.values():
            view.release()

    def names(self) -> list[str]:
        return list(self._views)

    def parts(self, name: str) -> list[Part] | None:
        """What stands for `name`; None where the capture has no such field."""
        base, _, which = name.partition(".")
        view = self._views.get(base)
        if view is None:
            return None
        if not which:
            return [view]
        month, year = expiry_parts(view, self._expiry)
        found: dict[str, list[Part]] = {
            "month": [month],
            "m": [month[1:] if month[0] == 48 else month],
            "year": [year] if len(year) == 4 else [b"20", year],
            "yy": [year[-2:]],
        }
        return found[which]


def _text(template: str, values: Values, escape: Any) -> list[Part] | None:
    """`template` with its places filled; None where it names a field that there is not."""
    parts: list[Part] = []
    at = 0
    for place in PLACE.finditer(template):
        parts.append(escape(template[at : place.start()]))
        found = values.parts(place[1])
        if found is None:
            return None
        parts += found
        at = place.end()
    return [*parts, escape(template[at:])]


def json_parts(template: Any, values: Values) -> list[Part] | None:
    """A JSON value; None where all of it belongs to fields that there are not."""
    if isinstance(template, str):
        number = template.startswith(_NUMBER)
        filled = _text(template.removeprefix(_NUMBER), values, lambda text: json.dumps(text)[1:-1].encode())
        if filled is None:
            return None
        return [_without_zeros(p) for p in filled] if number else [b'"', *filled, b'"']
    if isinstance(template, Mapping):
        inner = [
            [json.dumps(key).encode() + b":", *parts]
            for key, value in template.items()
            if (parts := json_parts(value, values)) is not None
        ]
        return [b"{", *_joined(inner, b","), b"}"] if inner or not template else None
    if isinstance(template, list | tuple):
        inner = [parts for value in template if (parts := json_parts(value, values)) is not None]
        return [b"[", *_joined(inner, b","), b"]"] if inner or not template else None
    return [json.dumps(template).encode()]


def form_parts(template: Any, values: Values, name: str = "") -> list[Part]:
    """`name=value&...`, nested names in brackets (application/x-www-form-urlencoded as Stripe and PHP read it)."""
    return list(_joined(list(_pairs(template, values, name)), b"&"))


def _pairs(template: Any, values: Values, name: str) -> Iterator[list[Part]]:
    if isinstance(template, Mapping):
        for key, value in template.items():
            yield from _pairs(value, values, f"{name}[{key}]" if name else key)
    elif isinstance(template, list | tuple):
        for value in template:
            yield from _pairs(value, values, f"{name}[]")
    else:
        text = str(template).lower() if isinstance(template, bool) else str(template)
        filled = _text(text.removeprefix(_NUMBER), values, lambda part: quote_plus(part).encode())
        if filled is not None:
            yield [quote_plus(name, safe="[]").encode() + b"=", *filled]


def _without_zeros(part: Part) -> Part:
    """A number in JSON begins with no zero."""
    at = 0
    while at < len(part) - 1 and part[at] == 48:
        at += 1
    return part[at:]


def _joined(parts: list[list[Part]], between: bytes) -> Iterator[Part]:
    for i, part in enumerate(parts):
        if i:
            yield between
        yield from part


def write(parts: list[Part]) -> Room:
    """The parts one after the other, in a room of their own. The caller closes it."""
    room, at = Room(sum(map(len, parts))), 0
    for part in parts:
        room.view[at : at + len(part)] = part
        at += len(part)
    return room
