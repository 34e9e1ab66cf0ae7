"""What reproduced, as text: one description for the page and for Markdown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leaderboards import escaping, numerals
from leaderboards.envelope import CAUTION
from leaderboards.paper_tables import AVERAGE_RADIUS, PaperRow, papers
from leaderboards.published import read_published
from leaderboards.radii import format_radius
from leaderboards.render import replace_file
from leaderboards.reproduction import (
    FALSE_ALARMS,
    Here,
    Reproduction,
    TableBeside,
    TestedClaim,
    Verdict,
    reproductions_of,
)
from leaderboards.standings import p_value

#: The file beside the published boards.
REPRODUCED = "reproduced.md"

#: Beside what an entry with a warning is part of.
MARK = "†"

#: What readers must know.
READING = (
    "A claim is about two rows at one radius. Differences are in points of certified accuracy; ours is the mean over "
    "training seeds, in brackets the outermost ends of the seeds' 95 % intervals (Tango, of paired proportions). "
    "Images: those that the first alone and the second alone certifies, a pair a seed.",
    "held: the exact McNemar test says that the first is larger, by Holm's correction over all claims at "
    f"{FALSE_ALARMS:.0%}, for each training seed. the opposite: it says that the second is larger. open: the images do "
    "not tell; a larger test would.",
    "Of two that are called alike, within so many points, held: for each training seed Tango's "
    f"{1 - 2 * FALSE_ALARMS:.0%} interval of the difference lies within them; where they differ by more, that has a "
    f"probability of about {FALSE_ALARMS:.0%} at most, claim by claim. the opposite: for each training seed Tango's "
    f"interval lies wholly outside them, at {FALSE_ALARMS:.0%} divided by the number of claims (Bonferroni). Their p "
    "is that of no difference at all, and decides nothing.",
    "Tables have two lines a row, the paper's and ours; average radii of ours are rounded down; ± is the standard "
    "deviation between training seeds. A dash: not measured, or not readable in the text of the paper at hand.",
    f"{MARK}: an entry with a warning, a member that collapsed in training, say.",
)


@dataclass(frozen=True)
class TextRow:
    """Cells of one line; `ours`: measured here."""

    cells: tuple[str, ...]
    ours: bool


@dataclass(frozen=True)
class TextTable:
    """A table with its heading and what must be said of it; `kind` names its style: claims or beside."""

    heading: str
    notes: tuple[str, ...]
    head: tuple[str, ...]
    rows: tuple[TextRow, ...]
    kind: str


@dataclass(frozen=True)
class Section:
    """A paper; `address` is empty where it is no `https:` address."""

    title: str
    authors: str
    address: str
    notes: tuple[str, ...]
    tables: tuple[TextTable, ...]


def section_of(found: Reproduction) -> Section:
    """A paper beside our boards: its claims first, then its tables."""
    paper = found.paper
    counts = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in Verdict)
    notes = [f"There: {paper.there}", f"Here: {paper.here}"]
    if found.without:
        notes.append(f"Not measured here: {'; '.join(found.without)}.")
    notes += [f"{MARK} {warning}" for warning in found.warnings]
    claims = TextTable(
        heading=f"Claims: {counts}",
        notes=(f"Boards: {', '.join(dict.fromkeys(tested.board for tested in found.claims))}.",),
        head=("claim", "verdict", "sigma", "r", "paper", "here", "images", "p (Holm)", "rows"),
        rows=tuple(TextRow(_claim_cells(tested), ours=False) for tested in found.claims),
        kind="claims",
    )
    return Section(
        title=paper.title,
        authors=f"{paper.authors}, {paper.venue}",
        address=paper.address if paper.address.startswith("https://") else "",
        notes=tuple(notes),
        tables=(*((claims,) if found.claims else ()), *map(_table, found.tables)),
    )


def markdown_reproductions(found: Sequence[Reproduction]) -> str:
    """All papers as a Markdown page."""
    text, line_of = escaping.markdown, escaping.markdown_line
    blocks = ["# What reproduced"]
    for section in map(section_of, found):
        blocks += [f"## {text(section.title)}", line_of(section.authors), *map(line_of, section.notes)]
        for table in section.tables:
            rows = [table.head, [":--", *["--:"] * (len(table.head) - 1)], *(row.cells for row in table.rows)]
            blocks += [f"### {text(table.heading)}", *map(line_of, table.notes)]
            ruled = rows[:1] + rows[2:]
            lines = [f"| {' | '.join(map(text, row))} |" for row in ruled]
            blocks.append("\n".join([lines[0], f"| {' | '.join(rows[1])} |", *lines[1:]]))
    blocks += ["## How to read it", "\n".join(f"- {line_of(sentence)}" for sentence in READING)]
    return "\n\n".join(blocks) + "\n"


def write_reproductions(published: Path) -> Path | None:
    """Write `reproduced.md` of published boards into their folder; None where papers say nothing of them.

    Raises:
        StoredDataError: a published file is missing or was altered.
        OSError: it cannot be written.
    """
    found = published_reproductions(published)
    if not found:
        return None
    replace_file(published / REPRODUCED, markdown_reproductions(found).encode())
    return published / REPRODUCED


def published_reproductions(published: Path) -> tuple[Reproduction, ...]:
    """All papers of which boards in a folder of published ones measured anything; only these boards are read.

    Raises:
        StoredDataError: a published file is missing or was altered.
    """
    wanted = sorted({name for paper in papers() for name in paper.boards.values()})
    there = [name for name in wanted if (published / name / "run.json").is_file()]
    return reproductions_of({name: read_published(published / name).board for name in there})


def _claim_cells(tested: TestedClaim) -> tuple[str, ...]:
    claim = tested.claim
    alike = "" if claim.alike is None else f", within {claim.alike:g} points"
    low, high = tested.interval
    printed = numerals.NOTHING if math.isnan(claim.printed) else f"{claim.printed:+.1f} (Table {claim.table})"
    return (
        claim.says + alike,
        tested.verdict.value,
        claim.sigma,
        format_radius(claim.radius),
        printed,
        f"{tested.difference:+.1f} [{low:+.1f}, {high:+.1f}]",
        ", ".join(f"+{pair.at.gained} -{pair.at.lost}{MARK * bool(pair.warnings)}" for pair in tested.pairs),
        p_value(tested.adjusted),
        f"{claim.first} − {claim.second}",
    )


def _table(found: TableBeside) -> TextTable:
    table = found.table
    head = [format_radius(radius) for radius in table.radii] or [table.measure]
    rows: list[TextRow] = []
    for row in table.rows:
        rows += _lines(row, found.here.get(row.name), table.measure == AVERAGE_RADIUS)
    notes = [f"Ours: {', '.join(found.boards)}."]
    if found.envelope:
        wanted = ", ".join(table.sigmas)
        notes.append(
            f"{CAUTION} The paper's sigmas: {wanted}; hyper-parameters of ours are chosen so, too, in this table."
        )
    return TextTable(f"Table {table.number}: {table.about}", tuple(notes), ("", "", *head), tuple(rows), "beside")


def _lines(row: PaperRow, here: Here | None, average_radius: bool) -> list[TextRow]:
    digits = 3 if average_radius else 1
    lines = []
    if row.paper:
        cells = (numerals.NOTHING if math.isnan(value) else f"{value:.{digits}f}" for value in row.paper)
        lines.append(TextRow((row.name, "paper", *cells), ours=False))
    if here:
        cells = (_number(*pair, average_radius) for pair in zip(here.values, here.deviations, strict=True))
        seeds = (f"here, {here.seeds} seeds" if here.seeds > 1 else "here") + MARK * bool(here.warnings)
        lines.append(TextRow((row.name, seeds, *cells), ours=True))
    return lines


def _number(value: float, deviation: float, average_radius: bool) -> str:
    """A radius is rounded down, as on boards; a spread is no claim, and is rounded to the nearest."""
    if math.isnan(value):
        return numerals.NOTHING
    shown, spread = (
        (numerals.radius(value), f"{deviation:.3f}") if average_radius else (f"{value:.1f}", f"{deviation:.1f}")
    )
    return shown if math.isnan(deviation) else f"{shown} ± {spread}"
