"""Published logs as entries of a run, marked as such: what `certbench import` does.

The rows of a log go to a cell whose key is the digest of its bytes and of how they were read. Nothing else of the
store is touched; a run of that name that was not imported is refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.import_outcome import Imported, ImportedEntry
from bench.import_reading import ReadLog, check_labels, read_log, restricted
from bench.import_requests import LogFile, Table
from bench.keys import digest
from bench.store import Store
from leaderboards import LogError, StoredDataError, format_radius, parse_radius, read_rows, read_run
from leaderboards.published_images import ImageSet, image_set
from leaderboards.published_logs import labels_in
from leaderboards.records import SCHEMA_VERSION, Run
from leaderboards.verified_files import cell_folder

#: Radii of a board that names none: multiples of this, as in papers on smoothing.
STEP = Fraction(1, 4)

_MOST_RADII = 40


def import_logs(store: Store, table: Table, files: Sequence[LogFile], beside: Path | None = None) -> Imported:
    """Turn published logs into a run of entries that are marked as published.

    With `beside`, the description of a run, its entries come first and theirs are the images: rows of other images are
    left out, and the labels of all others must be the run's.

    Raises:
        FileNotFoundError: there is no such file.
        LogError: a log cannot be read, or two logs, or a log and the run beside, contradict each other.
        ValueError: something that was told of the logs cannot be.
        StoredDataError: what is stored of the run beside, or of an earlier import, was altered.
        StoreError: the store is in use, full or not writable.
    """
    labels = None if table.labels is None else labels_in(table.labels)
    known = {} if labels is None else {i + table.first_id: (str(table.labels), label) for i, label in labels.items()}
    if beside is None:
        base, base_entries = None, []
        read = [read_log(given, table, labels) for given in files]
        images = _image_set(table, read)
        subject = _subject(table, images)
    else:
        base, base_entries = read_run(beside), _entries_of(beside, store, table.run)
        subject = _subject_of_run(base_entries, table)
        images = ImageSet(tuple(subject["image_ids"]), int(subject["images"]))
        table = replace(table, norm=subject["norm"])
        read = [restricted(read_log(given, table, labels), images) for given in files]
        known |= _labels_of(base)
    check_labels(read, known)
    items = [_entry(item, images, subject) for item in read]
    entries = [*base_entries, *items]
    _refuse_same_names(entries)
    document = {
        "schema": SCHEMA_VERSION,
        "name": table.run,
        "title": table.title or table.run,
        "description": _description(base, len(items)),
        "radii": list(table.radii) or (list(base.radii) if base else _default_radii(read)),
        "spec_text": base.spec_text if base else "",
        "imported": True,
        "entries": entries,
    }
    manifest = store.manifest(table.run)
    _refuse_other_runs(manifest)
    with store.locked():
        for item, entry in zip(read, items, strict=True):
            _store(store, item, entry)
        store.write_json(manifest, document)
    return Imported(manifest, tuple(_told(item, entry) for item, entry in zip(read, items, strict=True)))


def _image_set(table: Table, read: Sequence[ReadLog]) -> ImageSet:
    found = {int(image) - table.first_id for item in read for image in item.rows["image_id"]}
    try:
        images = image_set(found, table.dataset, table.images)
    except ValueError as error:
        raise LogError(f"{', '.join(str(item.given.path) for item in read)}: {error}") from None
    return ImageSet(tuple(image + table.first_id for image in images.ids), images.images)


def _subject(table: Table, images: ImageSet) -> dict[str, Any]:
    """What all entries of a board share. No pixels are here: images are those of that name."""
    named = {"published": table.dataset, "split": table.split, "image_ids": list(images.ids), "images": images.images}
    return {
        "dataset": table.dataset,
        "split": table.split,
        "images_digest": digest(named),
        "images": images.images,
        "image_ids": list(images.ids),
        "norm": table.norm,
    }


def _subject_of_run(entries: Sequence[Mapping[str, Any]], table: Table) -> dict[str, Any]:
    """What the entries of the run share that logs are put beside, and what was told of the logs does not contradict."""
    subject = {name: entries[0][name] for name in ("dataset", "split", "images_digest", "images", "image_ids", "norm")}
    for name, told in (("dataset", table.dataset), ("split", table.split), ("norm", table.norm)):
        if told and told != subject[name]:
            raise ValueError(f"The run beside has {name} {subject[name]!r}, not {told!r}: they are not comparable.")
    if table.images is not None:
        raise ValueError("The run beside says which images there are, so that --images has no meaning. Leave it out.")
    return subject


def _labels_of(base: Run) -> dict[int, tuple[str, int]]:
    """The true classes that a run knows, and where they are from."""
    known = [entry.rows for entry in base.entries]
    found = {
        int(image): ("the run beside", int(label))
        for rows in known
        for image, label in zip(rows["image_id"], rows["label"], strict=True)
    }
    if not found:
        raise ValueError("The run beside has no rows, so that nothing says whether its images are those of the logs.")
    return found


def _entry(item: ReadLog, images: ImageSet, subject: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of run.json: the fields of `leaderboards.records.Entry`, and where its rows are."""
    given, log = item.given, item.log
    missing = images.missing(set(item.rows["image_id"].tolist()) & set(images.ids))
    certifier = given.certifier or log.certifier
    key = digest(item.key_fields)
    parameters = {"sigma": given.sigma, "n": given.n, "alpha": given.alpha}
    return {
        "name": given.name,
        **subject,
        "ensemble": given.name,
        "aggregation": "as published",
        "certifier": certifier,
        "guarantee": "probabilistic",
        "status": "incomplete" if missing else "complete",
        "reason": missing,
        "key": key,
        "folder": cell_folder(key),
        "schema": SCHEMA_VERSION,
        "source": given.source,
        "parameters": {name: value for name, value in parameters.items() if value is not None},
        "provenance": {"file": given.path.name, "sha256": item.sha256, "imported_by": f"certbench {_version()}"},
        "warnings": [],
        "diagnostics": {},
        "details": {
            "rounding": log.printing,
            "left_out": item.left_out,
        },
    }


