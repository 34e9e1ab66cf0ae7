"""Data sets by name."""

from collections.abc import Callable
from pathlib import Path

from bench.datasets.dataset import Dataset
from bench.datasets.errors import DataError
from ensembles.registry import Registry

#: Loaders: a function of the folder that the user named, or None, to the data set.
registry: Registry[Callable[[Path | None], Dataset]] = Registry("data set", "certbench.datasets")
register = registry.register


def names() -> list[str]:
    """The names of all data sets, sorted, plug-ins included."""
    return registry.names()


def load(name: str, root: str | Path | None = None) -> Dataset:
    """The data set of that name.

    Example:
        >>> load("mnist-5k").input_shape
        (1, 28, 28)

    Args:
        name: one of `names()`; case is ignored and underscores equal hyphens.
        root: the folder it lies in, for those that do not come with a package; `~` is the home folder.

    Raises:
        UnknownNameError: no such data set.
        RegistryError: the plug-in that offers it fails to load.
        DataError: it is missing, damaged or not the one expected.
    """
    loaded = registry.get(name)(None if root is None else Path(root).expanduser())
    if not isinstance(loaded, Dataset):
        raise DataError(
            f"The loader of the data set {name!r} ({registry.origin(name)}) must return a "
            f"bench.datasets.Dataset, got {type(loaded).__name__}."
        )
    return loaded
