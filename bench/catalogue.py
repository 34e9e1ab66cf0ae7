"""What a spec can name: every registry, with summaries and parameters."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import certifiers
from bench import datasets
from bench.spec import packaged_specs, read_spec
from ensembles import aggregation, architectures, training
from ensembles.parameters import Parameters, describe
from ensembles.registry import RegistryError

KINDS = ("certifiers", "objectives", "aggregations", "architectures", "datasets", "specs")


def catalogue(kinds: Sequence[str] = KINDS) -> dict[str, list[dict[str, Any]]]:
    """For each kind its items: name, origin, summary, and parameters with type and default.

    An item of another package that cannot be loaded is listed with the error as its summary.
    """
    return {kind: _ITEMS[kind]() for kind in kinds}


def _classes(
    names: Callable[[], list[str]], get: Callable[[str], Any], origin: Callable[[str], str]
) -> list[dict[str, Any]]:
    items = []
    for name in names():
        item: dict[str, Any] = {"name": name, "origin": origin(name), "summary": "", "parameters": []}
        try:
            found = get(name)
        except RegistryError as error:
            item["summary"] = f"cannot be used: {error}"
        else:
            item["summary"] = _first_line(found)
            item["parameters"] = _parameters(found)
            if isinstance(found, type) and issubclass(found, certifiers.Certifier):
                item |= {
                    "norms": sorted(found.norms),
                    "guarantee": found.guarantee.value,
                    "version": found.version,
                }
        items.append(item)
    return items


def _parameters(found: Any) -> list[dict[str, str]]:
    if isinstance(found, type) and issubclass(found, Parameters) and dataclasses.is_dataclass(found):
        return describe(found)
    return [
        {
            "name": parameter.name,
            "type": getattr(parameter.annotation, "__name__", str(parameter.annotation)),
            "default": "required" if parameter.default is parameter.empty else repr(parameter.default),
            "role": "identity",
        }
        for parameter in inspect.signature(found).parameters.values()
        # Input shape and data folder are given by the program, not by the table of the architecture.
        if parameter.name not in ("input_shape", "root")
    ]


def _first_line(found: Any) -> str:
    return (inspect.getdoc(found) or "").partition("\n")[0]


def _specs() -> list[dict[str, Any]]:
    return [
        {"name": name, "origin": "certbench", "summary": read_spec(path)[0].title, "parameters": []}
        for name, path in packaged_specs().items()
    ]


_ITEMS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "certifiers": lambda: _classes(certifiers.names, certifiers.get, certifiers.origin),
    "objectives": lambda: _classes(training.names, training.get, training.origin),
    "aggregations": lambda: _classes(aggregation.names, aggregation.get, aggregation.origin),
    "architectures": lambda: _classes(architectures.names, architectures.get, architectures.origin),
    "datasets": lambda: _classes(datasets.names, datasets.registry.get, datasets.registry.origin),
    "specs": _specs,
}
