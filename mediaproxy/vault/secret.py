"""Memory for digits: locked, left out of dumps and of children, never shown, never copied by accident, wiped."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from mediaproxy.room import Room

CAPACITY: Final = 32
"""More than any field may hold, so that a secret never grows and never leaves a copy behind."""
_BLOCK: Final = 4096


class SecretFull(Exception):
    """More digits than any field takes."""


class _Arena:
    """Places of CAPACITY octets in rooms that are kept."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._rooms: list[Room] = []

    def take(self) -> memoryview:
        if not self._free:
            room = Room(_BLOCK)
            self._rooms.append(room)
            self._free = [room.view[at : at + CAPACITY] for at in range(0, _BLOCK, CAPACITY)]
        return self._free.pop()

    def give_back(self, place: memoryview) -> None:
        place[:] = bytes(CAPACITY)
        self._free.append(place)

    @property
    def locked(self) -> bool:
        return all(room.locked for room in self._rooms)


_arena = _Arena()


class Secret:
    """Digits as ASCII. It has a place in locked memory from its first digit to its wiping."""

    __slots__ = ("_length", "_place")

    def __init__(self) -> None:
        self._place: memoryview | None = None
        self._length = 0

    def append(self, digit: int) -> None:
        """Add a digit, 0 to 9. Raises SecretFull."""
        if self._length >= CAPACITY:
            raise SecretFull
        if self._place is None:
            self._place = _arena.take()
        self._place[self._length] = 48 + digit
        self._length += 1

    def view(self) -> memoryview:
        """The digits in place. Release it before `wipe`, and never make bytes or str of it."""
        return memoryview(b"") if self._place is None else self._place[: self._length]

    def wipe(self) -> None:
        """Blank the digits."""
        if self._place is not None:
            _arena.give_back(self._place)
        self._place, self._length = None, 0

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
        self.wipe()


def locked() -> bool:
    """Whether all memory for digits is locked."""
    return _arena.locked
