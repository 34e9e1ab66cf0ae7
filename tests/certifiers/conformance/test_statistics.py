from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import certifiers
from certifiers import Findings, KeyedRandomness, Norm, RadiusCertifier, ThreatModel
from certifiers.conformance import kit, statistics_checks
from certifiers.conformance.kit import Level, Status, Subject, Violation
from certifiers.conformance.smoothed_truth import Slabs
from certifiers.conformance.statistics_trials import judged, sampler_of
from certifiers.smoothing import Smoothing
from tests.certifiers.conformance.smoothing_mutants import MUTANTS, OnGrid, Plain, PlainLooks, PlainPhases

STATISTICS = [own for own in kit.checks() if own.level is Level.L4]


def outcomes(certifier: Any, *, quick: bool = True, seed: int = 7) -> dict[str, kit.Result]:
    return {own.name: kit.run(own, Subject(certifier, quick=quick, seed=seed)) for own in STATISTICS}


def failures(found: dict[str, kit.Result]) -> dict[str, str]:
    return {name: result.message for name, result in found.items() if result.status is Status.FAILED}


def idle(found: dict[str, kit.Result]) -> set[str]:
    return {name for name, result in found.items() if result.status is Status.NOT_APPLICABLE}


@pytest.mark.parametrize(("mutant", "checks"), [item[1:] for item in MUTANTS], ids=[item[0] for item in MUTANTS])
def test_each_mistake_is_caught_by_each_check_that_is_named(mutant: RadiusCertifier, checks: tuple[str, ...]) -> None:
    for name in checks:
        assert kit.run(kit.named(name), Subject(mutant, quick=True)).status is Status.FAILED, name


