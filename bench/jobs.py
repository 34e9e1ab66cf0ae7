"""Training jobs: what makes the members of an ensemble, and the recipe that names them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.datasets import Dataset
from bench.keys import digest
from bench.spec import ExperimentSpec
from ensembles import architectures, derive_seed
from ensembles.cancelling import VERSION as CANCELLING_VERSION
from ensembles.training import Objective, Schedule
from leaderboards.records import SCHEMA_VERSION


@dataclass(frozen=True)
class TrainJob:
    """One training: the members it makes, and the recipe that its checkpoint is stored under.

    Members of an objective that does not couple them are jobs of their own, so that specs share them.
    `starts` are the jobs whose members the training starts from, in order; it takes as many of them, from number
    `first_start` on, as it has members.
    """

    label: str
    objective: Objective
    schedule: Schedule
    recipe: dict[str, Any] = field(hash=False)
    starts: tuple["TrainJob", ...] = ()
    first_start: int = 0

    @property
    def planted(self) -> bool:
        """Whether its members are built from those of its start, and not trained."""
        return "planted" in self.recipe

    @property
    def digest(self) -> str:
        """The digest of what makes these weights: data, architecture, objective, schedule, seed, start."""
        return digest(self.recipe)

    def with_starts(self) -> Iterator["TrainJob"]:
        """The jobs it starts from, and theirs, and then itself."""
        for start in self.starts:
            yield from start.with_starts()
        yield self


def jobs_of(
    spec: ExperimentSpec, label: str, dataset: Dataset, training_seed: int | None = None
) -> tuple[TrainJob, ...]:
    """The jobs that make the members of an ensemble of a spec, in the order of its members.

    `training_seed` takes the place of the spec's seed, in this training and in those it starts from.
    """
    if label in spec.planted:
        return (_planted_job(spec, label, dataset),)
    table = spec.ensembles[label]
    seed = spec.seed if training_seed is None else training_seed
    shown = label if training_seed is None else f"{label} seed {training_seed}"
    starts = jobs_of(spec, table.start, dataset, training_seed) if table.start is not None else ()
    common: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "data": {"name": dataset.name, "train": dataset.train.digest},
        "architecture": table.architecture,
        "options": table.options,
        "input_shape": list(dataset.input_shape),
        "classes": dataset.classes,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "objective": {**table.objective.describe(), "version": table.objective.version},
        "schedule": table.schedule.identity(),
    }
    if (version := architectures.version_of(table.architecture)) != 1:
        common["architecture_version"] = version
    if starts:
        common["start"] = [start.digest for start in starts]
    if table.objective.joint:
        recipe = {**common, "members": table.members, "seed": derive_seed(seed, "joint")}
        return (TrainJob(shown, table.objective, table.schedule, recipe, starts),)
    jobs = []
    for number in range(table.members):
        recipe = {**common, "members": 1, "seed": derive_seed(seed, "member", number)}
        # A start of single members lends each its own; then the others take no part in the recipe.
        own, first = (starts[number : number + 1], 0) if len(starts) == table.members else (starts, number)
        if own:
            recipe["start"] = [start.digest for start in own]
            if len(own) != table.members and len(starts) != table.members:
                recipe["start_member"] = first
        name = f"{shown} member {number + 1} of {table.members}"
        jobs.append(TrainJob(name, table.objective, table.schedule, recipe, own, first))
    return tuple(jobs)


def _planted_job(spec: ExperimentSpec, label: str, dataset: Dataset) -> TrainJob:
    """The job that builds a cancelling pair; objective and schedule are those of the network it is built of."""
    source = jobs_of(spec, spec.planted[label].cancelling_pair_of, dataset)[0]
    recipe = {
        "schema": SCHEMA_VERSION,
        "planted": "cancelling-pair",
        "version": CANCELLING_VERSION,
        "input_shape": list(dataset.input_shape),
        "start": [source.digest],
        "seed": derive_seed(spec.seed, "planted"),
    }
    return TrainJob(label, source.objective, source.schedule, recipe, (source,))
