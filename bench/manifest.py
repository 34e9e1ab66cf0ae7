"""Writing down what a run did: `run.json`, and `cell.json` of every finished cell."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.certification import Task
from bench.diagnostics import diagnostics_of, flat
from bench.fitting import needs_fit
from bench.options import Options
from bench.plan import Cell, Plan, certification_seed
from bench.progress import Reporter
from bench.store import Store, write_file
from certifiers import Verdict
from leaderboards.records import SCHEMA_VERSION, read_rows


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    manifest: Path
    statuses: dict[str, str]
    reasons: dict[str, str]
    computed: int
    stored: int
    timeouts: int = 0

    @property
    def failed(self) -> list[str]:
        """The entries with ERROR rows or rows missing."""
        return [name for name, status in self.statuses.items() if status in ("failed", "incomplete")]

    @property
    def measured(self) -> list[str]:
        """The entries with all rows stored."""
        return [name for name, status in self.statuses.items() if status == "complete"]


def write_down(
    plan: Plan,
    store: Store,
    tasks: Mapping[str, Task],
    failures: Mapping[str, str],
    used: dict[str, Any],
    computed: int,
    stored: int,
    options: Options,
    reporter: Reporter,
) -> Outcome:
    """Write down the entries of a run, finished or not, and return how it ended."""
    wanted = set(plan.images.ids.tolist())
    entries, statuses, reasons, timeouts = [], {}, {}, 0
    for cell in plan.cells:
        task = tasks.get(cell.name)
        status, reason, folder = "unsupported", cell.reason, None
        stopped = [failures[job.digest] for job in cell.jobs if job.digest in failures]
        if stopped and not reason:
            status, reason = "failed", stopped[0]
        elif task is not None and task.unsupported:
            reason = task.unsupported
        elif task is not None:
            rows = read_rows(store.cell(task.key))
            rows = rows[rows["image_id"].isin(wanted)]
            errors = rows[rows["verdict"] == Verdict.ERROR.name]
            timeouts += int((rows["verdict"] == Verdict.TIMEOUT.name).sum())
            folder = store.cell(task.key).relative_to(store.root).as_posix()
            if len(rows) < len(wanted):
                status, reason = "incomplete", f"{len(wanted) - len(rows)} of {len(wanted)} images are missing"
            elif len(errors):
                first = str(errors["reason"].iloc[0])
                status, reason = "failed", f"{len(errors)} of {len(wanted)} images failed: {first}"
            else:
                status, reason = "complete", ""
        computed_with = _completed(plan, store, task, used) if task and status == "complete" else used
        diversity: dict[str, Any] = {}
        if task and plan.spec.diagnostics:
            try:
                diversity = _diagnostics(plan, store, task, options)
            except ValueError as error:
                reporter.warn(f"{cell.name}: no diagnostics: {error}")
        entries.append(_entry(plan, cell, task, status, reason, folder, computed_with, diversity))
        statuses[cell.name], reasons[cell.name] = status, reason
    manifest = store.manifest(plan.name)
    store.write_json(
        manifest,
        {
            "schema": SCHEMA_VERSION,
            "name": plan.name,
            "title": plan.spec.title or plan.name,
            "description": _description(plan),
            "radii": list(plan.spec.threat.radii),
            "spec_text": plan.spec_text,
            "entries": entries,
        },
    )
    write_file(manifest.with_name("spec.toml"), plan.spec_text.encode())
    return Outcome(manifest, statuses, reasons, computed, stored, timeouts)


def _description(plan: Plan) -> str:
    """The spec's description, and how its images were chosen where the members chose them."""
    parts = plan.spec.description.split("\n\n")
    if (chosen := plan.spec.data.answered_rightly) is not None:
        parts.append(
            f"The images are the first {chosen} that all members on this board answer rightly: clean accuracy says "
            "nothing here."
        )
    # Line breaks of the spec are not those of a page; blank lines part paragraphs.
    return "\n\n".join(" ".join(part.split()) for part in parts).strip()


def _completed(plan: Plan, store: Store, task: Task, used: dict[str, Any]) -> dict[str, Any]:
    """Write down a finished cell; the provenance of the run that finished it, not of those that only read it."""
    path = store.cell(task.key) / "cell.json"
    if path.is_file() and not task.pending:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged: written again
            return dict(json.loads(path.read_text(encoding="utf-8"))["provenance"])
    store.write_json(
        path,
        {
            "schema": SCHEMA_VERSION,
            "key": task.key,
            "key_fields": task.key_fields,
            "entry": task.cell.name,
            "spec": plan.spec_text,
            "provenance": used,
        },
    )
    return used


def _diagnostics(plan: Plan, store: Store, task: Task, options: Options) -> dict[str, Any]:
    """What the members agree on; of one member alone there is nothing to say."""
    if len(task.ensemble.members) < 2:
        return {}
    sigma = task.cell.jobs[0].objective.sigma
    weights = [found.digest for found in task.trained]
    seed = certification_seed(plan.spec)
    precision = task.cell.precision
    return diagnostics_of(task.ensemble, weights, precision, plan.images, sigma, seed, options.device, store)


def _entry(
    plan: Plan,
    cell: Cell,
    task: Task | None,
    status: str,
    reason: str,
    folder: str | None,
    used: dict[str, Any],
    diversity: Mapping[str, Any],
) -> dict[str, Any]:
    """One entry of run.json: the fields of `leaderboards.records.Entry`, and where its rows are."""
    headers = [found.header for found in task.trained] if task else []
    accuracies = [accuracy for header in headers for accuracy in header["member_accuracies"]]
    collapsed, counted = [], 0
    for header in headers:
        collapsed += [counted + number for number in header["collapsed"]]
        counted += len(header["member_accuracies"])
    return {
        "name": cell.name,
        "dataset": plan.dataset.name,
        "split": plan.spec.data.split,
        "images_digest": plan.images.digest,
        "images": len(plan.images),
        "image_ids": plan.images.ids.tolist(),
        "norm": cell.threat.norm.value,
        "ensemble": cell.ensemble,
        "aggregation": cell.aggregation.name,
        "certifier": cell.certifier.name,
        "guarantee": cell.certifier.guarantee.value,
        "status": status,
        "reason": reason,
        "key": task.key if task else "",
        "folder": folder,
        "schema": SCHEMA_VERSION,
        "parameters": cell.certifier.identity(),
        "provenance": used,
        "warnings": [
            f"member {number + 1} of {len(accuracies)} collapsed in training: noisy validation accuracy "
            f"{accuracies[number]:.1%}"
            for number in collapsed
        ],
        "diagnostics": flat(diversity),
        "details": {
            "labels": dict(zip(("aggregation", "certifier"), cell.labels, strict=True)),
            "aggregation": cell.aggregation.describe(),
            **({"fitted": task.ensemble.aggregation.describe()} if task and needs_fit(cell) else {}),
            "certifier": cell.certifier.describe(),
            **({} if cell.precision == "float32" else {"precision": cell.precision}),
            "member_validation_accuracies": accuracies,
            "training_seconds": sum(header["training_seconds"] for header in headers),
            "search": plan.searches.get(cell.training_seed.ensemble if cell.training_seed else cell.ensemble),
            **({"training_seed": {"of": seed.of, "seed": seed.seed}} if (seed := cell.training_seed) else {}),
            "weights": task.key_fields["weights"] if task else [],
            "training": [{"label": job.label, **job.recipe} for job in cell.jobs],
        },
    }
