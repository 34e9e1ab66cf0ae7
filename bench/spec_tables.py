"""The tables of a spec: data, threat, ensembles, the choice among candidates, entries."""

import dataclasses
import inspect
import itertools
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from bench.spec_fields import (
    Table,
    architecture_named,
    built,
    built_aggregation,
    built_objective,
    built_schedule,
    dataset_named,
    sole_or_list,
    written_radii,
    written_seeds,
)
from certifiers import Norm
from ensembles import Aggregation, aggregation, architectures
from ensembles.precision import Precision
from ensembles.registry import did_you_mean
from ensembles.training import Objective, Schedule
from leaderboards.radii import parse_radius


class DataTable(Table):
    """`[data]`: which images are certified: every `every`-th of the split from `offset` on, the first `limit` of these.

    `answered_rightly = N` certifies only the first N of them that all trained members on the board answer rightly.
    """

    name: Annotated[str, built(dataset_named)]
    root: str | None = None
    split: Literal["test", "validation"] = "test"
    every: Annotated[int, Field(ge=1)] = 1
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1)] | None = None
    answered_rightly: Annotated[int, Field(ge=1)] | None = None


class ThreatTable(Table):
    """`[threat]`: the norm, and the radii of the board as exact fractions or decimals."""

    norm: Annotated[Norm, built(Norm)]
    radii: Annotated[tuple[str, ...], built(written_radii)]

    def exact_radii(self) -> tuple[Fraction, ...]:
        """The radii as fractions."""
        return tuple(parse_radius(radius) for radius in self.radii)


class EnsembleTable(Table):
    """`[ensembles.NAME]`: how members are built and trained.

    `grid_radii` are the radii whose certified accuracy chooses among the candidates of `grid`; without it those of
    the spec. `seeds` are training seeds: each line of the board that names the ensemble becomes one for each of them,
    and the board shows their mean and the deviation between them. Without it the ensemble is trained once, from the
    seed of the spec; that seed in the list shares its training.
    """

    architecture: Annotated[str, built(architecture_named)]
    options: dict[str, Any] = Field(default_factory=dict)
    members: Annotated[int, Field(ge=1)] = 1
    objective: Annotated[Objective, built(built_objective)]
    schedule: Annotated[Schedule, built(built_schedule)]
    start: str | None = None
    grid: dict[str, Annotated[tuple[Any, ...], BeforeValidator(sole_or_list), Field(min_length=1)]] = Field(
        default_factory=dict
    )
    grid_radii: Annotated[tuple[str, ...], BeforeValidator(written_radii)] | None = None
    seeds: Annotated[tuple[int, ...], BeforeValidator(written_seeds)] | None = None

    def candidates(self) -> list[tuple[dict[str, Any], "EnsembleTable"]]:
        """The tables that the grid stands for, each with the values that make it; without a grid the table itself.

        Raises:
            ValueError: a key of the grid is not `objective.FIELD` or `schedule.FIELD`, or a value is not allowed.
        """
        tables = []
        for values in itertools.product(*self.grid.values()):
            chosen = dict(zip(self.grid, values, strict=True))
            parts: dict[str, Any] = {"objective": self.objective, "schedule": self.schedule}
            for key, value in chosen.items():
                part, _, name = key.partition(".")
                if part not in parts:
                    raise ValueError(f"grid: unknown key {key!r}. Write objective.FIELD or schedule.FIELD.")
                fields = [item.name for item in dataclasses.fields(parts[part])]
                if len(set(map(repr, self.grid[key]))) != len(self.grid[key]):
                    raise ValueError(f"grid: {key} repeats a value, got {list(self.grid[key])}.")
                if name not in fields:
                    raise ValueError(
                        f"grid: unknown field {name!r} of the {part}. {did_you_mean(name, fields)}"
                        f"Allowed: {', '.join(fields)}."
                    )
                parts[part] = dataclasses.replace(parts[part], **{name: value})
            tables.append((chosen, self.model_copy(update={**parts, "grid": {}})))
        return tables

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        self.candidates()
        if self.grid_radii is not None and not self.grid:
            raise ValueError("grid_radii are for choosing among the candidates of a grid, and there is none.")
        return self

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        # The first parameter is the input shape, which the data set gives.
        _, *parameters = inspect.signature(architectures.get(self.architecture)).parameters.values()
        known = [parameter.name for parameter in parameters]
        for option in self.options:
            if option not in known and all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                raise ValueError(
                    f"unknown option {option!r} of architecture {self.architecture!r}. {did_you_mean(option, known)}"
                    f"Allowed: {', '.join(known) or 'none'}."
                )
        return self


class PlantedTable(Table):
    """`[planted.NAME]`: an ensemble that is built, not trained: members `g + h` and `g - h`.

    g is the first member of the ensemble that `cancelling_pair_of` names, an `mlp`, and h an affine function drawn from
    the seed. The weighted average of their logits is g; a bound that does not see h cancel is far from it.
    """

    cancelling_pair_of: str

    @property
    def members(self) -> int:
        """A pair."""
        return 2


class SelectionTable(Table):
    """`[selection]`: how candidates of a grid are scored, on validation images.

    The score is the mean certified accuracy over the radii of the spec (or the ensemble's `grid_radii`), of the
    candidate under `aggregation`, certified by `certifier` on `images` images of the validation split, spread
    evenly. Ties go to the first.
    """

    certifier: str
    aggregation: Annotated[Aggregation, built(built_aggregation)] = Field(
        default_factory=lambda: aggregation.create("weighted-average")
    )
    images: Annotated[int, Field(ge=1)] = 100


class EntryTable(Table):
    """`[[entries]]`: lines of the board, one for each combination of the lists.

    `precision` is the number format of the members: `bfloat16` and `float16` are classifiers of their own, for methods
    that sample them.
    """

    name: str | None = None
    ensemble: Annotated[tuple[str, ...], BeforeValidator(sole_or_list), Field(min_length=1)]
    aggregation: Annotated[
        tuple[Annotated[Aggregation, built(built_aggregation)], ...],
        BeforeValidator(sole_or_list),
        Field(min_length=1),
    ]
    certifier: Annotated[tuple[str, ...], BeforeValidator(sole_or_list), Field(min_length=1)]
    precision: Annotated[tuple[Precision, ...], BeforeValidator(sole_or_list), Field(min_length=1)] = ("float32",)
