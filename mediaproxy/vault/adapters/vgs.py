"""VGS: `POST /aliases` of the vault API, basic authentication, for the card number alone: an alias of a security code
would be a stored security code (docs.verygoodsecurity.com/vault/api)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from mediaproxy.vault.body import Part, Values, json_parts
from mediaproxy.vault.fields import Field
from mediaproxy.vault.gateway import Adapter, at

_VALUE: Final = re.compile(rb'"value"\s*:\s*"?([0-9]{12,19})(?=["\s,}])')


class Vgs(Adapter):
    """Of the same value there may be a second alias, so nothing is asked twice that may have been taken."""

    idempotent = False

    def body(self, values: Values) -> list[Part] | None:
        item = {"value": "{pan}", "format": self._config.alias_format, "storage": "PERSISTENT"}
        template = {"data": [item | {"classifiers": ["card-number"]}]}
        return json_parts(template, values) if "pan" in values.names() else None

    def clean(self, answer: bytearray, fields: Iterable[Field]) -> None:
        """The answer repeats the value beside its alias, as a string or a number: there, and nowhere else, it is
        expected, and blanked before anything reads it."""
        for f in fields:
            if f.name != "pan":
                continue
            with f.digits.view() as digits:
                for match in _VALUE.finditer(answer):
                    begin, end = match.span(1)
                    with memoryview(answer) as whole, whole[begin:end] as value:
                        if value == digits:
                            value[:] = b"1" + b"0" * (len(value) - 1)

    def token(self, answer: Any) -> Any:
        return at(answer, "data.0.aliases.0.alias")
