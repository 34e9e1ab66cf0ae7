"""Shapes and types of annotations are enforced: in place of `jaxtyping.jaxtyped`, at half of what that costs or less.

For the sake of its messages `jaxtyped(typechecker=...)` binds the arguments of every call to their names, and checks
them again beside what is returned. That was half of the time of tests that call many small functions. Here a function
is one of beartype's, which has the checks compiled into it, within a scope of its own for the sizes of axes: each
argument and the value returned are checked once, and axes of one name must agree between them as before.
"""

import dataclasses
import functools
import inspect
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

#: What is raised is what `jaxtyped` raises, which is a TypeError.
_checks = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))

_jaxtyped = jaxtyping.jaxtyped

#: Opens a scope of axis names for a `with` statement; it keeps nothing itself, so that one is enough.
_SCOPE = _jaxtyped("context")


def enforce(*packages: str) -> None:
    """Check the functions and dataclasses of these packages, which must not have been imported yet."""
    # The hook writes `@jaxtyping.jaxtyped(typechecker=...)` above each of them, and looks that up when it is reached.
    jaxtyping.jaxtyped = _decorator  # type: ignore[assignment]
    install_import_hook(packages, "beartype.beartype")


def _decorator(what: Any = None, *, typechecker: Any = None) -> Any:
    """In place of `jaxtyped`, in all of its uses."""
    if isinstance(what, str):
        return _jaxtyped(what)
    return checked if what is None else checked(what)


def checked(what: Any) -> Any:
    """A function that checks its annotations, or the class itself, of which a dataclass checks what it is made of."""
    if inspect.isclass(what):
        # An inherited one was wrapped in the class that it comes from.
        if dataclasses.is_dataclass(what) and not hasattr(what.__init__, "__wrapped__"):
            what.__init__ = checked(what.__init__)
        return what
    if inspect.isgeneratorfunction(what):
        # beartype checks one while it is gone through, when other scopes are open; `jaxtyped` when it is called.
        return _jaxtyped(what, typechecker=_checks)
    function = _checks(what)
    if function is what:
        return what  # nothing is annotated

    @functools.wraps(what)
    def scoped(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        with _SCOPE:
            return function(*arguments, **named)

    return scoped
