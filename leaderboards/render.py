"""Writing a board into a folder, in every format at once."""

import os
from pathlib import Path

from leaderboards.board import Board
from leaderboards.documents import json_document
from leaderboards.tables import latex_table, markdown_page


def publish(board: Board, folder: Path) -> dict[str, Path]:
    """Write `board.md`, `.csv`, `.json`, `.tex`, `.html`, `curves.svg` and `curves.png` into `folder`.

    Where the board has bounds on margins to show, `margins.svg` and `margins.png` as well.

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

    texts = {
        "board.html": html_page(board),
        "board.md": markdown_page(board),
        "board.csv": board.table().to_csv(index=False, lineterminator="\n"),
        "board.json": json_document(board),
        "board.tex": latex_table(board),
        "curves.svg": curves_svg(board),
    }
    contents = {name: text.encode() for name, text in texts.items()}
    contents["curves.png"] = curves_png(board)
    if margins(board):
        contents |= {"margins.svg": margins_svg(board).encode(), "margins.png": margins_png(board)}
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in contents}
    for name, content in contents.items():
        _replace(paths[name], content)
    return paths


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
