"""Refutation of smoothed claims: false ones fall, true ones stand, and by how much chance may err."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from certifiers import ThreatModel
from certifiers.conformance import Effort, probability_if_true, refute_smoothed
from certifiers.conformance.smoothed import LEVEL
from certifiers.conformance.truth import linear_layer
from certifiers.smoothing import Smoothed

SIGMA, AWAY = 0.5, 0.3
QUICK = Effort(steps=6, restarts=2)


def half_space() -> tuple[nn.Module, torch.Tensor]:
    """Class 1 beyond a plane at `AWAY` in l2: the smoothed classifier changes its answer at that very plane."""
    image = torch.full((1, 9), 0.5)
    weight = torch.stack([torch.zeros(9), torch.full((9,), 1 / 3)])
    return nn.Sequential(linear_layer(weight, torch.tensor([0.0, -float(weight[1] @ image[0]) - AWAY]))), image


@pytest.mark.parametrize(
    ("norm", "radius", "false"),
    [
        ("l2", 0.8 * AWAY, False),
        ("l2", 0.99 * AWAY, False),
        ("l2", 1.25 * AWAY, True),
        ("linf", 0.99 * AWAY / 3, False),
        ("linf", 1.25 * AWAY / 3, True),
        ("l1", 0.99 * AWAY * 3, False),
        ("l1", 1.4 * AWAY * 3, True),
    ],
)
def test_beside_the_true_radius(norm: str, radius: float, false: bool) -> None:
    classifier, image = half_space()
    found = refute_smoothed(Smoothed(classifier, SIGMA), image, 0, radius, ThreatModel(norm), QUICK, samples=10_000)
    assert found.refuted == false
    assert found.distance <= radius
    assert found.point.shape == (9,)
    if false:
        assert found.answer == 1
        assert found.votes[1] > found.votes[0] > 0
        assert sum(found.votes) == 10_000
        assert 0 < found.p_value < LEVEL
    again = refute_smoothed(Smoothed(classifier, SIGMA), image, 0, radius, ThreatModel(norm), QUICK, samples=10_000)
    assert torch.equal(again.point, found.point)
    assert again.votes == found.votes


def test_the_sign_test_is_the_binomial_one() -> None:
    for votes, challenger in [(0, 0), (10, 0), (3, 7), (400, 600), (5000, 5000)]:
        exact = binom.sf(challenger - 1, votes + challenger, 0.5)
        assert probability_if_true(votes, challenger) == pytest.approx(exact, rel=1e-9)
    assert probability_if_true(0, 100_000) > 0  # 0 is what a proof has
    with pytest.raises(ValueError, match="Votes cannot be negative, got -1 and 3"):
        probability_if_true(-1, 3)


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.0), (0.34, 0.33, 0.33), (0.02, 0.02, 0.96), (0.6, 0.4, 0.0)])
def test_true_claims_are_refuted_no_more_often_than_said(shares: tuple[float, float, float]) -> None:
    """At a level that 400 trials can see: the worst true claim has equal shares, other classes beside or not."""
    level, trials = 0.05, 400
    drawn = np.random.default_rng(5).multinomial(2000, shares, size=trials)
    refuted = sum(probability_if_true(int(votes[0]), int(votes[1])) < level for votes in drawn)
    assert refuted <= binom.ppf(1 - 1e-4, trials, level)
    if shares[0] == shares[1]:
        assert refuted > 0  # and it is no looser than the counts allow
    assert all(probability_if_true(int(votes[0]), int(votes[1])) >= LEVEL for votes in drawn)


def test_true_claims_at_the_boundary_stand_two_hundred_times() -> None:
    """Through the whole attack: at the true radius the two classes are even, which is the worst that is true."""
    classifier, image = half_space()
    effort = [Effort(steps=2, restarts=2, seed=seed) for seed in range(200)]
    target, threat = Smoothed(classifier, SIGMA), ThreatModel("l2")
    found = [refute_smoothed(target, image, 0, AWAY, threat, each, samples=1000, image_id=3) for each in effort]
    assert not any(each.refuted for each in found)
    tested = [each for each in found if sum(each.votes)]
    assert len(tested) > 20
    early = sum(each.p_value < 0.05 for each in tested)
    assert early <= binom.ppf(1 - 1e-4, len(tested), 0.05)


def test_nan_votes_for_nobody_and_samples_are_asked_for() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 2), float("nan"))

    image = torch.full((1, 4), 0.5)
    found = refute_smoothed(Smoothed(Broken(), 0.5), image, 0, 0.1, ThreatModel("l2"), QUICK)
    assert (found.refuted, found.votes) == (False, (0, 0))
    with pytest.raises(ValueError, match="A test needs at least one sample, got 0"):
        refute_smoothed(Smoothed(Broken(), 0.5), image, 0, 0.1, ThreatModel("l2"), QUICK, samples=0)
