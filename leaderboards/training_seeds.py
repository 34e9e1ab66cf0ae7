"""Training seeds as a factor: entries that differ in the seed of their training alone, taken together.

The images say how sure the score of given weights is; only other seeds say what the training would have given on
another day. Both are needed before one training method is called better than another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from leaderboards.badges import leading
from leaderboards.board import Board, Line
from leaderboards.paired import correctness
from leaderboards.records import Entry
from leaderboards.resampling import rank_intervals

#: Fewer say too little about the spread between them.
LEAST_SEEDS = 3

#: What a table of families says, for readers.
READING = (
    "Mean over training seeds of the certified accuracy (%), ± the standard deviation between seeds. Ranks: the middle "
    "95 % over resamples of images and of seeds; an entry with one seed is taken as it is."
)


@dataclass(frozen=True)
class Family:
    """The entries of one line of a spec, a training seed each, and its place among all.

    Attributes:
        name: of the line of the spec; of an entry with one seed, its own name.
        seeds: as in the spec; empty where the training had one.
        lines: the entries, in the order of the seeds.
        certified: float64[radii], the mean over seeds of the certified accuracies.
        deviation: float64[radii], their standard deviation between seeds (n - 1 in the denominator); NaN of one.
        mean: of the certified accuracies over seeds and radii: what families are ranked by.
        mean_deviation: the standard deviation between seeds of the mean over radii; NaN of one.
        rank: from 1; equal means share one.
        rank_interval: the ranks in the middle 95 % of resamples of images and seeds.
    """

    name: str
    seeds: tuple[int, ...]
    lines: tuple[Line, ...]
    certified: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    mean: float
    mean_deviation: float
    rank: int
    rank_interval: tuple[int, int]


def families(board: Board) -> tuple[Family, ...]:
    """All lines of a board that are ranked together (`leading`), those of one line of the spec in one, best first.

    Empty where no line of the spec has several training seeds. A family whose seeds are not all ranked is left
    out: the mean of those that happen to be finished, or sound, would be another number.
    """
    together = {line.entry.name for line in leading(board)}
    groups: dict[str, list[Line]] = {}
    for line in board.lines:
        groups.setdefault(spec_name(line.entry), []).append(line)
    whole = {name: lines for name, lines in groups.items() if all(line.entry.name in together for line in lines)}
    if not any(len(lines) >= LEAST_SEEDS for lines in whole.values()):
        return ()
    found = [in_order_of_seeds(lines) for lines in whole.values()]
    correct = [correctness([line.entry for line in lines], board.radii) for lines in found]
    # Exact, so that equal means are equal whatever the numbers of seeds.
    totals = [Fraction(int(table.sum()), len(table)) for table in correct]
    intervals = rank_intervals([table.mean(axis=1) for table in correct])
    built = [
        _family(name, lines, table, 1 + sum(total > own for total in totals), interval)
        for name, lines, table, own, interval in zip(whole, found, correct, totals, intervals, strict=True)
    ]
    return tuple(sorted(built, key=lambda family: family.rank))


def spec_name(entry: Entry) -> str:
    """The name of the line of the spec: the same for all training seeds of it; else the entry's own."""
    return str(entry.details.get("training_seed", {}).get("of", entry.name))


def training_seed(entry: Entry) -> int:
    """The training seed of an entry of several; 0, that of the first, of an entry with one."""
    return int(entry.details.get("training_seed", {}).get("seed", 0))


def in_order_of_seeds(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Lines of one line of the spec, by their training seeds."""
    return tuple(sorted(lines, key=lambda line: training_seed(line.entry)))


def _family(
    name: str, lines: tuple[Line, ...], correct: npt.NDArray[np.bool_], rank: int, interval: tuple[int, int]
) -> Family:
    shares = correct.mean(axis=2)  # [seeds, radii]
    several = len(lines) > 1
    means = shares.mean(axis=1)
    return Family(
        name=name,
        seeds=tuple(training_seed(line.entry) for line in lines) if several else (),
        lines=lines,
        certified=shares.mean(axis=0),
        deviation=shares.std(axis=0, ddof=1) if several else np.full(shares.shape[1], np.nan),
        mean=float(means.mean()),
        mean_deviation=float(means.std(ddof=1)) if several else float("nan"),
        rank=rank,
        rank_interval=interval,
    )