@pytest.mark.parametrize("honest", [Plain(), PlainLooks(), PlainPhases(), OnGrid()], ids=lambda own: type(own).__name__)
def test_what_the_mutants_are_made_from_passes_everything(honest: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    if type(honest) is not Plain:  # looks cost time
        monkeypatch.setattr(statistics_checks, "_QUICK_TRIALS", 300)
    found = outcomes(honest)
    assert failures(found) == {}
    assert idle(found) == {"calibration-counts", "calibration-members"}


@pytest.mark.parametrize(
    ("name", "parameters", "missing"),
    [
        ("smoothing", {"sigma": 0.12, "n": 500, "n0": 10, "alpha": 0.05, "batch_size": 250}, {"calibration-members"}),
        ("smoothing", {"sigma": 2.0, "n": 9_999, "alpha": 1e-5}, {"calibration-members"}),
        ("smoothing-l1", {"sigma": 0.3, "n": 1000, "noise_kind": "uniform"}, {"calibration-members"}),
        ("smoothing-l1", {"sigma": 0.3, "n": 1000, "noise_kind": "laplace"}, {"calibration-members"}),
        ("smoothing-eas", {"sigma": 0.3, "n": 1000}, {"calibration-counts"}),
        ("smoothing-integer", {"sigma": 0.25, "n": 1000, "levels": 1024}, {"calibration-members"}),
    ],
    ids=str,
)
def test_smoothing_passes_everything(
    name: str, parameters: dict[str, Any], missing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mutants have 1000 trials each. What is right was tried thousands of times, on counts, in certifiers/smoothing.
    monkeypatch.setattr(statistics_checks, "_QUICK_TRIALS", 100 if name == "smoothing-l1" else 300)
    found = outcomes(certifiers.create(name, **parameters), seed=len(parameters))
    assert failures(found) == {}
    assert idle(found) == missing


def test_noise_on_a_coarse_grid_is_not_judged_by_the_truth_of_gaussian_noise() -> None:
    found = outcomes(certifiers.create("smoothing-integer", sigma=0.25, n=1000, levels=8))
    assert {result.status for result in found.values()} == {Status.NOT_APPLICABLE}
    assert "it certifies a SmoothedOnGrid, whose probabilities are not known here" in found["calibration"].message


def test_unknown_noise_is_not_judged_by_the_truth_of_other_noise() -> None:
    @dataclass(frozen=True)
    class Unheard:
        classifier: nn.Module
        sigma: float = 0.5

    @dataclass(frozen=True, kw_only=True)
    class Other(Plain):
        def target(self, classifier: nn.Module) -> Any:
            return Unheard(classifier)

    found = outcomes(Other())
    assert {result.status for result in found.values()} == {Status.NOT_APPLICABLE}
    assert "it certifies a Unheard, whose probabilities are not known here" in found["calibration"].message


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("smoothing-adaptive", {"bound": "betting", "ceiling": None}),
        ("smoothing-adaptive", {"bound": "union", "futility": 0.2}),
        ("smoothing-phases", {}),
    ],
    ids=str,
)
def test_smoothing_in_looks_passes_everything(
    name: str, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Looks cost time. Thousands of trials of these bounds and rules are in tests/certifiers/smoothing, on counts.
    monkeypatch.setattr(statistics_checks, "_QUICK_TRIALS", 100)
    found = outcomes(certifiers.create(name, sigma=0.25, n=1000, **parameters))
    assert failures(found) == {}
    assert idle(found) == {"calibration-members"} | ({"calibration-counts"} if name == "smoothing-phases" else set())


def test_proofs_have_no_statistics() -> None:
    found = outcomes(certifiers.create("native-ibp"))
    assert {result.status for result in found.values()} == {Status.NOT_APPLICABLE}
    assert {result.message for result in found.values()} == {
        "its certificates are proofs: there is no failure probability to measure"
    }


@dataclass(frozen=True, kw_only=True)
class Fixed(Plain):
    """Without parameters that trials could set."""

    n: ClassVar[int] = 1000  # type: ignore[misc]
    alpha: ClassVar[float] = 0.001  # type: ignore[misc]


def test_checks_that_cannot_set_n_say_so_and_the_others_run() -> None:
    found = outcomes(Fixed())
    assert failures(found) == {}
    assert found["calibration"].message == "it has no parameter 'alpha' that could be set small enough for many trials"
    assert found["fresh-samples"].message == "it has no parameter 'n' that could be set small enough for many trials"
    assert found["largest-radius"].status is Status.PASSED
    assert found["counts-and-radius"].status is Status.PASSED


@dataclass(frozen=True, kw_only=True)
class Laplace(Plain):
    def target(self, classifier: nn.Module) -> Any:
        return {"noise": "laplace"}


def test_other_noise_is_not_judged_by_gaussian_truth() -> None:
    found = outcomes(Laplace())
    assert {result.status for result in found.values()} == {Status.NOT_APPLICABLE}
    assert "it certifies a dict, whose probabilities are not known here" in found["calibration"].message


@dataclass(frozen=True, kw_only=True)
class Never(Plain):
    def radius(self, votes: Tensor, top: int) -> float:
        return 0.0


def test_a_certifier_that_certifies_nothing_passes_no_calibration() -> None:
    message = kit.run(kit.named("calibration"), Subject(Never(), quick=True)).message
    assert message == "the check judged no answer, so it shows nothing"


@dataclass(frozen=True, kw_only=True)
class Promised(Plain):
    """False with the probability it was given, neither more nor less."""

    rate: float = 0.05

    def radii(self, classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Findings:
        drawn = torch.cat([torch.rand(1, generator=rng.generator(row)) for row in range(len(x))])
        return Findings(
            radius=(drawn < self.rate).double(), prediction=torch.zeros(len(x)).long(), failure_probability=self.alpha
        )


@pytest.mark.parametrize("seed", range(2))
def test_trials_allow_alpha_and_not_twice_as_much(seed: int) -> None:
    sampler = sampler_of(Subject(Promised(), seed=seed))
    tie = Slabs(torch.ones(3), (0.0,), sampler.sigma)
    assert judged(sampler, tie, 4000, "as promised", 0.05) > 100
    twice = replace(sampler, certifier=Promised(rate=0.1))
    with pytest.raises(
        Violation, match=r"broken: \d{3} of \d{4} certificates are false, where alpha = 0.05 allows 253 of 4000"
    ):
        judged(twice, tie, 4000, "broken", 0.05)


@dataclass(frozen=True, kw_only=True)
class Counting(Smoothing):
    def certificate_of_counts(self, n_a: int) -> tuple[float, float]:
        p_a, radius = super().certificate_of_counts(n_a)
        return p_a, radius * (1 + 1e-5)


def test_counts_alone_show_an_error_of_a_hundred_thousandth() -> None:
    found = kit.run(kit.named("calibration-counts"), Subject(Counting(sigma=0.5), quick=True))
    assert found.status is Status.FAILED
    assert "there so many votes have probability" in found.message
    assert Norm.L2 in Counting.norms
