"""The copy of a run that a baseline is: its rows, a file an entry, with audits and checks, and no weights.

    <folder>/runs/<name>/run.json    as in a store
    <folder>/cells/<key>/            one file of rows, and one of audits where there are any
    <folder>/conformance/….json      the checks of its certifiers

So it is read as a store is, and small enough to be committed.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.store import Store, write_file
from leaderboards.records import Cells, Run, cells_of, read_run
from leaderboards.verified_files import cell_folder

#: The folders of a baseline; what else lies beside them stays.
_PARTS = ("cells", "conformance", "runs")

#: What names the files of a published folder, and is no part of a store.
_PACKED = ("packed", "pictures")


def copy_baseline(manifest: Path, run: Run, to: Path) -> None:
    """Make a run, of a store or published, the baseline in a folder.

    It is written beside the old one and read again before it takes its place.

    Raises:
        ValueError: the folder is the run's own store, or holds a published board.
        StoreError: the disk is full or not writable.
        StoredDataError: what was written is not what was read.
        OSError: the folder cannot be made.
    """
    manifest = manifest.resolve()
    document = json.loads(manifest.read_text(encoding="utf-8"))
    root, cells = cells_of(manifest, document)
    if to.resolve() == root.resolve():
        raise ValueError(f"{to} is the run's own store. Name another folder.")
    if (to / "run.json").exists():
        raise ValueError(f"{to} holds a published board. Name another folder: a baseline is kept in one of its own.")
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".baseline-", dir=to) as beside:
        new = Path(beside)
        read_run(_write(document, run, root, cells, new))
        for part in _PARTS:
            if (to / part).exists():
                (to / part).rename(new / f"old-{part}")
            if (new / part).exists():
                (new / part).rename(to / part)


def _write(document: Mapping[str, Any], run: Run, root: Path, cells: Cells, to: Path) -> Path:
    """Write all parts into an empty folder; returns the `run.json`."""
    store = Store(to)
    for entry in run.entries:
        if entry.status != "complete":
            continue
        rows = cells.rows(cell_folder(entry.key))
        store.write_rows(entry.key, rows[rows["image_id"].isin(set(entry.rows["image_id"]))].sort_values("image_id"))
        if (audits := cells.audits(cell_folder(entry.key))) is not None:
            from bench.audit_store import write_audits  # loads torch

            write_audits(store, entry.key, audits)
    wanted = [entry.details.get("certifier") for entry in run.entries]
    for check in sorted((root / "conformance").glob("*.json")):
        content = check.read_bytes()
        if json.loads(content).get("certifier") in wanted:
            write_file(to / "conformance" / check.name, content)
    written = store.manifest(run.name)
    store.write_json(written, {name: value for name, value in document.items() if name not in _PACKED})
    return written
