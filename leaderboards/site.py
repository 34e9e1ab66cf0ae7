"""All pages at once: one of every published board, and an index, each in one file that loads nothing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leaderboards.badges import is_verified
from leaderboards.board import Board, Line
from leaderboards.page import environment, html_page, policy, template_text
from leaderboards.published import read_published
from leaderboards.render import replace_file
from leaderboards.reproduction import Reproduction, Verdict, reproductions_of
from leaderboards.reproduction_text import READING, section_of
from leaderboards.verified_files import StoredDataError

INDEX = "index.html"
REPRODUCED = "reproduced.html"

_FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


@dataclass(frozen=True)
class Card:
    """What the index says of a board: its page, when its newest entry was computed, its verified entries of rank 1."""

    board: Board
    page: str
    date: str
    best: tuple[Line, ...]
    unsound: int


def write_site(published: Path, output: Path) -> list[Path]:
    """Write `index.html`, `<folder>.html` for each published folder, and `reproduced.html` where papers have a board.

    Everything is made before the first file is written.

    Returns:
        The files, the index first.

    Raises:
        StoredDataError: a published file is missing or was altered, or a folder has no name for a page.
        BoardError: entries of a folder do not belong on one board.
        OSError: the pages cannot be written.
    """
    cards, pages, without = [], {}, []
    boards: dict[str, Board] = {}
    for folder in sorted(path for path in published.glob("*") if path.is_dir()):
        if not (folder / "run.json").is_file():
            # A baseline of the gate is kept as a store, and is no board.
            without += [folder.name] if (folder / "board.json").is_file() else []
            continue
        page = f"{folder.name}.html"
        if not _FILE_NAME.match(folder.name) or page in (INDEX, REPRODUCED):
            raise StoredDataError(
                f"{folder}: the name of a published folder becomes that of its page, so it has letters, digits, '.', "
                "'_' and '-' only, and is not 'index' or 'reproduced'. Rename the folder."
            )
        found = read_published(folder)
        boards[folder.name] = found.board
        pages[page] = html_page(found.board, found, home=INDEX)
        cards.append(card(found.board, page))
    reproductions = reproductions_of(boards)
    if reproductions:
        pages[REPRODUCED] = reproduced_page(reproductions)
    files = [output / INDEX]
    contents = {INDEX: index_page(cards, without, reproductions), **pages}
    output.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        replace_file(output / name, text.encode())
    files += [output / name for name in pages]
    return files


def card(board: Board, page: str) -> Card:
    """What the index says of a board."""
    # ISO times of one zone order as text; a time that is none is left out.
    times = [str(line.entry.provenance.get("time", "")) for line in board.lines]
    best = tuple(line for line in board.ranked if line.rank == 1 and is_verified(line.entry))
    return Card(
        board=board,
        page=page,
        date=max(times, default="")[:10],
        best=best,
        unsound=sum(line.entry.audit is not None and line.entry.audit.unsound for line in board.lines),
    )


def index_page(cards: Sequence[Card], without: Sequence[str] = (), reproductions: Sequence[Reproduction] = ()) -> str:
    """The index as HTML text; `without` names folders that have no rows to make a page from."""
    counts = [(verdict, sum(each.count(verdict) for each in reproductions)) for verdict in Verdict]
    return (
        environment()
        .get_template("index.html")
        .render(
            cards=cards,
            without=without,
            reproduced=REPRODUCED if reproductions else "",
            papers=[each.paper for each in reproductions],
            counts=counts,
            policy=policy(""),
            style=template_text("board.css"),
        )
    )


def reproduced_page(reproductions: Sequence[Reproduction]) -> str:
    """What papers report beside what the boards show, as HTML text."""
    return (
        environment()
        .get_template("reproduced.html")
        .render(
            sections=[section_of(each) for each in reproductions],
            reading=READING,
            home=INDEX,
            policy=policy(""),
            style=template_text("board.css"),
        )
    )
