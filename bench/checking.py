"""`certbench check`: a certifier held against the conformance kit, told to people and to programs."""

import tomllib
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from bench.progress import Reporter
from certifiers.conformance import Examination, Level, Status, Subject, examination
from certifiers.conformance.kit import Result, checks


class CheckUsageError(ValueError):
    """What was asked cannot be checked."""


def level_of(written: str) -> Level:
    """The level of that name, `L2` or `2`.

    Raises:
        CheckUsageError: there is none.
    """
    name = written.upper() if written.upper().startswith("L") else f"L{written}"
    if name not in Level.__members__:
        raise CheckUsageError(f"Unknown level {written!r}. Allowed: {', '.join(Level.__members__)}.")
    return Level[name]


def parameters_of(assignments: Sequence[str]) -> dict[str, Any]:
    """Parameters from `name=value`, with values as in a spec: `sigma=0.5`, `stages=["native-ibp"]`; others are text.

    Raises:
        CheckUsageError: one has no name or no value.
    """
    found: dict[str, Any] = {}
    for written in assignments:
        name, equals, value = written.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise CheckUsageError(f"--set takes name=value, got {written!r}. Write --set sigma=0.5.")
        try:
            found[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[name.strip()] = value.strip()
    return found


def examined(subject: Subject, up_to: Level, reporter: Reporter) -> Examination:
    """Run the checks, a step of progress each."""
    found: list[Result] = []
    with reporter.task(
        f"check {subject.certifier.name or type(subject.certifier).__name__}", len(checks(up_to))
    ) as task:
        for result in examination.results(subject, up_to):
            found.append(result)
            task.advance(1, result.check.name)
    return Examination(subject, up_to, tuple(found))


def as_data(found: Examination) -> dict[str, Any]:
    """The examination as plain data, for `--json`."""
    return {
        "certifier": found.subject.certifier.describe(),
        "written": found.subject.reference,
        "level": None if found.level is None else found.level.name,
        "asked": found.asked.name,
        "seed": found.subject.seed,
        "kit_version": found.version,
        "checks": [
            {
                "name": result.check.name,
                "level": result.check.level.name,
                "status": result.status.value,
                "judged": result.measured,
                "seconds": round(result.seconds, 3),
                "message": result.message,
                "counterexample": result.counterexample,
                "replay": list(result.replay),
            }
            for result in found.results
        ],
    }


def table(found: Examination) -> Table:
    """One line a check: level, outcome, answers judged, seconds."""
    built = Table(title=_text(f"{found.subject.reference}"), title_justify="left")
    for name in ("check", "level", "outcome", "judged", "seconds"):
        built.add_column(name, justify="right" if name in ("judged", "seconds") else "left", no_wrap=True)
    for result in found.results:
        built.add_row(
            result.check.name,
            result.check.level.name,
            _text(result.status.value, _STYLES[result.status]),
            str(result.measured or ""),
            f"{result.seconds:.2f}",
        )
    return built


def lines(found: Examination) -> list[str]:
    """What is to be said below the table: what does not apply and why, what failed, and last the level.

    Reasons are said once, with all checks that have them, and so is a failure that several checks met with the same
    counterexample: a method that always raises fails nearly everything, with one traceback.
    """
    said = [f"not applicable: {names}: {reason}" for reason, names in _by_message(found.of(Status.NOT_APPLICABLE))]
    said += [f"expected failure: {names}: {reason}" for reason, names in _by_message(found.of(Status.EXPECTED))]
    shown: dict[tuple[str, str], str] = {}
    for result in found.failures:
        # Checks may count alike and mean other inputs: each counterexample is shown.
        first = shown.setdefault((result.message, result.counterexample), result.check.name)
        alike = f"{result.check.level.name} {result.check.name}: failed as {first} did"
        said += ["", str(result) if first == result.check.name else alike]
    said.append("")
    if found.failures:
        failed = ", ".join(result.check.name for result in found.failures)
        said.append(f"{len(found.failures)} of {len(found.results)} checks failed: {failed}")
    reached = "none" if found.level is None else found.level.name
    kind = " (quick)" if found.subject.quick else ""
    return [
        *said,
        f"level reached: {reached} of {found.asked.name} asked{kind}; seed {found.subject.seed}, "
        f"kit version {found.version}",
    ]


def _by_message(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Each message with the names of all checks that came to it."""
    names: dict[str, list[str]] = {}
    for result in results:
        names.setdefault(result.message, []).append(result.check.name)
    return [(message, ", ".join(those)) for message, those in names.items()]


_STYLES = {Status.PASSED: "green", Status.FAILED: "bold red", Status.EXPECTED: "yellow", Status.NOT_APPLICABLE: "dim"}


def _text(words: str, style: str = "") -> Text:
    return Text(words, style=style)