def _store(store: Store, item: ReadLog, entry: Mapping[str, Any]) -> None:
    """Write the rows that are not stored yet; those that are must be the same."""
    key = entry["key"]
    found, _ = store.stored_images(key)
    if new := not found:
        store.write_rows(key, item.rows)
    stored = read_rows(store.cell(key)).sort_values("image_id", ignore_index=True)
    expected = item.rows.sort_values("image_id", ignore_index=True)[list(stored.columns)]
    if not stored.equals(expected.astype(stored.dtypes.to_dict())):
        raise StoredDataError(
            f"{store.cell(key)}: holds other rows than the log. Remove the folder and import it again."
        )
    if new or not (store.cell(key) / "cell.json").is_file():
        fields = {"schema": SCHEMA_VERSION, "key": key, "key_fields": item.key_fields, "entry": entry["name"]}
        store.write_json(store.cell(key) / "cell.json", {**fields, "spec": "", "provenance": entry["provenance"]})


def _refuse_other_runs(manifest: Path) -> None:
    """An import replaces an earlier one of its name, and nothing else."""
    if not manifest.exists():
        return
    try:
        imported = json.loads(manifest.read_text(encoding="utf-8")).get("imported") is True
    except (ValueError, AttributeError):
        imported = False
    if not imported:
        raise ValueError(
            f"{manifest} describes a run that was not imported; it is not replaced. Choose another --name."
        )


def _entries_of(manifest: Path, store: Store, run: str) -> list[dict[str, Any]]:
    """The entries of a run as they are written; `read_run` has found them to be in order."""
    if manifest.resolve().parent.parent.parent != store.root.resolve():
        raise ValueError(f"{manifest} is in another store than {store.root}: the rows of one board lie in one store.")
    if manifest.parent.name == run:
        raise ValueError(f"A run cannot stand beside itself. Choose another --name than {run!r}.")
    entries: list[dict[str, Any]] = json.loads(manifest.read_text(encoding="utf-8"))["entries"]
    if not entries:
        raise ValueError(f"{manifest} has no entries to stand beside.")
    return entries


def _refuse_same_names(entries: Sequence[Mapping[str, Any]]) -> None:
    names = [str(entry["name"]) for entry in entries]
    if same := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"Two entries are named {same!r}. Name each: --entry NAME, once a file, or give them --sigma.")


def _default_radii(read: Sequence[ReadLog]) -> list[str]:
    largest = max(parse_radius(float(item.rows["radius"].max())) for item in read)
    if largest > _MOST_RADII * STEP:
        raise ValueError(f"The largest radius is {float(largest):g}: say which radii the board shows, --radii 0,1,2.")
    return [format_radius(step * STEP) for step in range(int(largest / STEP) + 1)]


def _description(base: Run | None, count: int) -> str:
    what = "1 entry was" if count == 1 else f"{count} entries were"
    told = f"{what} read from published logs and not verified here."
    return f"{base.description}\n\n{told}".strip() if base else told


def _told(item: ReadLog, entry: Mapping[str, Any]) -> ImportedEntry:
    return ImportedEntry(
        name=entry["name"],
        file=str(item.given.path),
        sha256=item.sha256,
        key=entry["key"],
        certifier=entry["certifier"],
        printing=item.log.printing,
        source=entry["source"],
        rows=len(item.rows),
        images=entry["images"],
        left_out=item.left_out,
        status=entry["status"],
        reason=entry["reason"],
    )


def _version() -> str:
    try:
        return metadata.version("certbench")
    except metadata.PackageNotFoundError:
        return "not installed"
