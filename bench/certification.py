"""Certifying: cells become tasks, tasks that can share a pass are grouped, images become rows in the store."""

import dataclasses
import math
import traceback
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import nn

from bench.datasets.split import Split
from bench.fitting import fitted
from bench.keys import canonical_json, digest
from bench.options import Options
from bench.plan import Cell, Plan, certification_seed
from bench.progress import Reporter
from bench.rows import error_rows, rows_of
from bench.store import Store
from certifiers import (
    Certifier,
    ClassifierChangedError,
    RadiusCertifier,
    Verdict,
    certify_jointly,
    shared_measurement,
)
from ensembles import Ensemble, shared_scores
from ensembles.checkpoint import Checkpoint
from ensembles.precision import Precision, in_precision
from leaderboards.records import FAILURES

#: Parts of a group for each worker.
_PARTS_EACH = 4


@dataclass
class Task:
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


def tasks_of(
    plan: Plan, store: Store, trained: dict[str, Checkpoint], options: Options, reporter: Reporter
) -> dict[str, Task]:
    """The task of each cell that can be measured, by name; cells of one key are one task."""
    device = torch.device(options.device)
    # The same member objects in every ensemble that uses them: that is what lets cells share forward passes.
    # channels_last is only a memory layout; convolutions of small images run faster in it.
    members: dict[tuple[str, Precision], list[nn.Module]] = {}
    for job, precision in dict.fromkeys((job.digest, cell.precision) for cell in plan.cells for job in cell.jobs):
        if job in trained:
            members[job, precision] = [
                in_precision(member, precision).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                for member in trained[job].members
            ]
    tasks: dict[str, Task] = {}
    by_key: dict[str, Task] = {}
    for cell in plan.cells:
        if cell.reason or any(job.digest not in trained for job in cell.jobs):
            continue
        ensemble = Ensemble([member for job in cell.jobs for member in members[job.digest, cell.precision]])
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
        by_key[key] = tasks[cell.name] = Task(
            cell=cell,
            key=key,
            key_fields=fields,
            trained=[trained[job.digest] for job in cell.jobs],
            ensemble=ensemble.with_aggregation(combined),
            certifier=as_asked(cell.certifier, options),
            pending=pending,
        )
    return tasks


def as_asked(certifier: Certifier, options: Options) -> Certifier:
    """A certifier with what was asked for on the command line of how to compute, where it has such fields."""
    # Only what cannot change a result may be set from outside: it is not in the key.
    asked = {"batch_size": options.batch_size, "compile_members": options.compile_networks or None}
    fields = {item.name for item in dataclasses.fields(certifier) if item.metadata.get("execution")}
    given = {name: value for name, value in asked.items() if value is not None and name in fields}
    return dataclasses.replace(certifier, **given) if given else certifier


