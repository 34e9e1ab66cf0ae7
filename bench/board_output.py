"""Publishing the board of a run: its files, and what is printed of it."""

from pathlib import Path

import typer

from bench.endings import stdout


def publish_run(manifest: Path, folder: Path, as_json: bool) -> None:
    """Write the board of a run into `folder`, and print its table and files, or its JSON document.

    Raises:
        BoardError: the entries do not belong on one board.
        StoredDataError: something stored was altered.
        OSError: the folder cannot be written.
    """
    from bench.terminal import board_table
    from leaderboards import build_board, publish, read_run

    built = build_board(read_run(manifest))
    files = publish(built, folder)
    if as_json:
        typer.echo(files["board.json"].read_text(encoding="utf-8"), nl=False)
        return
    stdout().print(board_table(built))
    for name, path in files.items():
        typer.echo(f"{name:12} {path}")
