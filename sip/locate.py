"""The order in which the hosts behind a name are tried (RFC 2782, RFC 3263 section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sip.hop import TLS


@dataclass(frozen=True, slots=True)
class Srv:
    """One SRV record."""

    priority: int
    weight: int
    port: int
    target: str


def service(transport: str) -> str:
    """What stands before the domain in a SRV query."""
    return "_sips._tcp." if transport == TLS else f"_sip._{transport.lower()}."


def in_order(records: list[Srv], random: Callable[[int], int]) -> list[Srv]:
    """Records by priority, and within one by a lottery in which weight counts (RFC 2782). random(n): 0 to n - 1."""
    found: list[Srv] = []
    for priority in sorted({record.priority for record in records}):
        left = sorted((r for r in records if r.priority == priority), key=lambda r: r.weight)
        while left:
            drawn = random(sum(r.weight for r in left) + 1)
            at, total = 0, left[0].weight
            while total < drawn:
                at += 1
                total += left[at].weight
            found.append(left.pop(at))
    return found
