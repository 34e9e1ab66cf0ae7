"""How sure a board is, gathered for its page: nothing is computed here that `board.json` does not say."""

from dataclasses import dataclass

from leaderboards.board import Board, Line
from leaderboards.envelope import Envelope, envelopes
from leaderboards.pareto import front_of
from leaderboards.standings import Standing, standings
from leaderboards.training_seeds import Family, families


@dataclass(frozen=True)
class PageStatistics:
    """What a page shows; each part is empty where there is nothing to show.

    Attributes:
        standings: by the names of the entries, in the order of the board; empty where fewer than two are ranked.
        families: entries that differ in their training seed alone, together.
        front: the lines on the front of accuracy against time; empty where one line is the whole front.
        envelopes: over sigma.
    """

    standings: dict[str, Standing]
    families: tuple[Family, ...]
    front: tuple[Line, ...]
    envelopes: tuple[Envelope, ...]


def page_statistics(board: Board) -> PageStatistics:
    """The statistics of a board that its page shows."""
    found, front = standings(board), front_of(board)
    return PageStatistics(
        standings={standing.line.entry.name: standing for standing in found} if len(found) > 1 else {},
        families=families(board),
        front=front if len(front) > 1 else (),
        envelopes=envelopes(board),
    )


def standing_words(standing: Standing) -> str:
    """`best`, `tied` with the best or `behind` it, as far as these images tell."""
    return "best" if not standing.against else "tied" if standing.tied else "behind"


def standing_order(standing: Standing) -> int:
    """A number that sorts by the lower end of the rank's interval, then by the upper one."""
    low, high = standing.rank_interval
    return low * 1_000_000 + high
