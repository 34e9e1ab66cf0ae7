"""Certifiers by name: ours, and those of other packages through the entry point group `certbench.certifiers`."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from certifiers.certifier import Certifier
from ensembles.registry import Registry

C = TypeVar("C", bound=type[Certifier])

_registry: Registry[type[Certifier]] = Registry("certifier", "certbench.certifiers", Certifier)
origin = _registry.origin


def register(name: str) -> Callable[[C], C]:
    """A class decorator that names a certifier and makes `create(name)` find it.

    Put it above `@dataclass(frozen=True, kw_only=True)`.
    """

    def decorate(cls: C) -> C:
        cls.name = name
        return _registry.register(name)(cls)

    return decorate


def names() -> list[str]:
    """All names, of ours and of installed packages, sorted."""
    return _registry.names()


def get(name: str) -> type[Certifier]:
    """The class of that name.

    Raises:
        UnknownNameError: no certifier has that name; names the nearest.
        RegistryError: the package that provides it cannot be loaded, or does not provide a certifier.
    """
    return _registry.get(name)


def create(name: str, **parameters: Any) -> Certifier:
    """The certifier of that name with these hyper-parameters.

    Raises:
        UnknownNameError: no certifier has that name; names the nearest.
        ParameterError: a hyper-parameter is unknown or not allowed.
    """
    return from_mapping(name, parameters)


def from_mapping(name: str, parameters: Mapping[str, Any]) -> Certifier:
    """`create` from a table of a spec."""
    return get(name).from_mapping(parameters, f"certifier {name!r}")
