"""Specs: what an experiment is, read from TOML and checked at the edge, with one sentence for each mistake."""

import dataclasses
import inspect
import itertools
import re
import tomllib
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from bench import datasets
from certifiers import Certifier, Norm
from certifiers import from_mapping as certifier_from_mapping
from ensembles import Aggregation, Sween, aggregation, architectures
from ensembles.registry import RegistryError, did_you_mean
from ensembles.training import Objective, Schedule
from ensembles.training import from_mapping as objective_from_mapping
from leaderboards.radii import parse_radius

_PACKAGED = Path(__file__).parent / "specs"
T = TypeVar("T")


class SpecError(ValueError):
    """A spec that cannot be run: one sentence that says where, what it got, what is allowed."""


class _Table(pydantic.BaseModel):
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


def _built(build: Callable[[Any], T]) -> BeforeValidator:
    """A field whose table is turned into an object by `build`, which raises what a user should read."""

    def validate(value: Any) -> T:
        try:
            return build(value)
        except (RegistryError, TypeError) as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(validate)


def _sole_or_list(value: Any) -> Any:
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


def _objective(value: Any) -> Objective:
    return objective_from_mapping(_named_table(value, '{ name = "gaussian", sigma = 0.5 }'))


def _schedule(value: Any) -> Schedule:
    return Schedule.from_mapping(_table(value, "{ epochs = 30 }"), "schedule")


def _aggregation(value: Any) -> Aggregation:
    if not isinstance(value, str):
        value = _named_table(value, '{ name = "weighted-average", of = "logit" }')
    return aggregation.create(value)


def _radii(written: Any) -> tuple[str, ...]:
    if not isinstance(written, list) or not written:
        raise ValueError('radii must be a list such as [0, 0.25, "8/255"]')
    exact = [parse_radius(item) for item in written]
    if exact != sorted(set(exact)):
        raise ValueError(f"radii must ascend without repetition, got {', '.join(map(str, written))}")
    try:
        float(exact[-1])
    except OverflowError:
        raise ValueError(f"radius {written[-1]!r} is larger than any float64") from None
    return tuple(str(item) for item in written)


def _architecture(name: Any) -> str:
    return architectures.resolve(_name(name))


def _dataset(name: Any) -> str:
    return datasets.registry.resolve(_name(name))


class DataTable(_Table):
    """`[data]`: which images are certified: every `every`-th of the split from `offset` on."""

    name: Annotated[str, _built(_dataset)]
    root: str | None = None
    split: Literal["test", "validation"] = "test"
    every: Annotated[int, Field(ge=1)] = 1
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1)] | None = None


class ThreatTable(_Table):
    """`[threat]`: the norm, and the radii of the board as exact fractions or decimals."""

    norm: Annotated[Norm, _built(Norm)]
    radii: Annotated[tuple[str, ...], _built(_radii)]

    def exact_radii(self) -> tuple[Fraction, ...]:
        """The radii as fractions."""
        return tuple(parse_radius(radius) for radius in self.radii)


class EnsembleTable(_Table):
    """`[ensembles.NAME]`: how members are built and trained.

    `grid_radii` are the radii whose certified accuracy chooses among the candidates of `grid`; without it those of
    the spec.
    """

    architecture: Annotated[str, _built(_architecture)]
    options: dict[str, Any] = Field(default_factory=dict)
    members: Annotated[int, Field(ge=1)] = 1
    objective: Annotated[Objective, _built(_objective)]
    schedule: Annotated[Schedule, _built(_schedule)]
    start: str | None = None
    grid: dict[str, Annotated[tuple[Any, ...], BeforeValidator(_sole_or_list), Field(min_length=1)]] = Field(
        default_factory=dict
    )
    grid_radii: Annotated[tuple[str, ...], BeforeValidator(_radii)] | None = None

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


class SelectionTable(_Table):
    """`[selection]`: how candidates of a grid are scored, on validation images.

    The score is the mean certified accuracy over the radii of the spec (or the ensemble's `grid_radii`), of the
    candidate under `aggregation`, certified by `certifier` on `images` images of the validation split, spread
    evenly. Ties go to the first.
    """

    certifier: str
    aggregation: Annotated[Aggregation, _built(_aggregation)] = Field(
        default_factory=lambda: aggregation.create("weighted-average")
    )
    images: Annotated[int, Field(ge=1)] = 100


class EntryTable(_Table):
    """`[[entries]]`: lines of the board, one for each combination of the lists."""

    name: str | None = None
    ensemble: Annotated[tuple[str, ...], BeforeValidator(_sole_or_list), Field(min_length=1)]
    aggregation: Annotated[
        tuple[Annotated[Aggregation, _built(_aggregation)], ...],
        BeforeValidator(_sole_or_list),
        Field(min_length=1),
    ]
    certifier: Annotated[tuple[str, ...], BeforeValidator(_sole_or_list), Field(min_length=1)]


