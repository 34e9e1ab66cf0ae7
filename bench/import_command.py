"""`certbench import`: published logs as entries that are marked as published, and not verified here."""

import dataclasses
import json
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from bench.board_output import publish_run
from bench.endings import CHECK_FAILED, UNFINISHED, USAGE, find_manifest, stop, tell

if TYPE_CHECKING:
    from bench.import_outcome import Imported
    from bench.import_requests import LogFile, Table

T = TypeVar("T")


class NormName(StrEnum):
    """The norms that radii are in."""

    L1 = "l1"
    L2 = "l2"
    LINF = "linf"


def import_published(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Logs of one table: Cohen-format or DSRS.")],
    source: Annotated[
        list[str] | None, typer.Option(help="Where they come from: an address or a citation. Once, or once a file.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="What the images are of: mnist, cifar10, imagenet, fashion-mnist, or another.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the run that they become.")] = "published",
    title: Annotated[str, typer.Option(help="Title of its board.")] = "",
    entry: Annotated[
        list[str] | None, typer.Option(help="Name on the board, once or once a file; default: the file's.")
    ] = None,
    sigma: Annotated[list[float] | None, typer.Option(help="Of the noise, once or once a file.")] = None,
    n: Annotated[list[int] | None, typer.Option(min=1, help="Samples per image, once or once a file.")] = None,
    alpha: Annotated[
        list[float] | None,
        typer.Option(help="Failure probability per image, once or once a file.", show_default="0.001"),
    ] = None,
    certifier: Annotated[
        list[str] | None, typer.Option(help="The method, once or once a file; default: by the format.")
    ] = None,
    norm: Annotated[NormName | None, typer.Option(help="Norm of the radii.", show_default="l2")] = None,
    split: Annotated[str | None, typer.Option(help="Part of the data set.", show_default="test")] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="How many images a whole log has; default: every k-th of the data set.")
    ] = None,
    radii: Annotated[
        str | None, typer.Option(help="Radii of the board, such as 0,0.25,8/255; default: multiples of 0.25.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A Cohen-format log of the same images: text files of DSRS name no classes.")
    ] = None,
    beside: Annotated[
        str | None, typer.Option(metavar="RUN", help="Show them beside the entries of a stored run, on its images.")
    ] = None,
    first_id: Annotated[
        int, typer.Option(min=0, help="The run's id of the image that logs call 0 (mnist, cifar10: past the training).")
    ] = 0,
    output: Annotated[Path, typer.Option(help="Folder of the store.")] = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print what was imported as JSON.")] = False,
) -> None:
    """Read published logs as entries marked *published, not verified here*, and publish their board.

    Radii are as printed less half a unit of the last digit printed, so that rounding up never certifies. A log with an
    image twice is refused; one that misses images is incomplete, and has no numbers. Exit code 0: ok; 1: stored data
    were altered, or the board does not fit together; 2: bad usage, or a log that cannot be read; 3: an entry is
    incomplete, or the store cannot be written.

    Examples:

        certbench import noise_0.50.tsv --dataset mnist --source https://github.com/jh-jeong/smoothing-consistency

        certbench import s25.tsv s50.tsv s100.tsv --entry DRT --sigma 0.25 --sigma 0.5 --sigma 1 --dataset cifar10
        --source "Yang et al., ICLR 2022" --name drt

        certbench import new-rad-general-gaussian-th-380-0.5-x+-50000-0.0005.txt --labels noise_0.50.tsv
        --dataset mnist --images 1000 --source "Li et al., ICML 2022"

        certbench import noise_0.50.tsv --beside my-run --first-id 60000 --source "Jeong and Shin, NeurIPS 2020"

        certbench board published                      publish the board again
    """
    from bench.importing import import_logs
    from bench.store import Store, StoreError
    from leaderboards import BoardError, LogError, StoredDataError
    from leaderboards.escaping import visible

    base = None if beside is None else find_manifest(beside, output)
    try:
        logs = _logs(files, source, entry, sigma, n, alpha, certifier)
        table = _table(name, title, dataset, split, norm, radii, images, labels, first_id, beside is not None)
        found = import_logs(Store(output), table, logs, base)
    except StoreError as error:
        stop(UNFINISHED, error)
    except FileNotFoundError as error:
        stop(USAGE, f"No file at {error.filename}. Give the paths of the logs.")
    except (LogError, OSError) as error:
        stop(USAGE, error)
    except StoredDataError as error:
        stop(CHECK_FAILED, error)
    except ValueError as error:
        stop(USAGE, error)
    try:
        _publish(found, output / "boards" / name, as_json)
    except (BoardError, StoredDataError) as error:
        stop(CHECK_FAILED, error)
    except OSError as error:
        stop(UNFINISHED, f"Cannot write the board: {error}. Free some space and run the same command.")
    for item in found.entries:
        if item.left_out:
            tell(f"{visible(item.name)}: {item.left_out} images of the log are not the run's, and left out.")
    for item in found.incomplete:
        tell(f"{visible(item.name)}: {item.status}: {item.reason}")
    if found.incomplete:
        raise typer.Exit(UNFINISHED)


