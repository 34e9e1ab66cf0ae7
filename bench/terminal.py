"""A board as a table for the terminal: the short form; the published files have all columns."""

from rich.table import Table
from rich.text import Text

from leaderboards import Board, Line, format_radius
from leaderboards.badges import badge_text, groups
from leaderboards.escaping import visible
from leaderboards.marks import state
from leaderboards.numerals import percent, quantity, radius, rank


def board_table(board: Board) -> Table:
    """Rank, entry, mean certified accuracy and that at each radius in percent, clean accuracy, ACR and cost."""
    table = Table(title=_text(board.title), title_justify="left", caption_justify="left")
    table.caption = _text(
        f"{board.images} {board.split} images of {board.dataset}; certified accuracy in % at {board.norm} radius r. "
        + board.ranking
    )
    columns = (
        "#",
        "entry",
        "mean",
        *(f"r={format_radius(item)}" for item in board.radii),
        "clean",
        "ACR",
        "s/image",
        "checked",
    )
    for name in columns:
        table.add_column(name, justify="left" if name in ("entry", "checked") else "right", overflow="fold")
    for group in groups(board):
        if group.heading:
            table.add_section()
            table.add_row("", Text(group.heading, "bold"), *[""] * (len(columns) - 2))
        for line in group.lines:
            table.add_row(*_cells(line, len(board.radii)), _text(badge_text(line.entry)))
    if board.unranked:
        table.add_section()
    for line in board.unranked:
        table.add_row(*_cells(line, len(board.radii)), _text(badge_text(line.entry)))
    return table


def _text(words: str) -> Text:
    # A str would be read as markup: brackets, and `:names:` of emoji.
    return Text(visible(words))


def _cells(line: Line, radii: int) -> list[str | Text]:
    scores, mark = line.scores, " (UNSOUND)" if line.entry.audit and line.entry.audit.unsound else ""
    if scores is None:
        return ["-", _text(f"{line.entry.name} ({state(line.entry)})"), *["-"] * (radii + 4)]
    return [
        rank(line.rank),
        _text(line.entry.name + mark),
        percent(scores.mean_certified_accuracy),
        *(percent(share.value) for share in scores.certified),
        "-" if scores.clean is None else percent(scores.clean.value),
        radius(scores.average_radius),
        quantity(scores.seconds),
    ]
