"""The runner: trains what is missing, certifies what is not stored, and writes down what it did."""

import contextlib
import dataclasses
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench import provenance
from bench.datasets import DataError
from bench.diagnostics import diagnostics_of, flat
from bench.fitting import fitted, needs_fit
from bench.keys import canonical_json, digest
from bench.plan import Cell, Plan, certification_seed
from bench.progress import Reporter
from bench.rows import error_rows, rows_of
from bench.selection import select
from bench.store import Store, StoreError, write_file
from bench.training import members_for
from certifiers import Certifier, ClassifierChangedError, Verdict
from ensembles import Ensemble, shared_scores
from ensembles.checkpoint import Checkpoint, CheckpointError
from ensembles.training import TrainingError
from leaderboards.records import FAILURES, SCHEMA_VERSION, read_rows


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what: none of it is part of a key."""

    output: Path
    device: str = "cpu"
    block_size: int = 10
    batch_size: int | None = None


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


@dataclass
class _Task:
    """A cell on its way: its key, its ensemble, what is still to be computed."""

    cell: Cell
    key: str
    key_fields: dict[str, Any]
    trained: list[Checkpoint]
    ensemble: Ensemble
    certifier: Certifier
    pending: tuple[int, ...]
    unsupported: str = ""
    errors: list[str] = field(default_factory=list)


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ValueError: says what was asked for and what there is.
    """
    there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if device not in there and not (device == "cuda" and len(there) > 1):
        raise ValueError(f"Device {device!r} is not here. Available: {', '.join(there)}.")


def run(plan: Plan, options: Options, reporter: Reporter) -> Outcome:
    """Execute a plan: resumes where an earlier run stopped, recomputes nothing that is stored.

    Blocks of images are stored as they are done. A method that raises costs the image, not the run.

    Raises:
        StoreError: the store is in use, full or not writable.
        TrainingError: a training cannot go on.
        CheckpointError: a stored checkpoint was altered.
        KeyboardInterrupt: the user stopped it; finished blocks are stored.
    """
    # A number format that rounds to 10 bits is another classifier; a verdict must not depend on the device.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    store = Store(options.output)
    with store.locked():

        def search(candidates: Plan) -> Path:
            return _execute(candidates, store, options, reporter).manifest

        return _execute(select(plan, search, store.root / "boards", reporter), store, options, reporter)


def _execute(plan: Plan, store: Store, options: Options, reporter: Reporter) -> Outcome:
    trained, failures = _train(plan, store, options, reporter)
    used = provenance.collect(options.device)
    tasks = _tasks(plan, store, trained, options, reporter)
    once = list({task.key: task for task in tasks.values()}.values())
    stored = sum(len(plan.images) - len(task.pending) for task in once)
    computed = 0
    for group in _groups(once):
        computed += _certify(plan, store, group, options, reporter)
    return _finish(plan, store, tasks, failures, used, computed, stored, options, reporter)


def _train(
    plan: Plan, store: Store, options: Options, reporter: Reporter
) -> tuple[dict[str, Checkpoint], dict[str, str]]:
    """The checkpoints of all jobs by digest, and why a training stopped where one did; the others go on."""
    trained: dict[str, Checkpoint] = {}
    failures: dict[str, str] = {}
    for job in plan.jobs():
        stopped = [failures[start.digest] for start in job.starts if start.digest in failures]
        try:
            if stopped:
                raise TrainingError(f"its start could not be trained: {stopped[0]}")
            trained[job.digest] = members_for(job, plan.dataset, store, options.device, reporter, trained)
        except (StoreError, CheckpointError, DataError):
            raise
        except (RuntimeError, ValueError) as error:
            kind = "" if isinstance(error, TrainingError) else f"{type(error).__name__}: "
            failures[job.digest] = f"{job.label}: {kind}{error}"
            reporter.warn(failures[job.digest])
    return trained, failures


