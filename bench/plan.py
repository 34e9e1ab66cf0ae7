"""The plan: from a spec and its data to training jobs and cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.datasets import Dataset, Split
from bench.jobs import TrainJob, jobs_of
from bench.keys import canonical_json
from bench.spec import ExperimentSpec
from bench.spec_tables import EnsembleTable
from certifiers import Certifier, Guarantee, ThreatModel
from ensembles import Aggregation, architectures, derive_seed
from ensembles.precision import Precision
from leaderboards.radii import ceil_float
from leaderboards.records import SCHEMA_VERSION


@dataclass(frozen=True)
class TrainingSeed:
    """One of several trainings of a line of the spec: its name without the seed, its ensemble's, and the seed."""

    of: str
    ensemble: str
    seed: int


@dataclass(frozen=True)
class Cell:
    """One line of the board before it is measured; `reason` says why it cannot be, where it cannot."""

    name: str
    ensemble: str
    jobs: tuple[TrainJob, ...]
    aggregation: Aggregation
    certifier: Certifier
    threat: ThreatModel
    reason: str = ""
    #: What the board calls its aggregation and, as the spec does, its certifier.
    labels: tuple[str, str] = ("", "")
    precision: Precision = "float32"
    training_seed: TrainingSeed | None = None

    def key_fields(
        self, weights: Sequence[str], spec: ExperimentSpec, images: Split, combined: Aggregation | None = None
    ) -> dict[str, Any]:
        """What the key of this cell is the digest of, given the digests of the jobs' weights.

        `combined` is the aggregation with its weights, where those were fitted.
        """
        return {
            "schema": SCHEMA_VERSION,
            "weights": list(weights),
            "aggregation": {
                **(combined or self.aggregation).describe(),
                "version": (combined or self.aggregation).version,
            },
            "data": images.digest,
            "image_ids": [int(image) for image in images.ids],
            "threat": {"norm": self.threat.norm.value},
            "radii": [str(radius) for radius in spec.threat.exact_radii()] if self.certifier.uses_radii else None,
            "certifier": self.certifier.describe(),
            "dtype": self.precision,
            "seed": certification_seed(spec),
        }


