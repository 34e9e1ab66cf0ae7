"""From what a person writes to a certifier, and back: `ibp`, or `package.module:Class`."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from certifiers import registry
from certifiers.certifier import Certifier
from ensembles.registry import UnknownNameError


def resolve(reference: str, **parameters: Any) -> Certifier:
    """The certifier of a registered name or of `module:Class`, made with its `example` and then these parameters.

        resolve("smoothing", sigma=0.5)
        resolve("my_package.my_module:MyCertifier")

    Raises:
        UnknownNameError: no certifier has that name.
        ValueError: `module:Class` names no certifier.
        ImportError: its module cannot be imported.
        ParameterError: a parameter is unknown, missing or not allowed.
    """
    found = _class_of(reference) if ":" in reference else registry.get(reference)
    return made(found, parameters, reference)


def made(cls: type[Certifier], parameters: Mapping[str, Any], label: str = "") -> Certifier:
    """An instance with the parameters of its `example`, replaced and completed by those given."""
    return cls.from_mapping({**cls.example, **parameters}, f"certifier {label or cls.name or cls.__name__!r}")


def written(certifier: Certifier) -> str:
    """An expression that makes an equal certifier: `conformance.resolve("smoothing", sigma=0.5)`."""
    cls = type(certifier)
    try:
        registered = registry.get(cls.name) is cls
    except UnknownNameError:
        registered = False
    reference = cls.name if registered else f"{cls.__module__}:{cls.__qualname__}"
    given = {
        field.name: getattr(certifier, field.name)
        for field in dataclasses.fields(certifier)
        if field.init and getattr(certifier, field.name) != {**_defaults(cls), **cls.example}.get(field.name, _NOTHING)
    }
    return (
        f"conformance.resolve({', '.join([repr(reference), *(f'{name}={value!r}' for name, value in given.items())])})"
    )


_NOTHING = object()


def _defaults(cls: type[Certifier]) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(cls) if field.default is not dataclasses.MISSING}


def _class_of(reference: str) -> type[Certifier]:
    module, _, name = reference.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not issubclass(found, Certifier):
        got = "nothing of that name" if found is None else repr(found)
        raise ValueError(f"{reference!r} must name a class derived from Certifier as module:Class, got {got}.")
    return found