class ExperimentSpec(_Table):
    """A whole spec: data, threat, ensembles, certifiers, and the entries of the board."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]
    title: str = ""
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DataTable
    threat: ThreatTable
    ensembles: Annotated[dict[str, EnsembleTable], Field(min_length=1)]
    certifiers: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    entries: Annotated[tuple[EntryTable, ...], BeforeValidator(_sole_or_list), Field(min_length=1)]
    selection: SelectionTable | None = None
    diagnostics: bool = False

    def certifier(self, label: str) -> Certifier:
        """The certifier of a table `[certifiers.LABEL]`; its `method` is the label where it is not given."""
        table = dict(self.certifiers[label])
        return certifier_from_mapping(str(table.pop("method", label)), table)

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for label in self.certifiers:
            try:
                self.certifier(label)
            except (RegistryError, ValueError) as error:
                raise ValueError(f"[certifiers.{label}] {error}") from None
        self._check_starts()
        if self.selection is not None and self.selection.certifier not in self.certifiers:
            raise ValueError(
                f"[selection] unknown certifier {self.selection.certifier!r}. "
                f"{did_you_mean(self.selection.certifier, self.certifiers)}Defined in this spec: "
                f"{', '.join(self.certifiers)}."
            )
        for number, entry in enumerate(self.entries, start=1):
            for kind, used, known in (
                ("ensemble", entry.ensemble, self.ensembles),
                ("certifier", entry.certifier, self.certifiers),
            ):
                for label in used:
                    if label not in known:
                        raise ValueError(
                            f"entry {number}: unknown {kind} {label!r}. {did_you_mean(label, known)}"
                            f"Defined in this spec: {', '.join(known)}."
                        )
            combinations = len(entry.ensemble) * len(entry.aggregation) * len(entry.certifier)
            if entry.name is not None and combinations != 1:
                raise ValueError(f"entry {number}: a name fits one line of the board, this entry makes {combinations}.")
            for label in entry.ensemble:
                for combined in entry.aggregation:
                    try:
                        combined.uses(self.ensembles[label].members)
                    except ValueError as error:
                        raise ValueError(f"entry {number}, ensemble {label!r}: {error}") from None
        return self

    def _check_starts(self) -> None:
        fitted = any(isinstance(combined, Sween) for entry in self.entries for combined in entry.aggregation)
        if self.data.split == "validation" and (fitted or any(table.grid for table in self.ensembles.values())):
            raise ValueError(
                "[data] a grid or sween chooses on the validation images, so they cannot be certified as well: the "
                'certificates would rest on samples that were looked at before. Write split = "test".'
            )
        for label, table in self.ensembles.items():
            if table.grid and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", label):
                raise ValueError(
                    f"[ensembles.{label}] has a grid and so names a run: use letters, digits, '.', '_', '-'."
                )
            if table.grid and self.selection is None:
                raise ValueError(
                    f"[ensembles.{label}] has a grid, but nothing says how to choose. Add a [selection] table with "
                    "certifier = ..."
                )
            if table.objective.pairwise and table.members < 2:
                raise ValueError(
                    f"[ensembles.{label}] the objective {table.objective.name!r} compares members with each other and "
                    f"needs at least two, got members = {table.members}."
                )
            seen = [label]
            while table.start is not None:
                if table.start not in self.ensembles:
                    raise ValueError(
                        f"[ensembles.{seen[-1]}] unknown start {table.start!r}. "
                        f"{did_you_mean(table.start, self.ensembles)}Defined in this spec: {', '.join(self.ensembles)}."
                    )
                if table.start in seen:
                    raise ValueError(f"[ensembles.{label}] starts from itself: {' -> '.join([*seen, table.start])}.")
                start = self.ensembles[table.start]
                same = ("architecture", "options", "members")
                if any(getattr(start, name) != getattr(table, name) for name in same) or start.grid:
                    raise ValueError(
                        f"[ensembles.{seen[-1]}] cannot start from {table.start!r}: architecture, options and "
                        "members must be the same, and the start must not have a grid."
                    )
                seen.append(table.start)
                table = start


def packaged_specs() -> dict[str, Path]:
    """The specs that come with the package, by name."""
    return {path.stem: path for path in sorted(_PACKAGED.glob("*.toml"))}


def find_spec(written: str) -> Path:
    """The file of a spec: a path, or the name of a packaged one.

    Raises:
        SpecError: neither exists.
    """
    packaged = packaged_specs()
    if written in packaged:
        return packaged[written]
    path = Path(written)
    if path.is_file():
        return path
    raise SpecError(
        f"No spec {written!r}: neither a file nor a packaged spec. {did_you_mean(written, packaged)}"
        f"Packaged: {', '.join(packaged)}."
    )


def read_spec(path: Path) -> tuple[ExperimentSpec, str]:
    """A spec and its text.

    Raises:
        SpecError: not TOML, or not a spec: one sentence with the place and the nearest right word.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return ExperimentSpec.model_validate(tomllib.loads(text)), text
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path.name}: not valid TOML: {error}.") from error
    except pydantic.ValidationError as error:
        raise SpecError(f"{path.name}: {_sentence(error)}") from error


def _sentence(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    place = _place(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{place} is missing."
    if first["type"] != "value_error":
        message = f"{message}, got {first['input']!r}"
    return f"{place + ': ' if place else ''}{message.rstrip('.')}."


def _place(location: tuple[int | str, ...]) -> str:
    """`data.every`, `entries[2].aggregation`: counted from 1, as people count tables."""
    words = ""
    for part in location:
        words += f"[{part + 1}]" if isinstance(part, int) else f"{'.' if words else ''}{part}"
    return words