def _logs(
    files: Sequence[Path],
    source: Sequence[str] | None,
    entry: Sequence[str] | None,
    sigma: Sequence[float] | None,
    n: Sequence[int] | None,
    alpha: Sequence[float] | None,
    certifier: Sequence[str] | None,
) -> "list[LogFile]":
    """One for each file; names that several would share get their sigma."""
    from bench.import_requests import LogFile

    if not source or not all(text.strip() for text in source):
        raise ValueError("Say where the logs come from: --source with an address or a citation.")
    count = len(files)
    sources, names = _each("--source", source, count), _each("--entry", entry, count)
    sigmas, counts = _each("--sigma", sigma, count), _each("--n", n, count)
    alphas, methods = _each("--alpha", alpha, count), _each("--certifier", certifier, count)
    for value in sigmas:
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--sigma is {value}, not a positive number.")
    plain = [given or path.stem for given, path in zip(names, files, strict=True)]
    return [
        LogFile(
            path=path,
            name=said if sigma is None or plain.count(said) == 1 else f"{said} · sigma {sigma:g}",
            source=str(origin),
            alpha=0.001 if alpha is None else alpha,
            sigma=sigma,
            n=n,
            certifier=method,
        )
        for path, said, origin, sigma, n, alpha, method in zip(
            files, plain, sources, sigmas, counts, alphas, methods, strict=True
        )
    ]


def _each(option: str, given: Sequence[T] | None, count: int) -> "Sequence[T | None]":
    """What was given for each file: the same for all, or one a file."""
    if not given:
        return [None] * count
    if len(given) not in (1, count):
        raise ValueError(
            f"{option} was given {len(given)} times for {count} file{'s' * (count > 1)}: give it once for all of "
            "them, or once a file, in their order."
        )
    return list(given) * (count if len(given) == 1 else 1)


def _table(
    name: str,
    title: str,
    dataset: str | None,
    split: str | None,
    norm: NormName | None,
    radii: str | None,
    images: int | None,
    labels: Path | None,
    first_id: int,
    beside: bool,
) -> "Table":
    from bench.import_requests import Table
    from leaderboards.run_names import RUN_NAME

    if not re.fullmatch(RUN_NAME, name):
        raise ValueError(
            f"--name is {name!r}: use small letters, digits, '.', '_' and '-', and begin with a letter or digit."
        )
    if dataset is None and not beside:
        raise ValueError("Say what the images are of: --dataset mnist, cifar10, imagenet, fashion-mnist, or another.")
    return Table(
        run=name,
        title=title,
        dataset=dataset or "",
        split=split or ("" if beside else "test"),
        norm=norm.value if norm else ("" if beside else "l2"),
        radii=() if radii is None else _radii(radii),
        images=images,
        labels=labels,
        first_id=first_id,
    )


def _radii(written: str) -> tuple[str, ...]:
    """Radii as they are written, with commas between, checked to be numbers that ascend."""
    from leaderboards import parse_radius

    radii = tuple(radius.strip() for radius in written.split(","))
    exact = [parse_radius(radius) for radius in radii]
    if exact != sorted(set(exact)):
        raise ValueError(f"--radii must ascend without repetition, got {written}.")
    return radii


def _publish(found: "Imported", folder: Path, as_json: bool) -> None:
    if not as_json:
        publish_run(found.manifest, folder, as_json=False)
        return
    from leaderboards import build_board, publish, read_run

    files = publish(build_board(read_run(found.manifest)), folder)
    document = {
        "run": found.manifest.parent.name,
        "entries": [dataclasses.asdict(item) for item in found.entries],
        "incomplete": len(found.incomplete),
        "board": str(files["board.html"]),
    }
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
