"""The stored form of results: what one row holds, and how files of rows and runs are read and verified.

A *run* is one spec that was executed; `runs/<name>/run.json` lists its entries. An *entry* is one line of a
board (an ensemble, an aggregation, a certifier, a threat); its rows, one an image, lie in the folder of its
*cell*, `cells/<key>/`, as Parquet files. The name of such a file ends in the digest of its bytes, so that a
changed or truncated file cannot be mistaken for a stored one.

A run that was published has its rows packed into few files beside its `run.json` (`leaderboards.packed`).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from leaderboards.audits import AUDIT_SCHEMA, Audit, attack_radii, audited, checked_audits, read_audits
from leaderboards.badges import Badge, badge_for, read_badges
from leaderboards.packed import unpack
from leaderboards.run_names import is_run_name
from leaderboards.verified_files import StoredDataError, cell_folder, digest_of, read_verified


def _column(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"doc": doc})


#: Raised whenever a stored file of an older program can no longer be read as it was meant.
SCHEMA_VERSION = 1

#: One row: one image under one certifier. Columns named `evidence_*`, one for each number the radius was
#: computed from, follow these and differ between certifiers.
ROW_SCHEMA = pa.schema(
    [
        _column("image_id", pa.int64(), "row number in the source data set"),
        _column("label", pa.int64(), "true class"),
        _column("clean_prediction", pa.int64(), "class that the classifier itself gives the clean image"),
        _column("prediction", pa.int64(), "class the certificate speaks of; -1 abstains"),
        _column("verdict", pa.string(), "one of VERDICTS"),
        _column("radius", pa.float64(), "certified radius in input units, rounded down; 0 unless CERTIFIED"),
        _column("failure_probability", pa.float64(), "0 for a proof, else alpha of this image"),
        _column("forward_passes", pa.int64(), "inputs sent through a member, summed over members; -1: not known"),
        _column("bound_passes", pa.int64(), "bound computations, summed over members; -1: not known"),
        _column("seconds", pa.float64(), "wall time; a pass of several entries is shared equally; -1: not known"),
        _column("reason", pa.string(), "why there is no certificate; empty where there is one"),
    ]
)

#: What the names of the columns of evidence begin with.
EVIDENCE_PREFIX = "evidence_"

#: The column of evidence of rows that were read from a published log: the radius as it is printed there.
PRINTED_RADIUS = f"{EVIDENCE_PREFIX}printed_radius"

#: Columns that are measured, not computed: two runs of the same cell may differ in these and in no other.
MEASURED_COLUMNS = ("seconds",)

#: What a row's `verdict` may be.
VERDICTS = ("CERTIFIED", "UNKNOWN", "ABSTAINED", "FALSIFIED", "UNSUPPORTED", "TIMEOUT", "ERROR")

#: Verdicts that another try, or another machine, may change: shown, but never taken for stored.
FAILURES = ("ERROR", "TIMEOUT")

#: What an entry's `status` may be: all rows stored; some rows ERROR; rows missing; not for this certifier.
STATUSES = ("complete", "failed", "incomplete", "unsupported")

_BLOCK_NAME = re.compile(r"^(?P<kind>rows|errors)-(?P<first>\d+)-(?P<digest>[0-9a-f]{32})\.parquet$")


@dataclass(frozen=True)
class Entry:
    """One line of a board: its identity, its state and its rows.

    `certifier` is the registered name of the method, whatever the spec calls it (`details["labels"]`). Rows whose
    certificates were refuted by an audit are FALSIFIED here; the stored ones are as they were.

    `rows` has the columns of `ROW_SCHEMA` and any `evidence_*`, sorted as the image set was; it is empty
    where the status is `unsupported`. `images` is the size of the image set that the entry was asked for, and
    `attack_radii` what `leaderboards.audits.attack_radii` says of its rows. `source` is where the rows of a published
    log come from, and empty where they were computed.
    """

    name: str
    dataset: str
    split: str
    images_digest: str
    images: int
    norm: str
    ensemble: str
    aggregation: str
    certifier: str
    guarantee: str
    status: str
    rows: pd.DataFrame
    key: str = ""
    reason: str = ""
    schema: int = SCHEMA_VERSION
    parameters: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    conformance: Badge | None = None
    audit: Audit | None = None
    attack_radii: Mapping[int, float] = field(default_factory=dict)
    source: str = ""

    @property
    def imported(self) -> bool:
        """Whether the rows are what others published: nothing here has computed or checked them.

        The rows themselves say it, too, so that no description of a run can hide it.
        """
        return bool(self.source) or PRINTED_RADIUS in self.rows


@dataclass(frozen=True)
class Cells:
    """Where the rows and audits of cells come from, by the folder of the cell; audits are None where there are none."""

    rows: Callable[[str], pd.DataFrame]
    audits: Callable[[str], pd.DataFrame | None]


@dataclass(frozen=True)
class Run:
    """One executed spec: its title, its radii as written, its text, its entries in the order of the spec."""

    name: str
    title: str
    description: str
    radii: tuple[str, ...]
    spec_text: str
    entries: tuple[Entry, ...]


def block_name(content: bytes, first_image: int, *, failed: bool = False) -> str:
    """The name of a file of rows: `rows-<first image>-<digest of its bytes>.parquet`.

    `failed` names the file `errors-...`: it holds at least one ERROR row, is shown, and is computed again.
    """
    return f"{'errors' if failed else 'rows'}-{first_image:06d}-{digest_of(content)}.parquet"


def is_block(path: Path) -> bool:
    """Whether a file's name is that of a file of finished rows (not of failed ones)."""
    match = _BLOCK_NAME.match(path.name)
    return match is not None and match["kind"] == "rows"


