"""Fields of specs: how what is written in TOML becomes an object, with one sentence for each mistake."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pydantic
from pydantic import BeforeValidator, ConfigDict, model_validator

from bench import datasets
from ensembles import Aggregation, aggregation, architectures
from ensembles.registry import RegistryError, did_you_mean
from ensembles.training import Objective, Schedule
from ensembles.training import from_mapping as objective_from_mapping
from leaderboards.radii import parse_radius
from leaderboards.training_seeds import LEAST_SEEDS

T = TypeVar("T")


class Table(pydantic.BaseModel):
    """A table of a spec: unknown keys are refused with the nearest known one; values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    known = ", ".join(cls.model_fields)
                    raise ValueError(
                        f"unknown key {key!r}. {did_you_mean(str(key), cls.model_fields)}Allowed: {known}."
                    )
        return values


def built(build: Callable[[Any], T]) -> BeforeValidator:
    """A field whose table is turned into an object by `build`, which raises what a user should read."""

    def validate(value: Any) -> T:
        try:
            return build(value)
        except (RegistryError, TypeError) as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(validate)


def sole_or_list(value: Any) -> Any:
    """A list as a tuple; anything else as a tuple of one."""
    return tuple(value) if isinstance(value, list) else (value,)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a name in quotes, got {value!r}")
    return value


def _table(value: Any, example: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a table such as {example}, got {value!r}")
    return value


def _named_table(value: Any, example: str) -> Mapping[str, Any]:
    table = _table(value, example)
    if "name" not in table:
        raise ValueError(f"needs the key 'name', such as {example}")
    _name(table["name"])
    return table


def built_objective(value: Any) -> Objective:
    """An objective from its table."""
    return objective_from_mapping(_named_table(value, '{ name = "gaussian", sigma = 0.5 }'))


def built_schedule(value: Any) -> Schedule:
    """A schedule from its table."""
    return Schedule.from_mapping(_table(value, "{ epochs = 30 }"), "schedule")


def built_aggregation(value: Any) -> Aggregation:
    """An aggregation from its name or table."""
    if not isinstance(value, str):
        value = _named_table(value, '{ name = "weighted-average", of = "logit" }')
    return aggregation.create(value)


def written_radii(written: Any) -> tuple[str, ...]:
    """Radii as they are written, checked to be numbers that ascend."""
    if not isinstance(written, list) or not written:
        raise ValueError('radii must be a list such as [0, 0.25, "8/255"]')
    exact = [parse_radius(item) for item in written]
    if exact != sorted(set(exact)):
        raise ValueError(f"radii must ascend without repetition, got {', '.join(map(str, written))}")
    return tuple(str(item) for item in written)


def written_seeds(written: Any) -> tuple[int, ...]:
    """Training seeds: at least `LEAST_SEEDS` different whole numbers in [0, 2^63)."""
    if not isinstance(written, list) or not all(type(seed) is int and 0 <= seed < 2**63 for seed in written):
        raise ValueError(f"seeds must be a list of whole numbers from 0 on, such as [0, 1, 2], got {written!r}")
    if len(set(written)) != len(written) or len(written) < LEAST_SEEDS:
        raise ValueError(
            f"seeds must be at least {LEAST_SEEDS} different ones, got {written!r}: fewer say nothing of the spread "
            "between trainings. For one training, leave seeds out."
        )
    return tuple(written)


def architecture_named(name: Any) -> str:
    """The listed spelling of an architecture."""
    return architectures.resolve(_name(name))


def dataset_named(name: Any) -> str:
    """The listed spelling of a data set."""
    return datasets.registry.resolve(_name(name))
