"""Names for things: the built-in ones, and those that other distributions offer through entry points."""

import difflib
import importlib
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Generic, TypeVar, cast

T = TypeVar("T")
U = TypeVar("U")

_HOUSE = frozenset({"ensembles", "certifiers", "leaderboards", "bench"})


class RegistryError(Exception):
    """A name that cannot be registered, or a plug-in that cannot be loaded."""


class UnknownNameError(RegistryError, LookupError):
    """A name that nothing is registered under; its text has the nearest name and the list."""

    @classmethod
    def of(cls, kind: str, name: str, available: Iterable[str]) -> "UnknownNameError":
        """The error that says `Unknown certifier 'corwn'. Did you mean 'crown'? Available: crown, milp.`."""
        allowed = sorted(available)
        listed = ", ".join(allowed) or "none"
        return cls(f"Unknown {kind} {name!r}. {did_you_mean(name, allowed)}Available: {listed}.")


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """`"Did you mean 'crown'? "` (with the space) when a name in `allowed` is near `word`, else `""`.

    Case is ignored and underscores equal hyphens; the answer has the spelling of `allowed`.
    """
    spelling = {_normal(name): name for name in allowed}
    nearest = difflib.get_close_matches(_normal(word), spelling, n=1)
    return f"Did you mean {spelling[nearest[0]]!r}? " if nearest else ""


