"""The table that every benchmark prints, and the JSON beside it."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RESULTS = Path(__file__).parent / "results"


def upper_bound(share: float, n: int) -> float:
    """Upper end of the 95 % interval (Wilson) of a share measured on n."""
    if not n:
        return 1.0
    z = 1.96
    middle = share + z * z / (2 * n)
    return (middle + z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure against its goal."""

    what: str
    goal: float
    measured: float
    unit: str
    better: Literal["higher", "lower"]
    published: bool = False
    """Only told: there is no goal to miss."""

    @property
    def ok(self) -> bool:
        return self.published or bool(
            self.measured >= self.goal if self.better == "higher" else self.measured <= self.goal
        )


def arguments(description: str | None, only: bool = False) -> argparse.Namespace:
    """--quick and --json, and --only where a benchmark has it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller numbers and wider bounds, within a minute")
    parser.add_argument("--json", metavar="F", help="write the rows there")
    if only:
        parser.add_argument("--only", metavar="TEXT", help="only rows with TEXT in their name")
    return parser.parse_args()


def finish(rows: list[Row], path: str | None) -> int:
    """Print the table, write the JSON; returns the exit code: 1 when a row is not ok."""
    width = max(len(row.what) for row in rows)
    print(f"{'what':<{width}}  {'goal':>12}  {'measured':>12}  unit      verdict")
    for row in rows:
        sign = ">=" if row.better == "higher" else "<="
        verdict = "published" if row.published else "ok" if row.ok else "NOT OK"
        goal = " " * 12 if row.published else f"{sign}{row.goal:>10.4g}"
        print(f"{row.what:<{width}}  {goal}  {row.measured:>12.4g}  {row.unit:<8}  {verdict}")
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        names = ("what", "goal", "measured", "unit", "better")
        found = [{name: getattr(row, name) for name in names} | {"ok": row.ok} for row in rows]
        for entry in found:
            entry["measured"] = float(entry["measured"])
        Path(path).write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(row.ok for row in rows) else 1