@dataclass(frozen=True)
class Plan:
    """Everything a spec asks for. `searches` holds, by ensemble, how its hyper-parameters were chosen."""

    name: str
    spec: ExperimentSpec
    spec_text: str
    dataset: Dataset
    images: Split
    cells: tuple[Cell, ...]
    searches: Mapping[str, Any] = field(default_factory=dict)

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii as floats that are not below the exact ones."""
        return tuple(ceil_float(radius) for radius in self.spec.threat.exact_radii())

    def jobs(self) -> list[TrainJob]:
        """The training jobs of all cells that can be measured, each once; a job comes after those it starts from."""
        found: dict[str, TrainJob] = {}
        for cell in self.cells:
            if not cell.reason:
                for job in cell.jobs:
                    for needed in job.with_starts():
                        found.setdefault(needed.digest, needed)
        return list(found.values())


def certification_seed(spec: ExperimentSpec) -> int:
    """The base of the noise of every cell of a spec: all entries meet the same noise, so comparisons are paired."""
    return derive_seed(spec.seed, "certification")


def make_plan(spec: ExperimentSpec, spec_text: str, dataset: Dataset, limit: int | None = None) -> Plan:
    """The plan of a spec on its data.

    `limit` keeps that many of the spec's images, spread evenly over them, and names the run accordingly: it
    never replaces the full one.

    Raises:
        ValueError: no image is selected, two entries have one name, an architecture does not fit the images, or
            a parameter cannot be part of a key.
    """
    split = {"test": dataset.test, "validation": dataset.validation}[spec.data.split]
    images = split.select(every=spec.data.every, offset=spec.data.offset, limit=spec.data.limit)
    name = spec.name
    chosen = spec.data.answered_rightly
    if limit is not None and limit < (chosen or len(images)):
        name = f"{spec.name}-limit{limit}"
        if chosen is None:
            images = images.spread(limit)
        else:
            spec = spec.model_copy(update={"data": spec.data.model_copy(update={"answered_rightly": limit})})
    if not len(images):
        raise ValueError(
            f"data: no image is selected: the {spec.data.split} split of {dataset.name} has {len(split)} images, "
            f"offset is {spec.data.offset}. Lower the offset."
        )
    for named in dict.fromkeys(label for entry in spec.entries for label in entry.ensemble):
        label = spec.planted[named].cancelling_pair_of if named in spec.planted else named
        _check_architecture(label, spec.ensembles[label], dataset)
    cells = tuple(
        _cell(spec, dataset, entry.name, label, aggregation, certifier, precision, training_seed)
        for entry in spec.entries
        for label in entry.ensemble
        for aggregation in entry.aggregation
        for certifier in entry.certifier
        for precision in entry.precision
        for training_seed in _training_seeds(spec, label)
    )
    seen: set[str] = set()
    for cell in cells:
        if cell.name in seen:
            raise ValueError(f"entries: two lines of the board are named {cell.name!r}. Remove one, or give names.")
        seen.add(cell.name)
        _check_identity(cell)
    return Plan(name, spec, spec_text, dataset, images, cells)


def _training_seeds(spec: ExperimentSpec, label: str) -> tuple[int | None, ...]:
    table = spec.sources()[label]
    return (isinstance(table, EnsembleTable) and table.seeds) or (None,)


def _check_architecture(label: str, table: EnsembleTable, dataset: Dataset) -> None:
    shape, classes = dataset.input_shape, dataset.classes
    try:
        architectures.create(table.architecture, input_shape=shape, classes=classes, seed=0, **table.options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"ensembles.{label}: {error}") from error


def _check_identity(cell: Cell) -> None:
    recipes = [job.recipe for job in cell.jobs]
    for part in (cell.certifier.describe(), cell.aggregation.describe(), *recipes):
        try:
            canonical_json(part)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"entries: {cell.name!r} has a parameter that no key can hold ({error}). Parameters are finite "
                f"numbers, strings, true or false, and lists of these; got {part}."
            ) from error


def _cell(
    spec: ExperimentSpec,
    dataset: Dataset,
    name: str | None,
    label: str,
    aggregation: Aggregation,
    certifier: str,
    precision: Precision,
    training_seed: int | None,
) -> Cell:
    method = spec.certifier(certifier)
    threat = ThreatModel(spec.threat.norm)
    reason = ""
    if threat.norm not in method.norms:
        reason = (
            f"{method.name} does not certify the norm {threat.norm}; it certifies: {', '.join(sorted(method.norms))}."
        )
    elif precision != "float32" and method.guarantee is not Guarantee.PROBABILISTIC:
        reason = f"{method.name} bounds networks in float32 or float64, not in {precision}; smoothing samples any."
    shown = _short(aggregation) if precision == "float32" else f"{_short(aggregation)} in {precision}"
    name = name or f"{label} · {shown} · {certifier}"
    seeded = training_seed is not None
    return Cell(
        name=f"{name} · seed {training_seed}" if seeded else name,
        ensemble=f"{label} seed {training_seed}" if seeded else label,
        jobs=jobs_of(spec, label, dataset, training_seed),
        aggregation=aggregation,
        certifier=method,
        threat=threat,
        reason=reason,
        labels=(shown, certifier),
        precision=precision,
        training_seed=None if training_seed is None else TrainingSeed(name, label, training_seed),
    )


def _short(aggregation: Aggregation) -> str:
    """The name of an aggregation with the parameters that are not its defaults."""
    default = type(aggregation)().identity()
    extra = [f"{key}={value}" for key, value in aggregation.identity().items() if value != default[key]]
    return f"{aggregation.name}({', '.join(extra)})" if extra else aggregation.name
