"""What a check is, what running one comes to, and how levels follow."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import KeyedRandomness, Norm, RadiusCertifier, ThreatModel, conformance
from certifiers.conformance import Check, Level, NotApplicable, Status, Subject, Violation, kit
from certifiers.conformance.examination import Examination
from certifiers.conformance.references import made, written
from certifiers.conformance.trial import FALSE_ALARM, allowed
from tests.certifiers.conformance.mutants import Intervals, NormalizedEpsilon, RunnerUpOnly
from tests.certifiers.conformance.mutants.conduct import GlobalRandomness


@dataclass(frozen=True, kw_only=True)
class Nothing(RadiusCertifier):
    """Certifies nothing."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})

    def radii(self, classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        return torch.zeros(len(x))


def own(holds: Any, level: Level = Level.L0, name: str = "own") -> Check:
    return Check(name, level, holds)


def raising(error: Exception) -> Any:
    def holds(subject: Subject) -> int:
        """It holds."""
        raise error

    return holds


# ---- one check


@pytest.mark.parametrize(
    ("holds", "status", "said"),
    [
        (lambda subject: 3, Status.PASSED, ""),
        (lambda subject: 0, Status.FAILED, "the check judged no answer, so it shows nothing"),
        (raising(NotApplicable("no norm")), Status.NOT_APPLICABLE, "no norm"),
        (raising(Violation("too large", "x = [1]")), Status.FAILED, "too large"),
        (raising(RuntimeError("broken")), Status.FAILED, "RuntimeError: broken"),
    ],
)
def test_outcomes(holds: Any, status: Status, said: str) -> None:
    found = conformance.run(own(holds), Subject(Nothing()))
    assert (found.status, found.message) == (status, said)
    assert found.measured == (3 if status is Status.PASSED else 0)
    if status is Status.FAILED:
        assert len(found.replay) == 3
        with pytest.raises(AssertionError, match=said):
            found.require()
    else:
        found.require()


def test_names_of_checks_are_their_own() -> None:
    every = conformance.checks()
    assert len({each.name for each in every}) == len(every) > 40
    assert [each.level for each in every] == sorted(each.level for each in every)
    assert {each.level for each in conformance.checks(Level.L1)} == {Level.L0, Level.L1}
    assert all(each.summary for each in every)
    with pytest.raises(KeyError, match=r"Unknown check 'coner'. Did you mean 'corner'\?"):
        conformance.named("coner")
    with pytest.raises(ValueError, match="Two checks are named 'corner'"):
        conformance.check("corner", Level.L2)(lambda subject: 1)


@pytest.mark.parametrize("mutant", [RunnerUpOnly, NormalizedEpsilon])
def test_the_lines_of_a_failure_run_and_fail_again(mutant: type[Any]) -> None:
    name = "linear-lowest-logit" if mutant is RunnerUpOnly else "linear-normalized"
    found = conformance.run(conformance.named(name), Subject(mutant(), seed=11, quick=True))
    assert found.status is Status.FAILED
    assert len(found.replay) == 3
    assert "true" in found.counterexample
    assert "x = [" in found.counterexample
    shown = str(found)
    assert found.check.summary in shown
    assert all(f"    {line}" in shown for line in found.replay)
    with pytest.raises(AssertionError) as raised:
        exec("\n".join(found.replay), {})  # noqa: S102
    assert str(raised.value) == shown


def test_an_answer_that_is_not_repeated_is_shown_twice() -> None:
    found = conformance.run(conformance.named("same-seed"), Subject(GlobalRandomness(), quick=True))
    said = re.search(r"another (radius|margin) of row (\d+): ([\d.e-]+), then ([\d.e-]+)\. Whatever", found.message)
    assert said, found.message
    assert float(said[3]) != float(said[4])
    assert found.counterexample.startswith("x = [[")


def test_another_seed_draws_other_cases() -> None:
    shown = [
        conformance.run(conformance.named("corner"), Subject(made(RunnerUpOnlyToo, {}), seed=seed, quick=True))
        for seed in (1, 1, 2)
    ]
    assert shown[0].counterexample == shown[1].counterexample != shown[2].counterexample


@dataclass(frozen=True, kw_only=True)
class RunnerUpOnlyToo(Intervals):
    """Certifies everything."""

    def finished(self, bounds: Tensor) -> Tensor:
        return torch.ones_like(bounds)


# ---- all checks


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the checks."""

    def replace(*mine: Check) -> None:
        monkeypatch.setattr(kit, "_checks", {each.name: each for each in mine})

    return replace


PASS: Any = lambda subject: 1  # noqa: E731
FAIL: Any = raising(Violation("wrong"))
SKIP: Any = raising(NotApplicable("no"))


@pytest.mark.parametrize(
    ("outcomes", "level"),
    [
        ([PASS, PASS, PASS], Level.L2),
        ([PASS, PASS, FAIL], Level.L1),
        ([PASS, FAIL, PASS], Level.L0),
        ([FAIL, PASS, PASS], None),
        ([PASS, SKIP, PASS], Level.L0),
        ([SKIP, SKIP, SKIP], None),
    ],
)
def test_a_level_needs_all_below_it_and_something_measured(few: Any, outcomes: Any, level: Level | None) -> None:
    few(*(own(holds, Level(number), f"own-{number}") for number, holds in enumerate(outcomes)))
    assert conformance.examine(Subject(Nothing()), Level.L2).level is level


def test_no_level_above_the_one_asked(few: Any) -> None:
    few(*(own(PASS, Level(number), f"own-{number}") for number in range(5)))
    found = conformance.examine(Subject(Nothing()), Level.L1)
    assert (found.level, found.measured, len(found.results)) == (Level.L1, 2, 2)


def expecting(reasons: Mapping[str, str]) -> Subject:
    return Subject(type("Expecting", (Nothing,), {"expected_failures": reasons})())


def test_expected_failures_are_strict_and_cap_the_level(few: Any) -> None:
    few(own(PASS, Level.L0, "first"), own(FAIL, Level.L1, "second"))
    found = conformance.examine(expecting({"second": "solver tolerance"}), Level.L1)
    assert [result.status for result in found.results] == [Status.PASSED, Status.EXPECTED]
    assert found.results[1].message == "solver tolerance (it says: wrong)"
    assert (found.failures, found.level) == ([], Level.L0)

    passing = conformance.examine(expecting({"first": "it was wrong once"}), Level.L0)
    assert passing.level is None
    assert passing.failures[0].message.startswith(
        "is expected to fail (it was wrong once), and came to: passed. Remove"
    )

    nameless = conformance.examine(expecting({"frist": "a reason"}), Level.L0)
    assert nameless.level is None
    assert (
        "expected_failures names frist, which no check is called. Checks: first, second."
        in nameless.failures[0].message
    )

    silent = conformance.examine(expecting({"second": " "}), Level.L1)
    assert silent.failures[0].message == "expected_failures['second'] gives no reason"


def test_one_that_certifies_nothing_reaches_no_level() -> None:
    found = conformance.examine(Subject(Nothing(), quick=True), Level.L0)
    assert isinstance(found, Examination)
    assert found.level is None
    assert "certifies no ordinary classifier" in found.failures[0].message


def test_who_is_answered_as_often_as_he_asks_is_not_interrupted() -> None:
    few = conformance.resolve("smoothing", n0=1, n=20, alpha=0.01)  # asks twice
    found = conformance.run(conformance.named("interrupted"), Subject(few, quick=True))
    assert found.status is Status.PASSED, found
    assert found.measured == 12  # of eighteen, those that raise at the first or second call


# ---- references


@pytest.mark.parametrize(
    ("certifier", "expected"),
    [
        (certifiers.create("crown"), "conformance.resolve('crown')"),
        (certifiers.create("crown", bisection_steps=4), "conformance.resolve('crown', bisection_steps=4)"),
        (made(certifiers.get("smoothing"), {}), "conformance.resolve('smoothing')"),
        (made(certifiers.get("smoothing"), {"sigma": 0.5}), "conformance.resolve('smoothing', sigma=0.5)"),
        (
            certifiers.create("smoothing", sigma=0.25),
            "conformance.resolve('smoothing', n=100000)",
        ),
        (RunnerUpOnly(), "conformance.resolve('tests.certifiers.conformance.mutants.bounds:RunnerUpOnly')"),
    ],
)
def test_a_certifier_is_written_so_that_it_is_made_again(certifier: Any, expected: str) -> None:
    assert written(certifier) == expected == Subject(certifier).reference
    again = eval(expected, {"conformance": conformance})  # noqa: S307
    assert again.identity() == certifier.identity()


def test_references_that_name_no_certifier() -> None:
    with pytest.raises(ValueError, match=r"must name a class derived from Certifier as module:Class, got nothing"):
        conformance.resolve("certifiers:NoSuchClass")
    with pytest.raises(ValueError, match="got <enum 'Norm'>"):
        conformance.resolve("certifiers:Norm")
    with pytest.raises(LookupError, match="Did you mean 'crown'"):
        conformance.resolve("corwn")


# ---- chance


def test_a_false_alarm_of_a_probabilistic_certifier_is_as_rare_as_is_said() -> None:
    from scipy.stats import binom

    for certificates, alpha in [(20, 0.001), (40, 0.001), (120, 0.001), (40, 0.05)]:
        most = allowed(certificates, alpha)
        assert binom.sf(most, certificates, alpha) <= FALSE_ALARM < binom.sf(most - 1, certificates, alpha)
        assert most < certificates / 2
    assert len(conformance.checks(Level.L2)) * FALSE_ALARM < 1e-6


# ---- pytest


def test_the_suite_gives_named_tests() -> None:
    test = conformance.suite(RunnerUpOnly, level="L1")
    (mark,) = test.pytestmark  # type: ignore[attr-defined]
    name, every = mark.args
    assert name == "own"
    assert [mark.kwargs["ids"](each) for each in every][:2] == ["L0-answers", "L0-bisection"]
    assert [each.name for each in every] == [each.name for each in conformance.checks(Level.L1)]
    test(conformance.named("parameters"))
    with pytest.raises(pytest.fail.Exception, match="lowest logit"):
        test(conformance.named("linear-lowest-logit"))
    with pytest.raises(pytest.skip.Exception, match="no noise"):
        test(conformance.named("keyed-randomness"))


@pytest.fixture(autouse=True)
def _generators_are_left_alone() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)
