"""The table that every benchmark prints, and the JSON beside it."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
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

    @property
    def ok(self) -> bool:
        return bool(self.measured >= self.goal if self.better == "higher" else self.measured <= self.goal)


def arguments(description: str | None) -> argparse.Namespace:
    """--quick and --json."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller numbers and wider bounds, within a minute")
    parser.add_argument("--json", metavar="F", help="write the rows there")
    return parser.parse_args()


def finish(rows: list[Row], path: str | None) -> int:
    """Print the table, write the JSON; returns the exit code: 1 when a row is not ok."""
    width = max(len(row.what) for row in rows)
    print(f"{'what':<{width}}  {'goal':>12}  {'measured':>12}  unit      verdict")
    for row in rows:
        sign = ">=" if row.better == "higher" else "<="
        verdict = "ok" if row.ok else "NOT OK"
        print(f"{row.what:<{width}}  {sign}{row.goal:>10.4g}  {row.measured:>12.4g}  {row.unit:<8}  {verdict}")
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        found = [asdict(row) | {"measured": float(row.measured), "ok": row.ok} for row in rows]
        Path(path).write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(row.ok for row in rows) else 1
