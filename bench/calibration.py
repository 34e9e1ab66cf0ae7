"""How long certifying will take, measured on one validation image before anything is computed."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.certification import as_asked, measured_together
from bench.fitting import needs_fit
from bench.jobs import TrainJob
from bench.keys import canonical_json
from bench.number_formats import full_float32
from bench.options import Options
from bench.plan import Cell, Plan, certification_seed
from bench.store import Store
from bench.training import new_members, stored_members
from certifiers import Certifier, certify_jointly
from ensembles import Aggregation, Ensemble, WeightedAverage
from ensembles.precision import in_precision

#: Measuring stops after so many seconds; what was not reached is not estimated.
MOST_SECONDS = 20.0


@dataclass(frozen=True)
class Estimate:
    """What certifying will take.

    Attributes:
        seconds: an image, of the pass that serves the cell; None where it was not measured.
        shared: cells that the same pass serves.
    """

    seconds: float | None
    shared: int


def estimates(plan: Plan, options: Options, names: Collection[str]) -> dict[str, Estimate]:
    """An estimate for those of a plan's cells that have such a name and can be measured, by name.

    Each certifier's `rehearsal` is timed on the first validation image, once for ensembles of one architecture under
    the same aggregations; with the stored weights, or else with fresh ones. How long bounds take depends on the weights
    and on the image, and solvers and searches may take up to their limits: an estimate, not a promise.
    """
    full_float32()
    store, started = Store(options.output), time.perf_counter()
    known: dict[str, float | None] = {}
    found: dict[str, Estimate] = {}
    for group in _passes(plan, names):
        same = _signature(group)
        if same not in known:
            late = time.perf_counter() - started > MOST_SECONDS
            known[same] = None if late else _measured(plan, group, store, options)
        found |= {cell.name: Estimate(known[same], len(group)) for cell in group}
    return found


def _passes(plan: Plan, names: Collection[str]) -> list[list[Cell]]:
    """Cells that one pass serves: as the runner groups them, if all their images are still to do."""
    groups: dict[Any, list[Cell]] = {}
    for cell in plan.cells:
        if cell.name in names and not cell.reason:
            jobs = tuple(job.digest for job in cell.jobs)
            same = measured_together(cell.certifier), cell.threat, cell.precision
            groups.setdefault((jobs, same), []).append(cell)
    return list(groups.values())


def _signature(group: Sequence[Cell]) -> str:
    first = group[0]
    recipes = [{name: job.recipe.get(name) for name in ("architecture", "options")} for job in first.jobs]
    members = [job.recipe.get("members") for job in first.jobs]
    combined = [cell.aggregation.describe() for cell in group]
    certifiers = [cell.certifier.describe() for cell in group]
    return canonical_json([recipes, members, combined, certifiers, first.threat.norm.value, first.precision])


def _measured(plan: Plan, group: Sequence[Cell], store: Store, options: Options) -> float | None:
    """Seconds an image of the whole certifier; None where the method does not apply or fails."""
    device = torch.device(options.device)
    try:
        members = [
            in_precision(member, group[0].precision).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for job in group[0].jobs
            for member in _members(job, store)
        ]
        whole = Ensemble(members).eval()
        shorter = [as_asked(cell.certifier, options).rehearsal() for cell in group]
        questions = [
            (certifier, whole.with_aggregation(_aggregation(cell)))
            for cell, (certifier, _) in zip(group, shorter, strict=True)
        ]
        image = plan.dataset.validation.images(np.array([0])).to(device)
        _timed(questions, image, plan, group[0])  # what is set up once is no part of an image's time
        return max(times for _, times in shorter) * _timed(questions, image, plan, group[0])
    except Exception:  # the run will say what is wrong
        return None


def _timed(questions: Sequence[tuple[Certifier, Ensemble]], image: torch.Tensor, plan: Plan, cell: Cell) -> float:
    started = time.perf_counter()
    certify_jointly(questions, image, cell.threat, plan.radii, certification_seed(plan.spec), [0])
    return time.perf_counter() - started


def _aggregation(cell: Cell) -> Aggregation:
    return WeightedAverage() if needs_fit(cell) else cell.aggregation


def _members(job: TrainJob, store: Store) -> list[Any]:
    path = store.checkpoint(job.digest)
    if path.is_file():
        return list(stored_members(job, path).members)
    if job.planted:
        return [member for start in job.starts for member in _members(start, store)] * 2
    return list(new_members(job))
