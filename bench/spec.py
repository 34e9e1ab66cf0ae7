"""Specs: what an experiment is, read from TOML and checked at the edge, with one sentence for each mistake."""

import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

import pydantic
from pydantic import BeforeValidator, Field, model_validator

from bench.spec_fields import Table, sole_or_list
from bench.spec_tables import DataTable, EnsembleTable, EntryTable, PlantedTable, SelectionTable, ThreatTable
from certifiers import Certifier
from certifiers import from_mapping as certifier_from_mapping
from ensembles import Sween
from ensembles.registry import RegistryError, did_you_mean
from leaderboards.run_names import RUN_NAME

_PACKAGED = Path(__file__).parent / "specs"


class SpecError(ValueError):
    """A spec that cannot be run: one sentence that says where, what it got, what is allowed."""


class ExperimentSpec(Table):
    """A whole spec: data, threat, ensembles, certifiers, and the entries of the board."""

    name: Annotated[str, Field(pattern=f"^{RUN_NAME}$")]
    title: str = ""
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DataTable
    threat: ThreatTable
    ensembles: Annotated[dict[str, EnsembleTable], Field(min_length=1)]
    planted: dict[str, PlantedTable] = Field(default_factory=dict)
    certifiers: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    entries: Annotated[tuple[EntryTable, ...], BeforeValidator(sole_or_list), Field(min_length=1)]
    selection: SelectionTable | None = None
    diagnostics: bool = False

    def certifier(self, label: str) -> Certifier:
        """The certifier of a table `[certifiers.LABEL]`; its `method` is the label where it is not given."""
        table = dict(self.certifiers[label])
        return certifier_from_mapping(str(table.pop("method", label)), table)

    def sources(self) -> dict[str, EnsembleTable | PlantedTable]:
        """What entries may name as their ensemble: trained ones and planted ones."""
        return {**self.ensembles, **self.planted}

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for label in self.certifiers:
            try:
                self.certifier(label)
            except (RegistryError, ValueError) as error:
                raise ValueError(f"[certifiers.{label}] {error}") from None
        self._check_starts()
        self._check_planted()
        if self.selection is not None and self.selection.certifier not in self.certifiers:
            raise ValueError(
                f"[selection] unknown certifier {self.selection.certifier!r}. "
                f"{did_you_mean(self.selection.certifier, self.certifiers)}Defined in this spec: "
                f"{', '.join(self.certifiers)}."
            )
        self._check_selection()
        for number, entry in enumerate(self.entries, start=1):
            for kind, used, known in (
                ("ensemble", entry.ensemble, self.sources()),
                ("certifier", entry.certifier, self.certifiers),
            ):
                for label in used:
                    if label not in known:
                        raise ValueError(
                            f"entry {number}: unknown {kind} {label!r}. {did_you_mean(label, known)}"
                            f"Defined in this spec: {', '.join(known)}."
                        )
            lists = (entry.ensemble, entry.aggregation, entry.certifier, entry.precision)
            combinations = math.prod(map(len, lists))
            if entry.name is not None and combinations != 1:
                raise ValueError(f"entry {number}: a name fits one line of the board, this entry makes {combinations}.")
            for label in entry.ensemble:
                for combined in entry.aggregation:
                    try:
                        combined.uses(self.sources()[label].members)
                    except ValueError as error:
                        raise ValueError(f"entry {number}, ensemble {label!r}: {error}") from None
        return self

    def _check_selection(self) -> None:
        if self.selection is None:
            return
        combined = self.selection.aggregation
        if isinstance(combined, Sween):
            raise ValueError(
                "[selection] sween fits its weights on the validation images, on which candidates are scored. Choose "
                'by another aggregation, such as aggregation = "weighted-average".'
            )
        for label, table in self.ensembles.items():
            if table.grid:
                try:
                    combined.uses(table.members)
                except ValueError as error:
                    raise ValueError(f"[selection] ensemble {label!r}: {error}") from None

    def _check_planted(self) -> None:
        for label, table in self.planted.items():
            source = self.ensembles.get(table.cancelling_pair_of)
            if label in self.ensembles:
                raise ValueError(f"[planted.{label}] there is an ensemble of that name. Choose another.")
            if source is None:
                raise ValueError(
                    f"[planted.{label}] unknown ensemble {table.cancelling_pair_of!r}. "
                    f"{did_you_mean(table.cancelling_pair_of, self.ensembles)}Defined in this spec: "
                    f"{', '.join(self.ensembles)}."
                )
            if source.architecture != "mlp" or source.options.get("hidden", True) == [] or source.grid:
                raise ValueError(
                    f"[planted.{label}] a cancelling pair is made of an ensemble with architecture 'mlp', with hidden "
                    f"layers and without a grid, got {source.architecture!r}, options {source.options}"
                    f"{' with a grid' if source.grid else ''}."
                )

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
    except UnicodeDecodeError as error:
        raise SpecError(f"{path.name}: not valid TOML: {error}.") from error
    return spec_of(text, path.name), text


def spec_of(text: str, name: str) -> ExperimentSpec:
    """A spec from its text; `name` is what mistakes are told of.

    Raises:
        SpecError: as `read_spec`.
    """
    try:
        return ExperimentSpec.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{name}: not valid TOML: {error}.") from error
    except pydantic.ValidationError as error:
        raise SpecError(f"{name}: {_sentence(error)}") from error


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
