"""What papers report beside what boards show: their tables, and their claims put to the test.

A claim is about two rows at one radius. Our two entries met the same images and the same noise:

    held       "the first is larger": the exact two-sided McNemar test rejects "no difference", by Holm's correction
               over all claims of the paper at 5 %, and the first is larger;
               "alike within m points": both ends of Tango's 90 % interval of the difference lie within m, which has a
               probability of about 5 % at most where they differ by more, claim by claim
    opposite   the test rejects, and the second is larger;
               "alike": Tango's interval, at 5 % divided by the number of claims (Bonferroni), lies wholly outside
               [-m, m]; a difference that is merely not 0 may be within
    open       neither

Where trainings have several seeds, each has to say so: a claim's p-value is the largest, and every interval counts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from statistics import stdev

from leaderboards.badges import is_verified
from leaderboards.board import Board, Line
from leaderboards.paired import PairedAt, compare_entries, holm, largest_loss
from leaderboards.paper_tables import AVERAGE_RADIUS, Claim, Paper, PaperTable, papers
from leaderboards.training_seeds import in_order_of_seeds, spec_name, training_seed

#: With what probability any claim of a paper is called held or the opposite where nothing differs.
FALSE_ALARMS = 0.05


class Verdict(StrEnum):
    """What became of a claim."""

    HELD = "held"
    OPPOSITE = "the opposite"
    OPEN = "open"


@dataclass(frozen=True)
class Pair:
    """The two entries of a claim at its radius, the second as the base: `at.gained` images are the first's alone.

    Attributes:
        at: the paired counts and the exact McNemar test.
        warnings: what stands beside the name of either.
    """

    at: PairedAt
    warnings: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        """Certified accuracy of the first less that of the second, in points."""
        return 100 * self.at.difference

    def interval(self, confidence: float) -> tuple[float, float]:
        """Tango's interval of the difference, in points; see `largest_loss`."""
        each, at = (1 - confidence) / 2, self.at
        low = -largest_loss(at.lost, at.gained, at.images, each)
        return 100 * low, 100 * largest_loss(at.gained, at.lost, at.images, each)


@dataclass(frozen=True)
class TestedClaim:
    """A claim and what we measured: a pair a training seed, the largest p-value, after Holm, and the verdict."""

    claim: Claim
    board: str
    pairs: tuple[Pair, ...]
    adjusted: float
    verdict: Verdict

    @property
    def difference(self) -> float:
        """The mean over seeds, in points."""
        return sum(pair.difference for pair in self.pairs) / len(self.pairs)

    @property
    def interval(self) -> tuple[float, float]:
        """The outermost ends of the seeds' 95 % intervals, in points."""
        ends = [pair.interval(0.95) for pair in self.pairs]
        return min(low for low, _ in ends), max(high for _, high in ends)


@dataclass(frozen=True)
class Here:
    """Our numbers of one row, a column of the table each.

    Attributes:
        values: per cent, or input units of a table of radii; means over training seeds. NaN: not measured.
        deviations: between training seeds, n - 1 in the denominator; NaN of one seed.
        seeds: how many, of the entry that has most.
        warnings: what stands beside the names of the entries.
    """

    values: tuple[float, ...]
    deviations: tuple[float, ...]
    seeds: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableBeside:
    """A paper's table and our numbers, by the names of its rows; `envelope`: at each radius the best of several."""

    table: PaperTable
    here: Mapping[str, Here]
    boards: tuple[str, ...]
    envelope: bool


@dataclass(frozen=True)
class Reproduction:
    """A paper beside our boards; what is not measured is named."""

    paper: Paper
    claims: tuple[TestedClaim, ...]
    tables: tuple[TableBeside, ...]
    without: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What stands beside the names of entries that claims or tables use, by their ensembles, once each."""
        pairs = (warning for tested in self.claims for pair in tested.pairs for warning in pair.warnings)
        rows = (warning for table in self.tables for here in table.here.values() for warning in here.warnings)
        return tuple(sorted({*pairs, *rows}))

    def count(self, verdict: Verdict) -> int:
        """How many claims have this verdict."""
        return sum(tested.verdict is verdict for tested in self.claims)


def reproduction(paper: Paper, published: Mapping[str, Board]) -> Reproduction | None:
    """A paper beside published boards, by the names of their folders; None where we measured nothing of it."""
    boards = {sigma: published[name] for sigma, name in paper.boards.items() if name in published}
    tables = [_beside(table, paper, boards) for table in paper.tables]
    asked = [(claim, _pairs(claim, boards[claim.sigma])) for claim in paper.claims if claim.sigma in boards]
    there = [(claim, pairs) for claim, pairs in asked if pairs]
    adjusted = holm([_p_value(pairs) for _, pairs in there])
    tested = tuple(
        TestedClaim(claim, paper.boards[claim.sigma], pairs, float(p), _verdict(claim, pairs, float(p), len(there)))
        for (claim, pairs), p in zip(there, adjusted, strict=True)
    )
    shown = tuple(table for table in tables if table.here)
    if not tested and not shown:
        return None
    without = tuple(f"Table {table.table.number} ({table.table.about})" for table in tables if not table.here)
    return Reproduction(paper, tested, shown, without)


def reproductions_of(published: Mapping[str, Board]) -> tuple[Reproduction, ...]:
    """All papers of which these boards, by the names of their folders, measured anything."""
    return tuple(found for paper in papers() if (found := reproduction(paper, published)))


def _lines(board: Board, name: str) -> tuple[Line, ...]:
    """The lines of an entry of the spec, by its training seeds; none where one is unranked or unverified."""
    lines = [line for line in board.lines if spec_name(line.entry) == name]
    if any(line.rank is None or not is_verified(line.entry) for line in lines):
        return ()
    return in_order_of_seeds(lines)


def _pairs(claim: Claim, board: Board) -> tuple[Pair, ...]:
    """A pair a training seed that both have; an entry of one seed meets the other's of the same, or its first."""
    first, second = (_lines(board, name) for name in claim.here)
    if not first or not second:
        return ()
    ones, others = ({training_seed(line.entry): line for line in lines} for lines in (first, second))
    common = sorted(ones.keys() & others.keys())
    matched = [(ones[seed], others[seed]) for seed in common] or [(first[0], second[0])]
    return tuple(_pair(one, other, claim.radius) for one, other in matched)


