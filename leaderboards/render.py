"""Writing a board into a folder, in every format at once."""

import os
from collections.abc import Callable, Collection
from pathlib import Path

import pandas as pd

from leaderboards.board import Board
from leaderboards.documents import json_document
from leaderboards.tables import latex_table, markdown_page

#: The files that a published folder has: what a repository shows. Pages are made from its rows.
SHOWN = ("board.md", "board.csv", "board.json", "curves.svg", "margins.svg")

# What a spreadsheet computes, or skips before it does.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def publish(board: Board, folder: Path, only: Collection[str] | None = None) -> dict[str, Path]:
    """Write `board.md`, `.csv`, `.json`, `.tex`, `.html`, `curves.svg` and `curves.png` into `folder`.

    Where the board has bounds on margins to show, `margins.svg` and `margins.png` as well.

    `only` leaves out files of other names.

    Everything is rendered before the first file is written, and each file is replaced in one step: a reader
    never sees half a file, and an error leaves the files of the last time.

    Returns:
        The path of each file, by its name; equal boards give equal bytes.

    Raises:
        OSError: the folder cannot be written.
    """
    # Imported here because matplotlib and itables take a second that readers of records need not wait.
    from leaderboards.margins import margins
    from leaderboards.margins_plot import margins_png, margins_svg
    from leaderboards.page import html_page
    from leaderboards.plots import curves_png, curves_svg

    drawn: dict[str, Callable[[], str | bytes]] = {
        "board.html": lambda: html_page(board),
        "board.md": lambda: markdown_page(board),
        "board.csv": lambda: _csv(board.table()),
        "board.json": lambda: json_document(board),
        "board.tex": lambda: latex_table(board),
        "curves.svg": lambda: curves_svg(board),
        "curves.png": lambda: curves_png(board),
    }
    if margins(board):
        drawn |= {"margins.svg": lambda: margins_svg(board), "margins.png": lambda: margins_png(board)}
    made = {name: draw() for name, draw in drawn.items() if only is None or name in only}
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in made}
    for name, content in made.items():
        replace_file(paths[name], content.encode() if isinstance(content, str) else content)
    return paths


def _csv(table: pd.DataFrame) -> str:
    """A table as CSV whose texts no spreadsheet takes for a formula: an apostrophe stands before such a beginning.

    Source: OWASP, CSV Injection.
    """
    texts = table.select_dtypes(exclude="number")
    inert = texts.map(lambda cell: f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell)
    return table.assign(**inert).to_csv(index=False, lineterminator="\n")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step: it is there whole, or as it was before.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