class Registry(Generic[T]):
    """Things of one kind by name.

    Names ignore case, and underscores equal hyphens: `MNIST_5k` finds `mnist-5k`, the spelling that is
    listed. Plug-ins are found when the registry is first asked, again whenever `sys.path` has changed or
    `refresh` was called, and are imported only by `get`: a broken one is listed like any other.

    Args:
        kind: what the things are, singular, as error messages say it: `"certifier"`.
        entry_point_group: the group that plug-ins declare, `"certbench.certifiers"`; None takes no plug-ins.
        base: the class that a plug-in must derive from; None takes anything.
    """

    def __init__(self, kind: str, entry_point_group: str | None = None, base: type | None = None) -> None:
        self.kind = kind
        self.base = base
        self.entry_point_group = entry_point_group
        self._registered: dict[str, T] = {}
        self._spelling: dict[str, str] = {}
        self._plug_ins: dict[str, metadata.EntryPoint] = {}
        self._seen_path: tuple[str, ...] | None = None

    def register(self, name: str) -> Callable[[U], U]:
        """Decorator that files a class or function under `name` and returns it unchanged.

        Raises:
            RegistryError: the name is taken.
        """
        key = _normal(name)

        def file(item: U) -> U:
            if key in self._registered:
                raise RegistryError(
                    f"The {self.kind} name {key!r} is taken by {_described(self._registered[key])}, "
                    f"got {_described(item)}. Register it under another name."
                )
            self._registered[key] = cast("T", item)
            self._spelling[key] = name
            self._seen_path = None  # a plug-in found earlier may have this very name
            return item

        return file

    def resolve(self, name: str) -> str:
        """The listed spelling of `name`.

        Raises:
            UnknownNameError: no such name.
        """
        key = self._key(name)
        return self._spelling.get(key, key)

    def get(self, name: str) -> T:
        """What is registered under `name`; a plug-in is imported here.

        Raises:
            UnknownNameError: no such name.
            RegistryError: the plug-in of that name fails to load.
        """
        key = self._key(name)
        plug_in = self._found().get(key)
        if plug_in is None:
            return self._registered[key]
        try:
            loaded = plug_in.load()
        except Exception as error:
            project = _project(plug_in)
            raise RegistryError(
                f"The {self.kind} {key!r} is a plug-in of {_origin(plug_in)} "
                f"({plug_in.name} = {plug_in.value}), which failed to load: {type(error).__name__}: {error}. "
                f"Repair it (pip install --upgrade {project}) or remove it (pip uninstall {project})."
            ) from error
        if self.base is not None and not (isinstance(loaded, type) and issubclass(loaded, self.base)):
            raise RegistryError(
                f"The {self.kind} {key!r} of {_origin(plug_in)} is {loaded!r}, which does not derive from "
                f"{self.base.__name__}. Name a class that does in its entry points."
            )
        if self.base is not None and hasattr(self.base, "name"):
            self._name(loaded, plug_in)
        return cast("T", loaded)

    def names(self) -> list[str]:
        """All names, sorted, plug-ins included."""
        return sorted(self._spelling.get(key, key) for key in self._registered.keys() | self._found().keys())

    def origin(self, name: str) -> str:
        """Where `name` comes from.

        `"certbench"`; for a plug-in its distribution and version, `"certify-more 1.2"`; for something
        registered by code outside certbench the module that defines it.

        Raises:
            UnknownNameError: no such name.
        """
        key = self._key(name)
        plug_in = self._found().get(key)
        if plug_in is not None:
            return _origin(plug_in)
        module = str(getattr(self._registered[key], "__module__", "certbench"))
        return "certbench" if module.partition(".")[0] in _HOUSE else module

    def refresh(self) -> None:
        """Forget the plug-ins found, so that distributions installed since then are seen."""
        importlib.invalidate_caches()
        self._seen_path = None

    def _name(self, loaded: type, plug_in: metadata.EntryPoint) -> None:
        """Give a plug-in's class the name it is offered under: names are parts of keys and never inherited."""
        if "name" not in vars(loaded) or not vars(loaded)["name"]:
            loaded.name = _normal(plug_in.name)  # type: ignore[attr-defined]
        elif _normal(str(vars(loaded)["name"])) != _normal(plug_in.name):
            raise RegistryError(
                f"The {self.kind} {plug_in.name!r} of {_origin(plug_in)} calls itself {vars(loaded)['name']!r}. "
                "Give the class and its entry point the same name; to offer another's class, derive from it."
            )

    def _key(self, name: str) -> str:
        key = _normal(name)
        if key not in self._registered and key not in self._found():
            raise UnknownNameError.of(self.kind, name, self.names())
        return key

    def _found(self) -> Mapping[str, metadata.EntryPoint]:
        path = tuple(sys.path)
        if self._seen_path != path:
            self._plug_ins = self._discover()
            self._seen_path = path
        return self._plug_ins

    def _discover(self) -> dict[str, metadata.EntryPoint]:
        found: dict[str, metadata.EntryPoint] = {}
        for entry_point in _entry_points(self.entry_point_group):
            key = _normal(entry_point.name)
            built_in = self._registered.get(key)
            # A plug-in's module may also call `register`: then both are the same thing, and no clash.
            if built_in is not None and getattr(built_in, "__module__", None) != entry_point.module:
                taken_by = _described(built_in)
            elif key in found and _project(found[key]) != _project(entry_point):
                taken_by = _origin(found[key])
            else:
                # The first of two copies of one distribution is the one that Python imports.
                found.setdefault(key, entry_point)
                continue
            warnings.warn(
                f"The {self.kind} {key!r} of the plug-in {_origin(entry_point)} is ignored: {taken_by} has "
                f"that name. Rename it in the plug-in's entry points.",
                stacklevel=4,
            )
        return found


def _entry_points(group: str | None) -> list[metadata.EntryPoint]:
    """The entry points of a group; unlike `metadata.entry_points` it survives a malformed distribution."""
    found: list[metadata.EntryPoint] = []
    if group is None:
        return found
    for distribution in metadata.distributions():
        try:
            found += distribution.entry_points.select(group=group)
        except Exception as error:
            warnings.warn(
                f"The entry points of the distribution {distribution.metadata['Name']} are ignored: "
                f"its entry_points.txt is malformed ({type(error).__name__}: {error}). Reinstall it.",
                stacklevel=5,
            )
    return found


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _described(item: object) -> str:
    return f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', repr(item))}"


def _project(entry_point: metadata.EntryPoint) -> str:
    return str(entry_point.dist.metadata["Name"]) if entry_point.dist else "an unnamed distribution"


def _origin(entry_point: metadata.EntryPoint) -> str:
    return f"{_project(entry_point)} {entry_point.dist.version}" if entry_point.dist else _project(entry_point)
