"""A published run: a folder from which its board and pages are made again without computing anything.

    <folder>/run.json               the run, as stored, with the names of the files below
    <folder>/rows-….parquet         its rows (`leaderboards.packed`); audits-….parquet where there are audits
    <folder>/conformance/….json     the checks of its certifiers
    <folder>/witnesses/<cell>/…     inputs that refute certificates, where an audit found any
    <folder>/training.json          how the members were trained, an epoch a line of each log
    <folder>/images-….png           small pictures of its images, where they are few
    <folder>/findings.md            what held of the claims, where somebody wrote it down
    <folder>/board.md, .json, .csv, curves.svg, margins.svg     the board for readers

The digests that a store puts into names of files stay; `run.json` names every file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from leaderboards.audits import AUDIT_SCHEMA
from leaderboards.badges import badge_of
from leaderboards.board import Board, build_board
from leaderboards.findings import FINDINGS
from leaderboards.packed import is_packed_file, pack
from leaderboards.pictures import Pictures, is_sheet, read_pictures
from leaderboards.records import ROW_SCHEMA, Run, cells_of, read_run
from leaderboards.render import SHOWN, publish, replace_file
from leaderboards.verified_files import StoredDataError, cell_folder

_CHECKS = "conformance"

#: Why a folder is refused: what does not lie in it cannot be shown.
_AGAIN = "Publish the run again: certbench publish RUN."


@dataclass(frozen=True)
class Log:
    """One training of members: a list a measure, an epoch an item."""

    label: str
    epochs: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Published:
    """What pages are made from.

    Attributes:
        run: the run with its rows.
        board: its board.
        logs: the trainings.
        trained: for each entry by its name, which of `logs` made its members.
        pictures: of the images; None where there are none.
        findings: what held, Markdown; empty where nobody wrote it.
    """

    run: Run
    board: Board
    logs: tuple[Log, ...] = ()
    trained: Mapping[str, tuple[int, ...]] | None = None
    pictures: Pictures | None = None
    findings: str = ""


def write_published(
    manifest: Path,
    folder: Path,
    *,
    logs: Sequence[Log] = (),
    trained: Mapping[str, Sequence[int]] | None = None,
    pictures: Pictures | None = None,
) -> dict[str, Path]:
    """Publish a stored run: everything that its pages are made from, and its board.

    An error leaves the folder as it was.

    Args:
        manifest: the `run.json` of the run.
        folder: where to; files of an earlier time are replaced, and those that are not ours stay.
        logs: how its members were trained.
        trained: which of the logs are an entry's, by the entry's name.
        pictures: of its images.

    Returns:
        The files of the board by their names.

    Raises:
        StoredDataError: a stored file was altered, or would not come back as it was.
        BoardError: the entries do not belong on one board.
        OSError: the folder cannot be written.
    """
    board = build_board(read_run(manifest))
    document = json.loads(manifest.read_text(encoding="utf-8"))
    root, cells = cells_of(manifest, document)
    keys = {str(entry["key"]): entry["folder"] for entry in document["entries"] if entry["folder"]}
    rows = {key: cells.rows(cell) for key, cell in keys.items()}
    audits = {key: found for key, cell in keys.items() if (found := cells.audits(cell)) is not None}
    packed = {"rows": pack("rows", rows, ROW_SCHEMA), "audits": pack("audits", audits, AUDIT_SCHEMA)}
    document["packed"] = {kind: sorted(files) for kind, files in packed.items()}
    document["pictures"] = pictures.document() if pictures else None
    contents = {name: content for files in packed.values() for name, content in files.items()}
    contents |= _checks(root / _CHECKS, document)
    for key, cell in keys.items():
        contents |= _witnesses(root / cell, f"witnesses/{Path(cell_folder(key)).name}")
    if pictures:
        contents[pictures.name] = pictures.sheet
    known = {"logs": [{"label": log.label, "epochs": list(log.epochs)} for log in logs], "entries": trained or {}}
    contents["training.json"] = _json(known)
    contents["run.json"] = _json(document)  # last, as it names others
    folder.mkdir(parents=True, exist_ok=True)
    # A full disk is met beside the files of the last time. These are replaced only when all is written and gives the
    # board: by renaming, which needs no space.
    with TemporaryDirectory(dir=folder, prefix=".publishing-") as made:
        staged = Path(made)
        for name, content in contents.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            replace_file(staged / name, content)
        if build_board(read_run(staged / "run.json")).table().to_csv() != board.table().to_csv():
            raise StoredDataError(f"{folder}: the board of what was published is not that of {manifest}. {_AGAIN}")
        shown = publish(board, staged, only=SHOWN)
        for name in (*contents, *shown):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).replace(folder / name)
    named = [path for path in folder.iterdir() if is_packed_file(path) or is_sheet(path)]
    for path in {*named, *(folder / _CHECKS).glob("*.json")} - {folder / name for name in contents}:
        path.unlink()
    return {name: folder / name for name in shown}


def read_published(folder: Path) -> Published:
    """What a published folder holds, every digest checked.

    Raises:
        FileNotFoundError: there is no `run.json`.
        StoredDataError: a file is missing, was altered or is no text.
        BoardError: the entries do not belong on one board.
    """
    run = read_run(folder / "run.json")
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if "packed" not in document:
        raise StoredDataError(f"{folder}: run.json is that of a store, without packed rows. {_AGAIN}")
    try:
        training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        logs = tuple(Log(str(log["label"]), tuple(log["epochs"])) for log in training["logs"])
        trained = {str(name): tuple(map(int, numbers)) for name, numbers in training["entries"].items()}
        if any(not 0 <= number < len(logs) for numbers in trained.values() for number in numbers):
            raise ValueError("an entry names a log that is not there")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoredDataError(f"{folder / 'training.json'}: not the logs of trainings ({error}). {_AGAIN}") from error
    pictures = read_pictures(folder, document.get("pictures"))
    return Published(run, build_board(run), logs, trained, pictures, _findings(folder / FINDINGS))


def is_published(manifest: Path) -> bool:
    """Whether a `run.json` is that of a published folder, and not of a store.

    Raises:
        StoredDataError: it is neither.
    """
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoredDataError(f"{manifest}: not the description of a run ({error!r}).") from error
    return isinstance(document, dict) and "packed" in document


def _findings(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise StoredDataError(
            f"{path}: not a text in UTF-8 ({error}). Write it again, or remove it: a board needs no findings."
        ) from error


def _checks(source: Path, document: Mapping[str, Any]) -> dict[str, bytes]:
    """The checks of the run's certifiers, and no others."""
    wanted = [entry.get("details", {}).get("certifier") for entry in document["entries"]]
    chosen: dict[str, bytes] = {}
    for path in sorted(source.glob("*.json")):
        try:
            if badge_of(json.loads(path.read_text(encoding="utf-8"))).certifier in wanted:
                chosen[f"{_CHECKS}/{path.name}"] = path.read_bytes()
        except (ValueError, OSError):
            continue  # not checked, then, as everywhere
    return chosen


def _witnesses(source: Path, target: str) -> dict[str, bytes]:
    return {f"{target}/{path.name}": path.read_bytes() for path in sorted(source.glob("witness-*.safetensors"))}


def _json(document: Mapping[str, Any]) -> bytes:
    return (
        json.dumps(document, indent=None, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
    ).encode()
