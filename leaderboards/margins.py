"""Lower bounds on margins, image by image: what stands behind a certified accuracy at one radius.

Wu et al., LPD, Fig. 2: the smallest of the bounds on `score[y] - score[j]` over all other classes j, at one radius, on
the first 200 images that all members of an ensemble classify rightly.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leaderboards.board import Board, Line
from leaderboards.records import EVIDENCE_PREFIX

#: The column of evidence that holds the smallest lower bound of an image's margins, at the largest radius asked.
MARGIN = f"{EVIDENCE_PREFIX}margin"

#: Images shown of each entry, as in LPD's figure.
MOST_IMAGES = 200


@dataclass(frozen=True)
class Margins:
    """The bounds of one entry.

    Attributes:
        line: the entry.
        members: how many members the images were chosen by.
        values: an image each, in the order of the image set; NaN where there is no bound.
    """

    line: Line
    members: int
    values: npt.NDArray[np.float64]

    @property
    def above(self) -> int:
        """How many are above zero, which is what certifies an image."""
        return int((self.values > 0).sum())

    @property
    def median(self) -> float:
        """The median bound of those that are known; NaN where none is."""
        known = self.values[~np.isnan(self.values)]
        return float(np.median(known)) if known.size else float("nan")


def margins(board: Board) -> tuple[Margins, ...]:
    """The bounds of every entry of an ensemble whose members are on the board too, each alone, best entry first.

    A member is there as the aggregation `single` of the same ensemble, under any certifier: its clean predictions
    choose the images. Boards of more than one radius have none, since their bounds are of different radii.
    """
    if len(board.radii) != 1 or not board.radii[0]:
        return ()
    members: dict[str, dict[int, Line]] = {}
    for line in board.ranked:
        if line.entry.aggregation == "single":
            number = line.entry.details.get("aggregation", {}).get("member", 0)
            members.setdefault(line.entry.ensemble, {})[number] = line
    found = []
    for line in board.ranked:
        own = members.get(line.entry.ensemble, {})
        if line.entry.aggregation == "single" or not own or MARGIN not in line.entry.rows:
            continue
        right = set.intersection(*(_right(judge) for judge in (line, *own.values())))
        shown = line.entry.rows[line.entry.rows["image_id"].isin(right)]
        values = shown[MARGIN].to_numpy(dtype=np.float64)[:MOST_IMAGES]
        found.append(Margins(line, len(own), values))
    return tuple(found)


def _right(line: Line) -> set[int]:
    """The images whose clean prediction is right."""
    rows = line.entry.rows
    return set(rows["image_id"][rows["clean_prediction"] == rows["label"]])
