"""The Pareto front: entries that no other beats in certified accuracy without costing more."""

import numpy as np
import numpy.typing as npt

from leaderboards.badges import leading
from leaderboards.board import Board, Line

#: What a front says, for readers.
READING = "Entries that no other beats in mean certified accuracy at the same or less time an image."


def pareto_front(accuracies: npt.ArrayLike, costs: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which of several points are on the front: bool[points].

    A point is off it where another is at least as accurate and at most as dear, and better in one of the two. Equal
    points are on it together.

    Args:
        accuracies: float64[points], more is better.
        costs: float64[points], less is better.
    """
    accuracy, cost = np.asarray(accuracies, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    as_good = (accuracy[:, None] >= accuracy) & (cost[:, None] <= cost)
    better = (accuracy[:, None] > accuracy) | (cost[:, None] < cost)
    return np.asarray(~(as_good & better).any(axis=0), dtype=np.bool_)


def front_of(board: Board, position: int | None = None) -> tuple[Line, ...]:
    """The ranked lines on the front of certified accuracy against seconds an image, the cheapest first.

    Published logs are not on it, nor are unverified entries where others are verified.

    Seconds are those of the machine of each run: a front means something where all entries were measured on one.
    What was found unsound is on no front.

    Args:
        board: the board.
        position: which radius of the board; None takes the mean over all, by which it is ranked.
    """
    lines = leading(board)
    points = [
        (
            line.scores.mean_certified_accuracy if position is None else line.scores.certified[position].value,
            line.scores.seconds,
        )
        for line in lines
        if line.scores
    ]
    if not points:
        return ()
    accuracies, costs = zip(*points, strict=True)
    kept = [line for line, on in zip(lines, pareto_front(accuracies, costs), strict=True) if on]
    return tuple(sorted(kept, key=lambda line: line.scores.seconds if line.scores else 0.0))
