"""Hyper-parameters: frozen dataclasses whose fields declare what they allow, checked when they are made.

A class of hyper-parameters derives from `Parameters` and annotates its fields with the types below (or any
type pydantic understands); wrong values are refused with the name of the field, what it got and what it allows.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import pydantic

from ensembles.registry import did_you_mean

PositiveInt = Annotated[int, pydantic.Field(gt=0)]
NonNegativeInt = Annotated[int, pydantic.Field(ge=0)]
PositiveFloat = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
#: Strictly between 0 and 1.
Probability = Annotated[float, pydantic.Field(gt=0, lt=1)]


P = TypeVar("P", bound="Parameters")


class ParameterError(ValueError):
    """A hyper-parameter is unknown, missing, or outside what it allows."""


def execution_field(default: Any) -> Any:
    """A field that says how to compute, not what: it is left out of `identity`, and must not change a result."""
    return dataclasses.field(default=default, metadata={"execution": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameters:
    """Base of all hyper-parameter classes; subclasses are frozen dataclasses too."""

    def __post_init__(self) -> None:
        """Check every field against its annotation; an integer given for a float becomes one.

        `sigma = 1` and `sigma = 1.0` of a spec are one identity so, and one key.

        Raises:
            ParameterError: a value has the wrong type or lies outside the allowed range.
        """
        cls: Any = type(self)
        for field_name, check in _checks(cls).items():
            value = getattr(self, field_name)
            try:
                object.__setattr__(self, field_name, check(value))
            except pydantic.ValidationError as error:
                problem = error.errors()[0]["msg"]
                raise ParameterError(
                    f"{type(self).__name__}: {field_name} = {value!r} is not allowed. {problem}."
                ) from None

    @classmethod
    def from_mapping(cls: "type[P]", values: Mapping[str, Any], label: str) -> "P":
        """An instance from a table of a spec; lists become tuples. `label` names the table in errors.

        Raises:
            ParameterError: a name is unknown (with the nearest right one), missing, or a value is not allowed.
        """
        allowed = {field.name: field for field in dataclasses.fields(cls) if field.init}
        for given in values:
            if given not in allowed:
                known = ", ".join(sorted(allowed)) or "none"
                raise ParameterError(
                    f"Unknown parameter {given!r} of {label}. {did_you_mean(given, allowed)}Allowed: {known}."
                )
        missing = [name for name, field in allowed.items() if name not in values and _is_required(field)]
        if missing:
            raise ParameterError(
                f"{label} needs {' and '.join(map(repr, missing))}. Add {missing[0]} = ... to its table."
            )
        return cls(**{name: _as_tuple(value) for name, value in values.items()})

    def identity(self) -> dict[str, Any]:
        """The parameters that decide the result, ready for canonical JSON (no execution fields)."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.metadata.get("execution", False)
        }


def describe(parameters: type[Parameters]) -> list[dict[str, str]]:
    """One row a field (name, type, default, whether it is an execution setting), for `certbench list`."""
    hints = typing.get_type_hints(parameters)
    return [
        {
            "name": field.name,
            "type": _type_name(hints[field.name]),
            "default": "required" if _is_required(field) else repr(field.default),
            "role": "execution" if field.metadata.get("execution", False) else "identity",
        }
        for field in dataclasses.fields(parameters)
        if field.init
    ]


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(repr, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


@functools.cache
def _checks(cls: "type[Any]") -> dict[str, Callable[[Any], Any]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        field.name: functools.partial(pydantic.TypeAdapter(hints[field.name]).validate_python, strict=True)
        for field in dataclasses.fields(cls)
    }
