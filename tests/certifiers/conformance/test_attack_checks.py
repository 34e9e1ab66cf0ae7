"""The L3 checks: certifiers of ours pass, those that claim too much do not, and nothing passes unmeasured."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

import certifiers
from certifiers import Norm, RadiusCertifier
from certifiers.conformance import trained
from certifiers.conformance.kit import Level, Result, Status, Subject, checks, run
from certifiers.smoothing import Smoothing

NAMES = [own.name for own in checks() if own.name.startswith("attacks on")]


def results(certifier: certifiers.Certifier, seed: int = 7) -> dict[str, Result]:
    subject = Subject(certifier, seed=seed, quick=True)
    return {own.name: run(own, subject) for own in checks() if own.name in NAMES}


@dataclass(frozen=True, kw_only=True)
class Claims(RadiusCertifier):
    """Claims one radius everywhere."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})
    radius: float

    def radii(self, classifier: Any, x: Any, threat: Any, rng: Any) -> Any:
        return torch.full((len(x),), self.radius, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class ThreeTimesTheRadius(Smoothing):
    """Smoothing with three times the radius that the votes allow."""

    def certificate_of_counts(self, n_a: int) -> tuple[float, float]:
        p_a, radius = super().certificate_of_counts(n_a)
        return p_a, 3 * radius


def test_there_are_four_of_them_at_level_three() -> None:
    assert len(NAMES) == 4
    assert {own.level for own in checks() if own.name in NAMES} == {Level.L3}


def test_bounds_that_hold_pass() -> None:
    found = results(certifiers.create("native-ibp"))
    assert {result.status for result in found.values()} == {Status.PASSED}
    assert all(result.measured >= 4 for result in found.values())


@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_smoothing_passes_and_three_times_its_radius_does_not(sigma: float) -> None:
    found = results(certifiers.create("smoothing", sigma=sigma, n=1000))
    assert {name: result.status for name, result in found.items()} == dict.fromkeys(NAMES, Status.PASSED)
    false = results(ThreeTimesTheRadius(sigma=sigma, n=1000))
    assert {result.status for result in false.values()} == {Status.FAILED}
    for result in false.values():
        assert "images have a false smoothed claim; each may with probability 0.003." in result.message
        assert "votes on fresh noise to" in result.counterexample


def test_a_claim_of_everything_fails_with_its_counterexample() -> None:
    found = results(Claims(radius=0.6))
    assert {result.status for result in found.values()} == {Status.FAILED}
    for result in found.values():
        assert "certified 0.6 in linf with class" in result.message
        assert "witness [" in result.counterexample
        assert len(result.replay) == 3


def test_what_certifies_nothing_does_not_pass_and_what_does_not_apply_says_why() -> None:
    assert {result.status for result in results(Claims(radius=0.0)).values()} == {Status.FAILED}
    assert all("judged no answer" in result.message for result in results(Claims(radius=0.0)).values())
    found = results(certifiers.create("closed-form"))
    assert {result.status for result in found.values()} == {Status.NOT_APPLICABLE}
    assert all("closed-form certifies linear models" in result.message for result in found.values())


def test_the_trained_ensemble_is_right_mostly_and_the_same_each_time() -> None:
    made = trained(0.1)
    again = trained.__wrapped__(0.1)
    for first, second in zip(made.members, again.members, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert trained(0.1) is made
    assert trained(1.0).x.shape[1:] == (1, 8, 8)
    answers = torch.stack([member(made.x).argmax(1) for member in made.members])
    assert (answers == answers[0]).float().mean() > 0.95
