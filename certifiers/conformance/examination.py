"""All checks of one certifier: what it is known to fail, and the level that it reached."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from certifiers.conformance.kit import VERSION, Check, Level, Result, Status, Subject, checks, run


@dataclass(frozen=True)
class Examination:
    """The results of all checks up to a level.

    Attributes:
        subject: who was examined, and with which seed.
        asked: the level.
        results: of each check.
        version: of the kit.
    """

    subject: Subject
    asked: Level
    results: tuple[Result, ...]
    version: int = VERSION

    @property
    def level(self) -> Level | None:
        """The highest level such that it, and each below, has no failure and measured something; None: not even L0.

        An expected failure is a failure here.
        """
        reached = None
        for level in Level:
            found = [result for result in self.results if result.check.level is level]
            broken = any(result.status in (Status.FAILED, Status.EXPECTED) for result in found)
            if level > self.asked or broken or not any(result.measured > 0 for result in found):
                break
            reached = level
        return reached

    @property
    def failures(self) -> list[Result]:
        """What failed and was not expected to, or was expected to and did not."""
        return self.of(Status.FAILED)

    def of(self, status: Status) -> list[Result]:
        """The results of a status."""
        return [result for result in self.results if result.status is status]

    @property
    def measured(self) -> int:
        """Answers that were judged, by all checks."""
        return sum(result.measured for result in self.results)


def examine(subject: Subject, up_to: Level = Level.L2) -> Examination:
    """Run every check up to a level; what the certifier declares in `expected_failures` is expected to fail."""
    return Examination(subject, up_to, tuple(results(subject, up_to)))


def results(subject: Subject, up_to: Level = Level.L2) -> Iterator[Result]:
    """The results of `examine`, one after the other.

    A certifier whose `expected_failures` name no check fails before anything is run, as one more result of L0.
    """
    known = {own.name for own in checks()}
    unknown = sorted(set(subject.certifier.expected_failures) - known)
    for own in checks(up_to):
        if unknown and own is checks(up_to)[0]:
            yield Result(check=own, status=Status.FAILED, message=_no_such(unknown, known))
        yield judged(own, subject)


def judged(own: Check, subject: Subject) -> Result:
    """Run one check, and hold its outcome against what the certifier expects of it."""
    found = run(own, subject)
    reason = subject.certifier.expected_failures.get(own.name)
    if reason is None:
        return found
    if not reason.strip():
        return replace(found, status=Status.FAILED, message=f"expected_failures[{own.name!r}] gives no reason")
    if found.status is Status.FAILED:
        return replace(found, status=Status.EXPECTED, message=f"{reason} (it says: {found.message})")
    return replace(
        found,
        status=Status.FAILED,
        message=f"is expected to fail ({reason}), and came to: {found.status}. Remove it from expected_failures.",
        replay=(),
    )


def _no_such(unknown: list[str], known: set[str]) -> str:
    return (
        f"expected_failures names {', '.join(unknown)}, which no check is called. Checks: {', '.join(sorted(known))}."
    )
