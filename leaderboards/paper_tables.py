"""What papers print: figures of their tables, and which of our entries stand beside them.

A file a paper, `papers/<name>.toml`: facts alone, no sentence of the paper. `leaderboards.reproduction` puts them
beside our boards.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from leaderboards.radii import parse_radius

#: What a table without radii is of.
CERTIFIED = "certified accuracy"
AVERAGE_RADIUS = "average certified radius"

_HERE = Path(__file__).parent / "papers"


class PaperError(ValueError):
    """A file of figures is not what it should be."""


@dataclass(frozen=True)
class PaperRow:
    """A row of a table. `paper` is empty for a row of ours alone, `here` for one that we have no counterpart of."""

    name: str
    paper: tuple[float, ...] = ()
    here: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """A table as printed.

    Attributes:
        number: the paper's.
        about: what it compares.
        sigmas: the noise levels, as written. Of several, each number is the best of them.
        radii: of the columns; empty for a table of average radii.
        measure: `CERTIFIED` or `AVERAGE_RADIUS`.
        rows: numbers in per cent, or radii in input units; NaN where a number could not be read.
    """

    number: str
    about: str
    sigmas: tuple[str, ...]
    radii: tuple[Fraction, ...]
    measure: str
    rows: tuple[PaperRow, ...]

    @property
    def columns(self) -> int:
        """How many numbers a row has."""
        return len(self.radii) or 1

    def row(self, name: str) -> PaperRow:
        """The row of this name.

        Raises:
            PaperError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise PaperError(
            f"Table {self.number} has no row {name!r}; it has: {', '.join(row.name for row in self.rows)}."
        )


@dataclass(frozen=True)
class Claim:
    """That one row exceeds another at a radius; with `alike`, that they differ by no more than so many points.

    Attributes:
        says: the claim in words.
        radius: where it is tested.
        first, second: the rows in the paper's words.
        here: the two entries that test it.
        sigma: the noise level, which names the board.
        alike: in points; None for "the first is larger".
        printed: the paper's difference at this radius, in points; NaN where it prints none.
        table: where it is printed; empty if nowhere.
    """

    says: str
    radius: Fraction
    first: str
    second: str
    here: tuple[str, str]
    sigma: str
    alike: float | None = None
    printed: float = math.nan
    table: str = ""


@dataclass(frozen=True)
class Paper:
    """A paper: how it measured, how we do (`there`, `here`), its tables, its claims, and our board of each sigma."""

    title: str
    authors: str
    venue: str
    address: str
    there: str
    here: str
    boards: Mapping[str, str]
    tables: tuple[PaperTable, ...]
    claims: tuple[Claim, ...]


def papers(folder: Path = _HERE) -> tuple[Paper, ...]:
    """All papers, by the names of their files.

    Raises:
        PaperError: a file is malformed.
    """
    return tuple(read_paper(path) for path in sorted(folder.glob("*.toml")))


def read_paper(path: Path) -> Paper:
    """One paper's figures.

    Raises:
        PaperError: the file is no TOML, a field is missing, or a row has another number of numbers than the table has
            columns.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        tables = tuple(_table(table) for table in document["tables"])
        named = {table.number: table for table in tables}
        return Paper(
            **{name: _one_line(document[name]) for name in ("title", "authors", "venue", "address", "there", "here")},
            boards=dict(document["boards"]),
            tables=tables,
            claims=tuple(_claim(claim, named) for claim in document["claims"]),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise PaperError(
            f"{path}: not the figures of a paper ({error}). CONTRIBUTING says what such a file has; `drt.toml` is one."
        ) from error


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _table(table: Mapping[str, Any]) -> PaperTable:
    found = PaperTable(
        number=table["number"],
        about=table["about"],
        sigmas=tuple(table["sigmas"]),
        radii=tuple(parse_radius(radius) for radius in table.get("radii", ())),
        measure=table.get("measure", CERTIFIED),
        rows=tuple(
            PaperRow(row["name"], tuple(map(float, row.get("paper", ()))), tuple(row.get("here", ())))
            for row in table["rows"]
        ),
    )
    if found.measure not in (CERTIFIED, AVERAGE_RADIUS) or (found.measure == CERTIFIED) is not bool(found.radii):
        raise PaperError(
            f"table {found.number} is of {found.measure!r} with {len(found.radii)} radii; allowed: {CERTIFIED!r} with "
            f"radii, {AVERAGE_RADIUS!r} without"
        )
    wrong = [row.name for row in found.rows if row.paper and len(row.paper) != found.columns]
    if wrong:
        raise PaperError(f"table {found.number} has {found.columns} columns; not so many numbers: {', '.join(wrong)}")
    return found


def _claim(claim: Mapping[str, Any], tables: Mapping[str, PaperTable]) -> Claim:
    first, second = claim["here"]
    made = Claim(
        says=claim["says"],
        radius=parse_radius(claim["radius"]),
        first=claim["first"],
        second=claim["second"],
        here=(first, second),
        sigma=claim["sigma"],
        alike=claim.get("alike"),
        table=claim.get("table", ""),
    )
    if not made.table:
        return made
    table = tables[made.table]
    at = table.radii.index(made.radius)
    # Printed with one decimal: so is their difference.
    printed = round(table.row(made.first).paper[at] - table.row(made.second).paper[at], 1)
    return Claim(**{**vars(made), "printed": printed})
