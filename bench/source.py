"""The code of a certifier, as a digest: a check holds for the code that was checked, not for its name."""

import functools
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from bench.provenance import package_version
from certifiers import Certifier, get

#: Code that every certifier stands on, the conformance checks among it.
_SHARED = ("certifiers", "ensembles")

_LIBRARIES = ("torch", "scipy", "numpy", "highspy", "cvxpy", "auto-LiRPA")


@functools.cache
def shared_source() -> str:
    """The digest of the code that every certifier stands on, as this process has it."""
    return _digest(_SHARED)


def own_source(certifier: Certifier) -> str:
    """The digest of the packages or modules that a certifier's class and its bases come from, without those above.

    Of a certifier of stages, those of its stages too. Empty for the certifiers of certbench. What these packages import
    from elsewhere is not in it.
    """
    stages = (get(stage["name"]) for stage in certifier.describe().get("stages", ()))
    classes = (cls for part in (type(certifier), *stages) for cls in part.__mro__)
    modules = (cls.__module__.partition(".")[0] for cls in classes)
    own = dict.fromkeys(name for name in modules if name not in (*_SHARED, *sys.stdlib_module_names))
    return _digest(own) if own else ""


@functools.cache
def libraries() -> str:
    """The versions of the libraries whose arithmetic certificates rest on: `torch 2.13.0, scipy 1.17.1, ...`."""
    return ", ".join(f"{name} {package_version(name)}" for name in _LIBRARIES)


def _digest(packages: Iterable[str]) -> str:
    """SHA-256 over the names and bytes of the Python files of top-level packages; of a module, of its one file."""
    total = sha256()
    for package in packages:
        module = sys.modules[package]
        folders = [Path(folder) for folder in getattr(module, "__path__", ())]
        if folders:
            files = [(path.relative_to(folder), path) for folder in folders for path in sorted(folder.rglob("*.py"))]
        else:
            file = getattr(module, "__file__", None)
            files = [(Path(Path(file).name), Path(file))] if file else []
        for name, path in files:
            total.update(f"{package}/{name.as_posix()}\n".encode())
            total.update(sha256(path.read_bytes()).digest())
    return total.hexdigest()
