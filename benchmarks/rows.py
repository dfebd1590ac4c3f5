"""What the benchmarks hand to `table.py`: one row a measured goal."""

import argparse
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

SIGNS = {"x": "x", "%": " %", "MiB": " MiB"}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    work, reference: in words. measured, goal: in `unit`: `x` and `%` must be at least the goal, `MiB` and `<x` at most.
    limit: what bounds the work, or what else was measured of it.
    """

    work: str
    reference: str
    measured: float
    goal: float
    unit: str = "x"
    limit: str = ""

    @property
    def met(self) -> bool:
        return self.measured <= self.goal if self.unit in ("MiB", "<x") else self.measured >= self.goal

    def number(self, value: float) -> str:
        return f"{value:.3g}{SIGNS.get(self.unit, 'x')}"

    def cells(self) -> list[str]:
        goal = f"{'at most ' if self.unit in ('MiB', '<x') else ''}{self.number(self.goal)}"
        return [
            self.work,
            self.reference,
            self.number(self.measured),
            goal,
            "met" if self.met else "MISSED",
            self.limit,
        ]


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every benchmark takes."""
    parser.add_argument("--image", type=Path, help="picture or slide to take the pixels from; simulated without")
    parser.add_argument("--rows", type=Path, help="where `table.py` wants the rows as JSON")


def give(rows: list[Row], path: Path | None) -> None:
    if path:
        path.write_text(json.dumps([asdict(row) for row in rows]))


def grown(work: str, per_tile: dict[int, float]) -> list[Row]:
    """Return a row on linear growth, of seconds a tile by number of tiles."""
    if len(per_tile) < 2:
        return []
    few, many = min(per_tile), max(per_tile)
    all_of_them = ", ".join(f"{n:,}: {1e6 * seconds:.0f} us" for n, seconds in per_tile.items())
    return [
        Row(
            f"{work}: time a tile at {many:,} tiles",
            f"the same at {few:,}",
            per_tile[many] / per_tile[few],
            1.3,
            "<x",
            all_of_them,
        )
    ]
