"""What rounding costs: certified accuracy with what is given away for it, and without.

Only the first is a claim. The second says how many images a certifier lost to the errors of its own arithmetic, or, of
published entries, how many lie within the rounding of their printed radii: the figure that their source prints.
"""

from dataclasses import dataclass

from leaderboards.board import Board, Line
from leaderboards.metrics import Share
from leaderboards.radii import ceil_float
from leaderboards.records import EVIDENCE_PREFIX, PRINTED_RADIUS

#: The column of evidence that holds the radius found with nothing given away.
UNROUNDED = f"{EVIDENCE_PREFIX}unrounded_radius"


@dataclass(frozen=True)
class RoundingCost:
    """The shares of images that an entry would certify at each radius of the board if nothing were given away."""

    line: Line
    without: tuple[Share, ...]


def rounding_costs(board: Board) -> tuple[RoundingCost, ...]:
    """Every entry that searched without rounding too or was read from a published log, best first.

    An image counts where its clean prediction is right, as it does with rounding: the classifier is deterministic. One
    of a published log counts where its printed prediction is right and its printed radius is large enough.
    """
    found = []
    for line in board.ranked:
        rows = line.entry.rows
        column = PRINTED_RADIUS if line.entry.imported else UNROUNDED
        if column in rows:
            right = rows["clean_prediction"] == rows["label"]
            if line.entry.imported:
                right = (rows["prediction"] == rows["label"]) & (rows["verdict"] == "CERTIFIED")
            # NaN, where nothing was found, is not at least any radius.
            reached = [int((right & (rows[column] >= ceil_float(radius))).sum()) for radius in board.radii]
            found.append(RoundingCost(line, tuple(Share(count, len(rows)) for count in reached)))
    return tuple(found)


def reading_of_rounding() -> str:
    """What the table says, for readers."""
    return (
        "Certified accuracy (%) with the error of the certifier's own arithmetic given away, which is proved, and in "
        "brackets what it would be if arithmetic were exact, which is not. Of published entries: with half a unit of "
        "the last printed digit subtracted from each radius, and in brackets with the radii as printed."
    )
