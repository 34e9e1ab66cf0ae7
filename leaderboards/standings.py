"""How sure the order of a board is: ranks with intervals, and what tells each entry from the best.

The entries of a board were measured on the same images, so each is compared with the best image by image. The best is
the best by its numbers on these images: hence every p-value here is corrected for all pairs, not for those shown.
"""

from dataclasses import dataclass
from fractions import Fraction

from leaderboards.badges import groups
from leaderboards.board import Board, Line
from leaderboards.metrics import CONFIDENCE, earned_radii
from leaderboards.numerals import span
from leaderboards.paired import all_pairs, correctness, signed_rank
from leaderboards.resampling import rank_intervals

#: An entry is told apart from the best where an adjusted p-value is at most this.
SIGNIFICANCE = round(1 - CONFIDENCE, 10)


@dataclass(frozen=True)
class Against:
    """An entry beside the best at one radius: images that only the best certifies, and that only the entry does."""

    radius: Fraction
    lost: int
    gained: int
    adjusted: float

    @property
    def told_apart(self) -> bool:
        """Whether the difference is more than chance explains."""
        return self.adjusted <= SIGNIFICANCE


@dataclass(frozen=True)
class Standing:
    """The place of one ranked line.

    Attributes:
        line: the entry.
        rank_interval: the ranks in the middle 95 % of resamples of the images.
        best: the name of the entry it is compared with; its own for the best.
        difference: of the means of the certified accuracies, entry less best, in [-1, 0].
        against: at each radius; empty for the best.
        wilcoxon: p-value of the signed-rank test on earned radii, times the number of all pairs (Bonferroni), at most
        1.
    """

    line: Line
    rank_interval: tuple[int, int]
    best: str
    difference: float
    against: tuple[Against, ...]
    wilcoxon: float

    @property
    def tied(self) -> bool:
        """Whether it is not told apart from the best at any radius, by the certified accuracies that it is ranked by.

        The radii have no say, as the average certified radius has none in the ranking: on many images the test of radii
        tells entries apart whose accuracies are the same, and a certifier that stops once it has the radii asked for.
        """
        return not any(at.told_apart for at in self.against)


def standings(board: Board) -> tuple[Standing, ...]:
    """The places of all ranked lines, in the order of the board; verified and unverified ones apart, as ranked.

    Published logs have none: nobody knows that their images met the same noise.
    """
    found: list[Standing] = []
    for group in groups(board):
        found += _standings(board, [line for line in group.lines if line.rank is not None and not line.entry.imported])
    return tuple(found)


def _standings(board: Board, lines: list[Line]) -> list[Standing]:
    if not lines:
        return []
    entries = [line.entry for line in lines]
    correct = correctness(entries, board.radii)
    means = correct.mean(axis=(1, 2))
    # An interval for each entry as if nothing were known of its other training seeds: see `training_seeds`.
    intervals = rank_intervals([table.mean(axis=0, keepdims=True) for table in correct])
    pairs = all_pairs(entries, board.radii)
    earned = [earned_radii(entry.rows.sort_values("image_id", kind="stable")) for entry in entries]
    number_of_pairs = len(lines) * (len(lines) - 1) // 2
    return [
        Standing(
            line=line,
            rank_interval=intervals[number],
            best=entries[0].name,
            difference=float(means[number] - means[0]),
            against=tuple(
                Against(radius, int(pairs.lost[0, number, at]), int(pairs.gained[0, number, at]), float(adjusted))
                for at, (radius, adjusted) in enumerate(zip(board.radii, pairs.adjusted[0, number], strict=True))
            )
            if number
            else (),
            wilcoxon=min(1.0, signed_rank(earned[0], earned[number]) * number_of_pairs) if number else 1.0,
        )
        for number, line in enumerate(lines)
    ]


def reading_of_standings() -> str:
    """What the table of standings says, for readers."""
    return (
        "Ranks: the middle 95 % of ranks over resamples of the images (bootstrap), of these weights; other training "
        "seeds are another matter. At each radius: difference of certified accuracy from the best in points, and in "
        "brackets the images lost and gained. An asterisk: more than chance explains (exact McNemar, Holm over all "
        "pairs of entries and all radii, 5 %). Radii: the p-value of Wilcoxon's signed-rank test on earned radii, "
        "times the number of pairs; images with equal radii are dropped, ties share ranks. It ranks nothing. What has "
        "no asterisk is tied with the best as far as these images tell, at these radii."
    )


def rank_range(standing: Standing) -> str:
    """`1–3`: the ends of the interval, or one number where they are equal."""
    return span(standing.rank_interval)


def points(difference: float) -> str:
    """A difference of shares in percentage points, signed, with one decimal."""
    shown = f"{100 * difference:+.1f}"
    return "0.0" if float(shown) == 0 else shown


def p_value(value: float) -> str:
    """A p-value with two digits; `< 0.0001` below."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"
