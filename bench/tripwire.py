"""The tripwire of `bench/perf`: ratios of speed measured in one job, beside a committed table of ratios.

Each ratio is reference / engine, timed in turn in one process, so that what slows the machine slows both. Seconds of
different jobs or machines are never compared. `make bench` runs this after the benchmarks:

    python -m bench.tripwire results/perf.json            trips (exit 1) where a ratio fell by more than 1.25x
    python -m bench.tripwire results/perf.json --write    makes the measured ratios the committed ones
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.endings import CHECK_FAILED, NOTHING_MEASURED, USAGE, stop

#: A ratio may fall to this part of the committed one: ratios of one job scatter by a tenth or so.
TOLERANCE = 1.25

_TABLE = Path(__file__).parent / "perf" / "ratios.json"


@dataclass(frozen=True)
class Speed:
    """One benchmark: its committed ratio and the measured one, None where it is missing."""

    name: str
    committed: float | None
    measured: float | None

    @property
    def tripped(self) -> bool:
        """Slower than the committed ratio by more than `TOLERANCE`, or not measured although it is committed."""
        if self.committed is None:
            return False
        # NaN is not at least anything.
        return self.measured is None or not self.measured * TOLERANCE >= self.committed

    def __str__(self) -> str:
        """One line, with the factor between the two."""
        if self.measured is None:
            return f"{self.name}: committed {self.committed:.2f}x, not measured"
        if self.committed is None:
            return f"{self.name}: {self.measured:.2f}x, not in the table"
        change = self.measured / self.committed
        return f"{self.name}: {self.measured:.2f}x, committed {self.committed:.2f}x: {change:.2f} times the speed"


def ratios_of(document: Mapping[str, object]) -> dict[str, float]:
    """The ratios in a file of pytest-benchmark, by the names of the tests; benchmarks without one are left out.

    Raises:
        ValueError: it is no such file.
    """
    found = document.get("benchmarks")
    if not isinstance(found, list):
        raise ValueError("not a file of pytest-benchmark: it has no list of benchmarks")
    return {
        str(item["name"]): float(item["extra_info"]["ratio"]) for item in found if "ratio" in item.get("extra_info", {})
    }


def speeds(measured: Mapping[str, float], committed: Mapping[str, float]) -> list[Speed]:
    """Both tables side by side, in the order of the committed one."""
    names = [*committed, *(name for name in measured if name not in committed)]
    return [Speed(name, committed.get(name), measured.get(name)) for name in names]


def tripwire(
    measured: Annotated[Path, typer.Argument(help="The JSON file of pytest-benchmark.")],
    table: Annotated[Path, typer.Option(help="The committed ratios.")] = _TABLE,
    write: Annotated[bool, typer.Option("--write", help="Make the measured ratios the committed ones.")] = False,
) -> None:
    """Hold ratios of speed of one job against the committed ones; exit 1 where one fell by more than 1.25x."""
    try:
        found = ratios_of(json.loads(measured.read_text(encoding="utf-8")))
        committed = {} if write else dict(json.loads(table.read_text(encoding="utf-8"))["ratios"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        stop(USAGE, f"Cannot read the ratios: {error}. Run make bench first.")
    if not found:
        stop(NOTHING_MEASURED, f"{measured} holds no ratio: run the benchmarks with --benchmark-enable.")
    if write:
        document = {"tolerance": TOLERANCE, "ratios": {name: round(ratio, 3) for name, ratio in sorted(found.items())}}
        table.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        typer.echo(f"Written: {len(found)} ratios, {table}")
        return
    compared = speeds(found, committed)
    for speed in compared:
        typer.echo(f"{'TRIPPED ' if speed.tripped else ''}{speed}")
    if slow := [speed for speed in compared if speed.tripped]:
        stop(
            CHECK_FAILED, f"{len(slow)} of {len(compared)} ratios fell by more than {TOLERANCE}x, or were not measured."
        )


if __name__ == "__main__":
    typer.run(tripwire)