def groups_of(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks that share one pass: same members, measurement and norm, and the same images still to do.

    Certifiers that measure the same are together, `smoothing` and `smoothing-eas` of one noise, say. Where a method
    shares forward passes, ensembles of some of the members go with the one that has them all: the first two of three
    networks cost nothing beside the three.
    """
    groups: dict[Any, list[Task]] = {}
    for task in tasks:
        if task.pending:
            same = measured_together(task.certifier), task.cell.precision
            groups.setdefault((_jobs(task), same, task.cell.threat, task.pending), []).append(task)
    whole: dict[Any, list[Task]] = {}
    for (jobs, *same), group in sorted(groups.items(), key=lambda item: -len(item[0][0])):
        larger = [other for other in whole if list(other[1:]) == same and set(jobs) <= set(other[0])]
        if larger and _shares_passes(group[0].certifier):
            whole[larger[0]] += group
        else:
            whole[jobs, *same] = group
    order = {id(task): place for place, task in enumerate(tasks)}
    joined = [sorted(group, key=lambda task: order[id(task)]) for group in whole.values()]
    return sorted(joined, key=lambda group: order[id(group[0])])


def measured_together(certifier: Certifier) -> Hashable:
    """Equal for certifiers whose entries can share a pass."""
    measurement = shared_measurement(certifier)
    return measurement if measurement is not None else (canonical_json(certifier.describe()), repr(certifier))


def _jobs(task: Task) -> tuple[str, ...]:
    return tuple(job.digest for job in task.cell.jobs)


def _shares_passes(certifier: Certifier) -> bool:
    """Whether a method does for several classifiers together what they have in common; others gain nothing by it."""
    if not isinstance(certifier, RadiusCertifier):
        return False
    own, general = type(certifier), RadiusCertifier
    return own.radii_together is not general.radii_together or own.radii_asked is not general.radii_asked


def parts_of(group: list[Task], jobs: int, block_size: int) -> list[list[Task]]:
    """The group in parts, of other images each, that workers can certify side by side.

    A worker that is done takes the next part, so images that cost little make room for others. The first part is one
    block: it finds what is unsupported. Rows do not depend on the parts, because images are certified one at a time.
    """
    pending = group[0].pending
    blocks = [pending[first : first + block_size] for first in range(0, len(pending), block_size)]
    if jobs <= 1:
        blocks = [pending]
    # A few parts a worker: enough to share the time well, few enough that handing over the networks costs nothing.
    size = max(1, math.ceil((len(blocks) - 1) / (_PARTS_EACH * jobs)))
    later = [sum(blocks[first : first + size], ()) for first in range(1, len(blocks), size)]
    return [[dataclasses.replace(task, pending=part, errors=[]) for task in group] for part in (blocks[0], *later)]


@dataclass(frozen=True)
class Asked:
    """What certifying takes of a plan. It is handed to worker processes, which need none of the data that trains."""

    images: Split
    radii: tuple[float, ...]
    seed: int

    @classmethod
    def by(cls, plan: Plan) -> "Asked":
        """What this plan asks."""
        return cls(plan.images, plan.radii, certification_seed(plan.spec))


@dataclass(frozen=True)
class Certified:
    """What certifying a group came to: rows computed, and of each task why it is unsupported, and its errors."""

    rows: int
    said: list[tuple[str, list[str]]]


def certify(asked: Asked, store: Store, group: list[Task], options: Options, reporter: Reporter) -> Certified:
    """Certify the images that a group still lacks, block by block.

    A method that raises costs an ERROR row of its image, not the run.

    Raises:
        ClassifierChangedError: a method changed the weights that it shares with others.
        StoreError: rows cannot be written.
    """
    pending = group[0].pending
    weights = [_copy_of_weights(task.ensemble) for task in group]
    label = f"certify {', '.join(task.cell.name for task in group)}"
    if len(pending) < len(asked.images):
        label += f", images {pending[0] + 1} to {pending[-1] + 1}"
    computed = 0
    with reporter.task(label, len(pending)) as progress:
        for first in range(0, len(pending), options.block_size):
            positions = pending[first : first + options.block_size]
            blocks = _block(asked, group, positions, options, reporter)
            _check_unchanged(group, weights)
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
    return Certified(computed, [(task.unsupported, task.errors) for task in group])


def _copy_of_weights(ensemble: Ensemble) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in (*ensemble.named_parameters(), *ensemble.named_buffers())}


def _check_unchanged(group: Sequence[Task], weights: Sequence[dict[str, torch.Tensor]]) -> None:
    """Before rows are stored: are they about the weights in their keys?

    Each call of a certifier notices most changes; writes to `.data` leave nothing to notice but other numbers.

    Raises:
        ClassifierChangedError: members are not as they were when the group began.
    """
    for task, before in zip(group, weights, strict=True):
        now = _copy_of_weights(task.ensemble)
        same = (_same(tensor, now[name]) for name, tensor in before.items())
        if before.keys() != now.keys() or not all(same):
            raise ClassifierChangedError(
                f"{task.cell.name}: its networks are not as they were: a certifier of this pass changed what entries "
                f"share ({', '.join(dict.fromkeys(each.certifier.name for each in group))}). The rows of this block "
                "are not stored. A method works on a copy: copy.deepcopy(classifier)."
            )


def _same(before: torch.Tensor, now: torch.Tensor) -> bool:
    alike = before.dtype == now.dtype and before.shape == now.shape and before.device == now.device
    return alike and torch.allclose(before, now, rtol=0, atol=0, equal_nan=True)


def _failed(row: pd.DataFrame) -> bool:
    return str(row["verdict"].iloc[0]) in FAILURES


def _block(
    asked: Asked, group: Sequence[Task], positions: Sequence[int], options: Options, reporter: Reporter
) -> list[list[pd.DataFrame]]:
    """For each task the rows of a block of images, one frame an image; none for a task found to be unsupported.

    Images are certified one at a time: the arithmetic of a batch depends in its last bits on how many and
    which images are in it, and results must not depend on the size of blocks or on where a run was stopped.
    """
    images = asked.images.images(positions).to(options.device)
    found: list[list[pd.DataFrame]] = [[] for _ in group]
    for position, image in zip(positions, images, strict=True):
        there = [number for number, task in enumerate(group) if not task.unsupported]
        answers = _image(asked, [group[number] for number in there], image[None], position, reporter)
        for number, row in zip(there, answers, strict=True):
            # A method that does not apply says so of the first image; later ones are answers like others.
            if position == 0 and row["verdict"].iloc[0] == Verdict.UNSUPPORTED.name:
                group[number].unsupported = str(row["reason"].iloc[0])
            else:
                found[number].append(row)
    return found


def _image(
    asked: Asked, tasks: list[Task], image: torch.Tensor, position: int, reporter: Reporter
) -> list[pd.DataFrame]:
    """The row of one image for each task; one task's failure does not touch the others."""
    if not tasks:
        return []
    identity, label = int(asked.images.ids[position]), int(asked.images.labels[position])
    ensembles = [task.ensemble for task in tasks]
    try:
        questions = [(task.certifier, task.ensemble) for task in tasks]
        certificates = certify_jointly(questions, image, tasks[0].cell.threat, asked.radii, asked.seed, [identity])
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
            return [_image(asked, [task], image, position, reporter)[0] for task in tasks]
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
