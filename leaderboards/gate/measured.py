"""A run as the gate reads it: its entries, what attacks found beside its rows, and which classifier each is about."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from leaderboards.records import Entry, Run, cells_of, read_run
from leaderboards.verified_files import cell_folder

#: Libraries on whose version the last bits of a result depend.
_ARITHMETIC = ("torch", "numpy", "scipy", "auto-LiRPA")

#: What else the order of a sum depends on: how many threads share it, and how many inputs go through at once.
_ORDER = ("processor", "device", "threads", "batch_size")


@dataclass(frozen=True)
class Measured:
    """A run, and the audits of its entries by key (`leaderboards.audits.AUDIT_SCHEMA`)."""

    run: Run
    audits: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def find_run(written: str | Path, output: Path) -> Path:
    """The `run.json` of a run: a file, a folder that holds one, or a name in the folder of results.

    A folder may be that of the file itself, or one with `runs/<name>/run.json` in it, as results and published
    baselines are laid out, if there is only one run.

    Raises:
        FileNotFoundError: there is none, or more than one; says where it looked and what there is.
    """
    path = Path(written)
    candidates = [path, path / "run.json", output / "runs" / str(written) / "run.json"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    inside = sorted(path.glob("runs/*/run.json")) if path.is_dir() else []
    if len(inside) == 1:
        return inside[0].resolve()
    if inside:
        names = ", ".join(found.parent.name for found in inside)
        raise FileNotFoundError(f"{path} holds several runs: {names}. Name one: {path}/runs/NAME/run.json.")
    known = ", ".join(sorted(found.parent.name for found in (output / "runs").glob("*/run.json"))) or "none"
    raise FileNotFoundError(
        f"No run {str(written)!r}: neither a run.json, nor a folder with one, nor a run in {output}. "
        f"Stored there: {known}."
    )


def read_measured(manifest: Path) -> Measured:
    """A run with its rows and audits, verified.

    Raises:
        FileNotFoundError: there is no such file.
        StoredDataError: a file was altered, or is not what it says.
    """
    manifest = manifest.resolve()
    run = read_run(manifest)
    _, cells = cells_of(manifest, json.loads(manifest.read_text(encoding="utf-8")))
    found = {entry.key: cells.audits(cell_folder(entry.key)) for entry in run.entries if entry.audit}
    return Measured(run, {key: audits for key, audits in found.items() if audits is not None})


def same_machine(one: Entry, other: Entry) -> bool:
    """Whether two entries were computed by one kind of processor and device, with the same libraries and threads.

    Only then are last bits the same, and with them a vote or a bound that is a hair from changing sides. A key leaves
    all of it out, since none of it may change a result by more than that.
    """
    versions = [entry.provenance.get("versions", {}) for entry in (one, other)]
    # A library that an older run did not write down is not known to be another.
    same = all(versions[0][name] == versions[1][name] for name in _ARITHMETIC if all(name in own for own in versions))
    return same and all(one.provenance.get(name) == other.provenance.get(name) for name in _ORDER)


def classifier_of(entry: Entry) -> str | None:
    """What names the classifier that an entry is about, and the norm and images; None where its weights are not known.

    Entries with equal names here speak of the same function: the same weights, combined in the same way, in
    the same number format. Runs of before the weights were written down have none.
    """
    weights = entry.details.get("weights")
    if not weights:
        return None
    combined = entry.details.get("fitted") or entry.details.get("aggregation")
    parts = [weights, combined, entry.details.get("precision"), entry.norm, entry.dataset, entry.split]
    return json.dumps(parts, sort_keys=True, default=str)
