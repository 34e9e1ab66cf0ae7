"""Plans cut down to what a test asks, a certifier that does what it is told, and the rows and files that runs leave."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from bench.plan import Plan
from bench.runner import Outcome
from certifiers import Norm, RadiusCertifier
from leaderboards import read_run

Make = Callable[..., Plan]
ENTRIES = ["single", "three · weighted-average · smoothing", "three · max-margin · smoothing"]


@dataclass(frozen=True, kw_only=True)
class Scripted(RadiusCertifier):
    """A certifier that does what a test tells it to."""

    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)
    script: ClassVar[Callable[..., Any]]

    def radii(self, classifier: Any, x: Any, threat: Any, rng: Any) -> Any:
        return type(self).script(classifier, x, threat, rng)


def with_certifier(plan: Plan, certifier: Any) -> Plan:
    return dataclasses.replace(plan, cells=tuple(dataclasses.replace(cell, certifier=certifier) for cell in plan.cells))


def only(plan: Plan, *numbers: int, images: int | None = None) -> Plan:
    return dataclasses.replace(
        plan,
        cells=tuple(plan.cells[number] for number in numbers),
        images=plan.images if images is None else plan.images.spread(images),
    )


def rows_with_seconds(outcome: Outcome) -> dict[str, pd.DataFrame]:
    return {entry.name: entry.rows for entry in read_run(outcome.manifest).entries}


def rows_without_seconds(outcome: Outcome) -> dict[str, pd.DataFrame]:
    return {name: rows.drop(columns="seconds", errors="ignore") for name, rows in rows_with_seconds(outcome).items()}


def assert_equal(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    assert list(found) == list(expected)
    for name, rows in found.items():
        pd.testing.assert_frame_equal(rows, expected[name], check_exact=True, obj=name)


def blocks(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("cells/*/*.parquet"))}
