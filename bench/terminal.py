"""A board as a table for the terminal: the short form; the published files have all columns."""

from rich.markup import escape
from rich.table import Table

from leaderboards import Board, Line, format_radius
from leaderboards.numerals import percent, quantity, radius


def board_table(board: Board) -> Table:
    """Rank, entry, certified accuracy in percent at each radius, clean accuracy, ACR and cost."""
    table = Table(title=escape(board.title), title_justify="left", caption_justify="left")
    table.caption = escape(
        f"{board.images} {board.split} images of {board.dataset}; certified accuracy in % at {board.norm} radius r. "
        + board.ranking
    )
    for name in ("#", "entry", *(f"r={format_radius(item)}" for item in board.radii), "clean", "ACR", "s/image"):
        table.add_column(name, justify="left" if name == "entry" else "right", overflow="fold")
    for line in board.lines:
        table.add_row(*_cells(line, len(board.radii)))
    return table


def _cells(line: Line, radii: int) -> list[str]:
    scores = line.scores
    if scores is None:
        return ["-", escape(f"{line.entry.name} ({line.entry.status})"), *["-"] * (radii + 3)]
    return [
        str(line.rank),
        escape(line.entry.name),
        *(percent(share.value) for share in scores.certified),
        "-" if scores.clean is None else percent(scores.clean.value),
        radius(scores.average_radius),
        quantity(scores.seconds),
    ]