def is_failed_block(path: Path) -> bool:
    """Whether a file's name is that of a file with ERROR rows."""
    match = _BLOCK_NAME.match(path.name)
    return match is not None and match["kind"] == "errors"


def read_block(path: Path) -> pd.DataFrame:
    """The rows of one file, verified: digest of its bytes, page checksums, columns.

    Raises:
        StoredDataError: the file was truncated or altered, lacks a column, or is that of another cell.
    """
    match = _BLOCK_NAME.match(path.name)
    table = read_verified(path, match["digest"] if match else None, ROW_SCHEMA)
    rows: pd.DataFrame = table.to_pandas()
    return rows


def no_rows() -> pd.DataFrame:
    """A frame without rows that has the columns of `ROW_SCHEMA`."""
    rows: pd.DataFrame = ROW_SCHEMA.empty_table().to_pandas()
    return rows


def read_rows(folder: Path) -> pd.DataFrame:
    """All rows of a cell: the finished ones, and failed ones where an image has no finished row.

    Raises:
        StoredDataError: a file was altered, or an image has two finished rows.
    """
    finished = [read_block(path) for path in sorted(folder.glob("rows-*.parquet")) if is_block(path)]
    failed = [read_block(path) for path in sorted(folder.glob("errors-*.parquet")) if is_failed_block(path)]
    frames = [frame for frame in (*finished, *failed) if len(frame)]
    if not frames:
        return no_rows()
    if finished and pd.concat(finished)["image_id"].duplicated().any():
        raise StoredDataError(f"{folder}: an image has two stored rows. Remove the folder and run again.")
    return pd.concat(frames, ignore_index=True).drop_duplicates("image_id", keep="first", ignore_index=True)


def read_run(manifest: Path) -> Run:
    """A run with the rows of all its entries, from `runs/<name>/run.json` of a store, or from a published `run.json`.

    Raises:
        FileNotFoundError: there is no such file.
        StoredDataError: it is not a run of this schema, its name is none of a folder, a file of rows was altered, or an
            entry names the rows of another cell than its key's.
    """
    try:
        document = json.loads(manifest.read_text(encoding="utf-8"))
        found = document["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoredDataError(f"{manifest}: not the description of a run ({error!r}).") from error
    if found != SCHEMA_VERSION:
        raise StoredDataError(
            f"{manifest}: written with schema {found}, this program reads schema {SCHEMA_VERSION}. Run the spec again."
        )
    try:
        if not is_run_name(name := document["name"]):
            raise StoredDataError(
                f"{manifest}: the run is named {name!r}, which may lead out of the folder that it is put in. A name "
                "has letters, digits, '.', '_' and '-', at most 250, and begins with a letter or digit. The run's "
                "description was altered; run the spec again to write a new one."
            )
        root, cells = cells_of(manifest, document)
        badges = read_badges(root / "conformance")
        return Run(
            name=name,
            title=document["title"],
            description=document["description"],
            radii=tuple(document["radii"]),
            spec_text=document["spec_text"],
            entries=tuple(_read_entry(cells, item, badges) for item in document["entries"]),
        )
    except (KeyError, TypeError) as error:
        raise StoredDataError(f"{manifest}: not the description of a run ({error!r}).") from error


def cells_of(manifest: Path, document: Mapping[str, Any]) -> tuple[Path, Cells]:
    """The root of the store, or the published folder, that a `run.json` belongs to, and its cells.

    Raises:
        StoredDataError: a packed file is missing or was altered.
        KeyError: the description of a published run does not name its files.
    """
    if "packed" not in document:
        root = manifest.parent.parent.parent
        return root, Cells(lambda folder: read_rows(root / folder), lambda folder: read_audits(root / folder))
    packed, folder = document["packed"], manifest.parent
    rows = unpack("rows", folder, packed["rows"], ROW_SCHEMA)
    audits = unpack("audits", folder, packed["audits"], AUDIT_SCHEMA)
    for cell, found in audits.items():
        checked_audits(found, folder / cell)
    return folder, Cells(lambda cell: rows.get(cell, no_rows()), audits.get)


def _read_entry(cells: Cells, item: Mapping[str, Any], badges: Sequence[Badge]) -> Entry:
    fields = dict(item)
    # Nothing in the manifest can say that a certifier was checked: only the stored checks can.
    fields["conformance"] = badge_for(fields.get("details", {}).get("certifier"), badges)
    folder, image_ids = fields.pop("folder"), fields.pop("image_ids")
    # What a key stands for decides its rows: those of another cell are of another certifier, ensemble or radius.
    if folder and folder != cell_folder(key := str(fields.get("key", ""))):
        raise StoredDataError(
            f"Entry {fields.get('name')!r} takes its rows from {folder!r}, but its key {key[:32]!r} has the folder "
            f"{cell_folder(key)!r}. The run's description was altered; run the spec again to write a new one."
        )
    rows = cells.rows(folder) if folder else no_rows()
    positions = {image: position for position, image in enumerate(image_ids)}
    rows = rows[rows["image_id"].isin(positions)]
    order = rows["image_id"].map(positions).argsort(kind="stable")
    # Nothing in the manifest can say that an entry was audited: only the files beside its rows can.
    for told in ("audit", "attack_radii"):
        fields.pop(told, None)
    rows, audits = rows.iloc[order].reset_index(drop=True), cells.audits(folder) if folder else None
    nearest = attack_radii(rows, audits)
    rows, audit = audited(rows, audits)
    warnings = (*audit.warnings(), *fields.pop("warnings", ())) if audit else tuple(fields.pop("warnings", ()))
    entry = Entry(rows=rows, warnings=warnings, audit=audit, attack_radii=nearest, **fields)
    # A check of a certifier says nothing about what others computed with theirs.
    return replace(entry, conformance=None) if entry.imported else entry
