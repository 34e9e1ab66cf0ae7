"""What a check is: a property that certifiers must have, its level, and what running it came to."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import torch

from certifiers.certifier import Certifier
from certifiers.conformance.references import written
from ensembles.registry import did_you_mean
from ensembles.seeds import derive_seed

#: Raised whenever a check is added or made stricter: what an older kit passed may fail.
VERSION = 3


class Level(IntEnum):
    """How hard a certifier was looked at; a level is reached when it and all below hold."""

    L0 = 0  #: the contract: shapes, fail-closed answers, nothing disturbed, the same seed the same bits
    L1 = 1  #: truth: closed forms, enumerated networks, symmetries
    L2 = 2  #: planted counterexamples that no gradient finds
    L3 = 3  #: attacks on what it certifies of a trained ensemble
    L4 = 4  #: statistics of probabilistic certifiers


class Status(StrEnum):
    """What a check came to."""

    PASSED = "passed"
    FAILED = "failed"
    EXPECTED = "expected failure"  #: failed, as the certifier declares, with a reason
    NOT_APPLICABLE = "not applicable"


class Violation(Exception):  # noqa: N818  (what was found, not an accident)
    """A certifier lacks a property.

    Args:
        what: the property, and how it was broken, in one sentence with the numbers.
        counterexample: what breaks it: the classifier's name and the inputs, in full where they are small.
        replay: lines of Python that show it again; without them those that run the check again are shown.
    """

    def __init__(self, what: str, counterexample: str = "", replay: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        self.what, self.counterexample, self.replay = what, counterexample, replay


class NotApplicable(Exception):  # noqa: N818  (an answer, not an error)
    """Raised by a check that does not concern a certifier: says why."""


@dataclass(frozen=True)
class Subject:
    """A certifier on trial.

    Attributes:
        certifier: with its hyper-parameters.
        seed: base of everything random in the checks; another seed, other cases.
        quick: fewer and smaller cases of the same properties, for test suites.
        reference: how to write the certifier in Python, for replays; found out where it is empty.
    """

    certifier: Certifier
    seed: int = 7
    quick: bool = False
    reference: str = ""

    def __post_init__(self) -> None:
        """Find out how the certifier is written, if that was not said."""
        if not self.reference:
            object.__setattr__(self, "reference", written(self.certifier))

    def generator(self, *words: str | int) -> torch.Generator:
        """A generator of its own for each use, from the seed and the words that name the use."""
        return torch.Generator().manual_seed(derive_seed(self.seed, *words))


#: A check: takes a subject and returns how many answers it judged. Raises `Violation` or `NotApplicable`.
Property = Callable[[Subject], int]


@dataclass(frozen=True)
class Check:
    """A named property at its level."""

    name: str
    level: Level
    holds: Property = field(repr=False)

    @property
    def summary(self) -> str:
        """The first line of its description."""
        return (self.holds.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one check of one certifier came to."""

    check: Check
    status: Status
    measured: int = 0
    seconds: float = 0.0
    message: str = ""
    counterexample: str = ""
    replay: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The outcome as it is shown to people: a failure with its counterexample and the lines that replay it."""
        head = f"{self.check.level.name} {self.check.name}: {self.status}"
        if self.status is not Status.FAILED:
            said = self.message or f"{self.measured} answers judged"
            return f"{head}: {said}"
        parts = [f"{head}: {self.message}", f"property: {self.check.summary}"]
        if self.counterexample:
            parts.append(f"counterexample: {self.counterexample}")
        if self.replay:
            parts.append("replay:\n" + "\n".join(f"    {line}" for line in self.replay))
        return "\n".join(parts)

    def require(self) -> None:
        """Do nothing but where the check failed.

        Raises:
            AssertionError: it failed; says all that is known.
        """
        if self.status is Status.FAILED:
            raise AssertionError(str(self))


_checks: dict[str, Check] = {}


def check(name: str, level: Level) -> Callable[[Property], Property]:
    """Register a property under a name."""

    def registered(holds: Property) -> Property:
        if name in _checks:
            raise ValueError(f"Two checks are named {name!r}.")
        _checks[name] = Check(name, level, holds)
        return holds

    return registered


def checks(up_to: Level = Level.L4) -> list[Check]:
    """All checks up to a level, by level and in the order of their definition."""
    return sorted((own for own in _checks.values() if own.level <= up_to), key=lambda own: own.level)


def named(name: str) -> Check:
    """The check of that name.

    Raises:
        KeyError: there is none; says the nearest.
    """
    if name not in _checks:
        raise KeyError(f"Unknown check {name!r}. {did_you_mean(name, list(_checks))}")
    return _checks[name]


def run(own: Check, subject: Subject) -> Result:
    """Run one check. What it raises is a failure of the certifier, and so is a check that judged nothing."""
    started = time.perf_counter()

    def result(status: Status, **found: object) -> Result:
        return Result(check=own, status=status, seconds=time.perf_counter() - started, **found)  # type: ignore[arg-type]

    quick = ", quick=True" if subject.quick else ""
    replay = (
        "from certifiers import conformance",
        f"subject = conformance.Subject({subject.reference}, seed={subject.seed}{quick})",
        f"conformance.run(conformance.named({own.name!r}), subject).require()",
    )
    try:
        measured = own.holds(subject)
    except NotApplicable as reason:
        return result(Status.NOT_APPLICABLE, message=str(reason))
    except Violation as found:
        return result(
            Status.FAILED,
            message=found.what,
            counterexample=found.counterexample,
            replay=found.replay or replay,
        )
    except Exception as error:
        where = traceback.format_exc(limit=-3)
        return result(Status.FAILED, message=f"{type(error).__name__}: {error}", counterexample=where, replay=replay)
    if measured <= 0:
        return result(Status.FAILED, message="the check judged no answer, so it shows nothing", replay=replay)
    return result(Status.PASSED, measured=measured)
