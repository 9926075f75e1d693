"""A secret of digits: held in one buffer of fixed size, never shown, never copied by accident, wiped."""

from __future__ import annotations

from typing import Any, Final, NoReturn

CAPACITY: Final = 32
"""More than any field may hold (19 digits), so that the buffer never grows and never leaves a copy behind."""


class SecretFull(Exception):
    """More digits than any field takes."""


class Secret:
    """Digits as ASCII in a buffer of its own."""

    __slots__ = ("_buffer", "_length")

    def __init__(self) -> None:
        self._buffer = bytearray(CAPACITY)
        self._length = 0

    def append(self, digit: int) -> None:
        """Add a digit, 0 to 9. Raises SecretFull."""
        if self._length >= CAPACITY:
            raise SecretFull
        self._buffer[self._length] = 48 + digit
        self._length += 1

    def view(self) -> memoryview:
        """The digits in place. Release it before `wipe`, and never make bytes or str of it."""
        return memoryview(self._buffer)[: self._length]

    def wipe(self) -> None:
        """Blank the digits."""
        self._buffer[:] = bytes(CAPACITY)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return repr(self)

    def __reduce_ex__(self, _: Any) -> NoReturn:
        raise TypeError("a secret is not pickled")

    def __copy__(self) -> NoReturn:
        raise TypeError("a secret is not copied")

    def __deepcopy__(self, _: Any) -> NoReturn:
        raise TypeError("a secret is not copied")

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]

    def __del__(self) -> None:
        self._buffer[:] = bytes(CAPACITY)