def _tasks(
    plan: Plan, store: Store, trained: dict[str, Checkpoint], options: Options, reporter: Reporter
) -> dict[str, _Task]:
    """The task of each cell that can be measured, by name; cells of one key are one task."""
    device = torch.device(options.device)
    # The same member objects in every ensemble that uses them: that is what lets cells share forward passes.
    # channels_last is only a memory layout; convolutions of small images run faster in it.
    members = {
        name: [member.to(device).to(memory_format=torch.channels_last) for member in found.members]  # type: ignore[call-overload]
        for name, found in trained.items()
    }
    tasks: dict[str, _Task] = {}
    by_key: dict[str, _Task] = {}
    for cell in plan.cells:
        if cell.reason or any(job.digest not in trained for job in cell.jobs):
            continue
        ensemble = Ensemble([member for job in cell.jobs for member in members[job.digest]])
        combined = fitted(cell, ensemble, plan, options.device)
        fields = cell.key_fields([trained[job.digest].digest for job in cell.jobs], plan.spec, plan.images, combined)
        key = digest(fields)
        if key in by_key:
            tasks[cell.name] = by_key[key]
            continue
        found, messages = store.stored_images(key)
        for message in messages:
            reporter.warn(message)
        pending = tuple(position for position, image in enumerate(plan.images.ids.tolist()) if image not in found)
        if pending:
            store.forget_failures(key)
        by_key[key] = tasks[cell.name] = _Task(
            cell=cell,
            key=key,
            key_fields=fields,
            trained=[trained[job.digest] for job in cell.jobs],
            ensemble=ensemble.with_aggregation(combined),
            certifier=_with_batch_size(cell.certifier, options),
            pending=pending,
        )
    return tasks


def _with_batch_size(certifier: Certifier, options: Options) -> Certifier:
    # Only a batch size that cannot change a result may be set from outside: it is not in the key.
    if options.batch_size is None or not any(
        item.name == "batch_size" and item.metadata.get("execution") for item in dataclasses.fields(certifier)
    ):
        return certifier
    return dataclasses.replace(certifier, batch_size=options.batch_size)  # type: ignore[call-arg]


def _groups(tasks: Sequence[_Task]) -> list[list[_Task]]:
    """Tasks that share one pass: same members, certifier and norm, and the same images still to do."""
    groups: dict[Any, list[_Task]] = {}
    for task in tasks:
        if task.pending:
            jobs = tuple(job.digest for job in task.cell.jobs)
            same = canonical_json(task.certifier.describe()), repr(task.certifier)
            groups.setdefault((jobs, same, task.cell.threat, task.pending), []).append(task)
    return list(groups.values())


def _certify(plan: Plan, store: Store, group: list[_Task], options: Options, reporter: Reporter) -> int:
    pending = group[0].pending
    label = f"certify {', '.join(task.cell.name for task in group)}"
    computed = 0
    with reporter.task(label, len(pending)) as progress:
        for first in range(0, len(pending), options.block_size):
            positions = pending[first : first + options.block_size]
            blocks = _block(plan, group, positions, options, reporter)
            for task, rows in zip(group, blocks, strict=True):
                # Apart, because rows that failed lack the evidence: beside them the others' columns change type.
                for part in ([row for row in rows if not _failed(row)], [row for row in rows if _failed(row)]):
                    if part:
                        store.write_rows(task.key, pd.concat(part, ignore_index=True))
                computed += len(rows)
            progress.advance(len(positions), f"{sum(not task.unsupported for task in group)} entries")
    for task in group:
        for reason in dict.fromkeys(task.errors):
            reporter.warn(f"{task.cell.name}: {reason}")
    return computed


def _failed(row: pd.DataFrame) -> bool:
    return str(row["verdict"].iloc[0]) in FAILURES


