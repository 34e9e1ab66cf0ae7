"""What a board says to readers of entries that were read from published logs."""

from leaderboards.board import Board


def reading_of_imported(board: Board) -> list[str]:
    """What published entries are and where each comes from, on boards that have any."""
    imported = [line.entry for line in board.lines if line.entry.imported]
    if not imported:
        return []
    rounding = dict.fromkeys(str(entry.details.get("rounding", "")) for entry in imported)
    return [
        "Published, not verified here: read from a log of others. Predictions, radii, alpha and times are theirs, on "
        "their machine; a dash is what the log does not tell.",
        *(f"Radii {words}." for words in rounding if words),
        *(f"Source of {entry.name}: {entry.source or 'not told'}" for entry in imported),
    ]