def _pair(one: Line, other: Line, radius: Fraction) -> Pair:
    (at,) = compare_entries(other.entry, one.entry, (radius,)).at
    return Pair(at, _warnings((one, other)))


def _warnings(lines: Sequence[Line]) -> tuple[str, ...]:
    found = (f"{line.entry.ensemble}: {warning}" for line in lines for warning in line.entry.warnings)
    return tuple(dict.fromkeys(found))


def _p_value(pairs: Sequence[Pair]) -> float:
    """The largest over seeds; 1 where they do not even agree on the sign."""
    if len({pair.difference > 0 for pair in pairs}) > 1:
        return 1.0
    return max(pair.at.p_value for pair in pairs)


def _verdict(claim: Claim, pairs: Sequence[Pair], adjusted: float, claims: int) -> Verdict:
    """The verdict by the rules above; `adjusted` is the p-value after Holm over that many claims."""
    if claim.alike is not None:
        return _verdict_of_alike(claim.alike, pairs, claims)
    if adjusted > FALSE_ALARMS:
        return Verdict.OPEN
    return Verdict.HELD if pairs[0].difference > 0 else Verdict.OPPOSITE


def _verdict_of_alike(most: float, pairs: Sequence[Pair], claims: int) -> Verdict:
    """Of "they differ by at most `most` points": two one-sided tests, and Tango's intervals beyond that."""
    near = [pair.interval(1 - 2 * FALSE_ALARMS) for pair in pairs]
    if all(-most <= low and high <= most for low, high in near):
        return Verdict.HELD
    sure = [pair.interval(1 - FALSE_ALARMS / claims) for pair in pairs]
    return Verdict.OPPOSITE if all(low > most or high < -most for low, high in sure) else Verdict.OPEN


def _beside(table: PaperTable, paper: Paper, boards: Mapping[str, Board]) -> TableBeside:
    used = {sigma: boards[sigma] for sigma in table.sigmas if sigma in boards}
    found = {row.name: _numbers(table, row.here, list(used.values())) for row in table.rows if row.here}
    there = {name: here for name, here in found.items() if here is not None}
    several = len(table.sigmas) > 1 or any(len(row.here) > 1 for row in table.rows)
    return TableBeside(table, there, tuple(paper.boards[sigma] for sigma in used), several)


def _numbers(table: PaperTable, names: Sequence[str], boards: Sequence[Board]) -> Here | None:
    """Of all entries of these names on all boards, at each radius the numbers of the best."""
    found = [_of_lines(table, board, lines) for board in boards for name in names if (lines := _lines(board, name))]
    if not found:
        return None
    best = [max(found, key=lambda here, at=at: _order(here.values[at])) for at in range(table.columns)]  # type: ignore[misc]
    return Here(
        tuple(here.values[at] for at, here in enumerate(best)),
        tuple(here.deviations[at] for at, here in enumerate(best)),
        max(here.seeds for here in found),
        tuple(dict.fromkeys(warning for here in found for warning in here.warnings)),
    )


def _order(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _of_lines(table: PaperTable, board: Board, lines: Sequence[Line]) -> Here:
    columns = [_values(table, board, line) for line in lines]
    by_radius = list(zip(*columns, strict=True))
    means = tuple(sum(values) / len(values) for values in by_radius)
    return Here(
        means,
        # A radius that the board does not have is NaN, of which there is no deviation.
        tuple(stdev(values) if len(lines) > 1 and not math.isnan(sum(values)) else math.nan for values in by_radius),
        len(lines),
        _warnings(lines),
    )


def _values(table: PaperTable, board: Board, line: Line) -> list[float]:
    assert line.scores is not None, "a line with a rank has scores"  # noqa: S101
    if table.measure == AVERAGE_RADIUS:
        return [line.scores.average_radius]
    shares = dict(zip(board.radii, line.scores.certified, strict=True))
    return [100 * shares[radius].value if radius in shares else math.nan for radius in table.radii]
