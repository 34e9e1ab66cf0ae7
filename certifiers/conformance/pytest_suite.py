"""The kit as tests of another package: one line, one named test a check."""

from collections.abc import Callable
from typing import Any

from certifiers.certifier import Certifier
from certifiers.conformance.examination import judged
from certifiers.conformance.kit import Check, Level, Status, Subject, checks
from certifiers.conformance.references import made, resolve


def suite(
    certifier: str | type[Certifier] | Certifier, *, level: Level | str = Level.L2, seed: int = 7, quick: bool = True
) -> Callable[[Check], None]:
    """A test function for pytest with a parameter a check: `test_conformance[L1-linear-two-classes]`.

        # test_my_certifier.py
        from certifiers import conformance

        test_conformance = conformance.suite("my-certifier")

    A check that does not apply is skipped with its reason; a failure shows the counterexample and the lines that
    replay it; what the certifier declares in `expected_failures` is an expected failure, and strict.

    Args:
        certifier: a registered name, `module:Class`, a class (both made with its `example`), or an instance.
        level: up to which checks are run.
        seed: of everything random.
        quick: fewer and smaller cases of the same properties.
    """
    # Only who tests needs pytest.
    import pytest

    if isinstance(certifier, Certifier):
        subject = Subject(certifier, seed=seed, quick=quick)
    else:
        chosen = resolve(certifier) if isinstance(certifier, str) else made(certifier, {})
        subject = Subject(chosen, seed=seed, quick=quick)
    wanted = Level[level] if isinstance(level, str) else level

    def names(own: Any) -> str:
        return f"{own.level.name}-{own.name}"

    @pytest.mark.parametrize("own", checks(wanted), ids=names)
    def test_conformance(own: Check) -> None:
        result = judged(own, subject)
        if result.status is Status.NOT_APPLICABLE:
            pytest.skip(result.message)
        if result.status is Status.EXPECTED:
            pytest.xfail(result.message)
        if result.status is Status.FAILED:
            pytest.fail(str(result), pytrace=False)

    return test_conformance
