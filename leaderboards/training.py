"""What a board shows of training: diagnostics of the ensembles, and searches of hyper-parameters."""

from collections.abc import Mapping
from typing import Any

from leaderboards.board import Board
from leaderboards.radii import format_radius


def diagnostic_names(board: Board) -> list[str]:
    """The names of the diagnostics that any entry has, in the order in which they were stored."""
    return list(dict.fromkeys(name for entry in board.diagnosed.values() for name in entry.diagnostics))


def searches(board: Board) -> dict[str, Mapping[str, Any]]:
    """How hyper-parameters were chosen on validation images, by ensemble: candidates with scores, best first."""
    found: dict[str, Mapping[str, Any]] = {}
    for line in board.lines:
        search = line.entry.details.get("search")
        if search:
            # Runs of before searches had radii of their own were scored at those of the board.
            radii = {"radii": [format_radius(radius) for radius in board.radii]}
            found.setdefault(line.entry.ensemble, {**radii, **search})
    return found
