"""`certbench publish` and `certbench pages`: boards with their rows, and the pages that are made from these."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bench.endings import CHECK_FAILED, NOTHING_MEASURED, UNFINISHED, find_manifest, stop, tell

_PUBLISHED = Path("leaderboards/published")


def publish(
    stored: Annotated[
        str, typer.Argument(metavar="RUN", help="A run: its name, or the path of its run.json, published or not.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the store.")] = Path("results"),
    to: Annotated[Path, typer.Option(help="Folder of the published boards.")] = _PUBLISHED,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Publish small pictures of the images, up to 1000.")
    ] = True,
) -> None:
    """Publish a board with its rows, so that anybody can make its pages again without computing.

    Rows, audits, checks of the certifiers, logs of the trainings and pictures of the images go to `TO/<run>/` in few
    small files, each named by its digest, beside the board as Markdown, JSON, CSV and SVG. Given the run.json of a
    published folder, that folder is written anew. `TO/reproduced.md` follows: tables of papers beside published boards.

    Examples:

        certbench publish quickstart

        certbench publish elsewhere/runs/my-spec/run.json --to boards

        certbench publish leaderboards/published/quickstart/run.json
    """
    from leaderboards import BoardError, StoredDataError, read_run
    from leaderboards.published import is_published, read_published, write_published
    from leaderboards.reproduction_text import write_reproductions

    manifest = find_manifest(stored, output)
    try:
        run = read_run(manifest)  # before anything else: is it one, and whole?
        if is_published(manifest):
            folder = manifest.parent
            known = read_published(folder)
            logs, trained, sheet = known.logs, known.trained or {}, known.pictures if pictures else None
            files = write_published(manifest, folder, logs=logs, trained=trained, pictures=sheet)
        else:
            from bench.publishing import pictures_of, training_logs
            from bench.store import Store

            document = json.loads(manifest.read_text(encoding="utf-8"))
            folder = to / run.name
            found, named = training_logs(document, Store(manifest.resolve().parent.parent.parent))
            sheet, why = pictures_of(document) if pictures else (None, "")
            if why:
                tell(f"No pictures: {why}.")
            files = write_published(manifest, folder, logs=found, trained=named, pictures=sheet)
        if reproduced := write_reproductions(folder.parent):
            files |= {"reproduced": reproduced}
    except (BoardError, StoredDataError) as error:
        stop(CHECK_FAILED, error)
    except OSError as error:
        stop(UNFINISHED, f"Cannot publish the board: {error}. Free some space and run the same command.")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for name, path in files.items():
        typer.echo(f"{name:12} {path}")
    typer.echo(
        f"{folder}: {size / 1e6:.1f} MB, to be committed, or kept elsewhere with --to. Its page: certbench pages."
    )


def pages(
    published: Annotated[Path, typer.Option(help="Folder of the published boards.")] = _PUBLISHED,
    output: Annotated[Path, typer.Option(help="Folder of the pages.")] = Path("results/pages"),
) -> None:
    """Make a page of every published board, and an index of them, from their rows; nothing is computed anew.

    Each page is one file that loads nothing. Exit code 1: a published file was altered or is missing; 4: there is no
    published board.

    Examples:

        certbench pages

        certbench pages --published boards --output site
    """
    from leaderboards import BoardError, StoredDataError
    from leaderboards.site import write_site

    try:
        files = write_site(published, output)
    except (BoardError, StoredDataError) as error:
        stop(CHECK_FAILED, error)
    except OSError as error:
        stop(UNFINISHED, f"Cannot write the pages: {error}. Free some space and run the same command.")
    if len(files) < 2:
        stop(NOTHING_MEASURED, f"No published board in {published}. Publish one: certbench publish RUN.")
    for path in files:
        typer.echo(f"{path.stat().st_size / 1e6:5.2f} MB  {path}")