def _block(
    plan: Plan, group: Sequence[_Task], positions: Sequence[int], options: Options, reporter: Reporter
) -> list[list[pd.DataFrame]]:
    """For each task the rows of a block of images, one frame an image; none for a task found to be unsupported.

    Images are certified one at a time: the arithmetic of a batch depends in its last bits on how many and
    which images are in it, and results must not depend on the size of blocks or on where a run was stopped.
    """
    images = plan.images.images(positions).to(options.device)
    found: list[list[pd.DataFrame]] = [[] for _ in group]
    for position, image in zip(positions, images, strict=True):
        there = [number for number, task in enumerate(group) if not task.unsupported]
        answers = _image(plan, [group[number] for number in there], image[None], position, reporter)
        for number, row in zip(there, answers, strict=True):
            # A method that does not apply says so of the first image; later ones are answers like others.
            if position == 0 and row["verdict"].iloc[0] == Verdict.UNSUPPORTED.name:
                group[number].unsupported = str(row["reason"].iloc[0])
            else:
                found[number].append(row)
    return found


def _image(
    plan: Plan, tasks: list[_Task], image: torch.Tensor, position: int, reporter: Reporter
) -> list[pd.DataFrame]:
    """The row of one image for each task; one task's failure does not touch the others."""
    if not tasks:
        return []
    identity, label = int(plan.images.ids[position]), int(plan.images.labels[position])
    ensembles = [task.ensemble for task in tasks]
    try:
        certificates = tasks[0].certifier.certify_together(
            ensembles, image, tasks[0].cell.threat, plan.radii, certification_seed(plan.spec), [identity]
        )
        with torch.no_grad():
            scores = shared_scores(ensembles, image)
        rows = [
            rows_of([identity], [label], [_answer(own)], found) for own, found in zip(scores, certificates, strict=True)
        ]
    except ClassifierChangedError:
        # Members are shared by the entries of a run: whatever came next would be about other weights.
        raise
    except Exception as error:
        if len(tasks) > 1:
            return [_image(plan, [task], image, position, reporter)[0] for task in tasks]
        reason = f"{type(error).__name__}: {error}"
        if not tasks[0].errors:
            reporter.warn(f"{tasks[0].cell.name}\n{traceback.format_exc()}")
        tasks[0].errors.append(reason)
        return [error_rows([identity], [label], reason)]
    for task, row in zip(tasks, rows, strict=True):
        if row["verdict"].iloc[0] == Verdict.ERROR.name:
            task.errors.append(str(row["reason"].iloc[0]))
    return rows


def _answer(scores: torch.Tensor) -> int:
    return int(scores.argmax()) if bool(torch.isfinite(scores).all()) else -1


def _finish(
    plan: Plan,
    store: Store,
    tasks: Mapping[str, _Task],
    failures: Mapping[str, str],
    used: dict[str, Any],
    computed: int,
    stored: int,
    options: Options,
    reporter: Reporter,
) -> Outcome:
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
            # Line breaks of the spec are not those of a page; blank lines part paragraphs.
            "description": "\n\n".join(" ".join(part.split()) for part in plan.spec.description.split("\n\n")).strip(),
            "radii": list(plan.spec.threat.radii),
            "spec_text": plan.spec_text,
            "entries": entries,
        },
    )
    write_file(manifest.with_name("spec.toml"), plan.spec_text.encode())
    return Outcome(manifest, statuses, reasons, computed, stored, timeouts)


def _completed(plan: Plan, store: Store, task: _Task, used: dict[str, Any]) -> dict[str, Any]:
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


def _diagnostics(plan: Plan, store: Store, task: _Task, options: Options) -> dict[str, Any]:
    """What the members agree on; of one member alone there is nothing to say."""
    if len(task.ensemble.members) < 2:
        return {}
    sigma = task.cell.jobs[0].objective.sigma
    weights = [found.digest for found in task.trained]
    seed = certification_seed(plan.spec)
    return diagnostics_of(task.ensemble, weights, plan.images, sigma, seed, options.device, store)


def _entry(
    plan: Plan,
    cell: Cell,
    task: _Task | None,
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
            "aggregation": cell.aggregation.describe(),
            **({"fitted": task.ensemble.aggregation.describe()} if task and needs_fit(cell) else {}),
            "certifier": cell.certifier.describe(),
            "member_validation_accuracies": accuracies,
            "training_seconds": sum(header["training_seconds"] for header in headers),
            "search": plan.searches.get(cell.ensemble),
            "training": [{"label": job.label, **job.recipe} for job in cell.jobs],
        },
    }
