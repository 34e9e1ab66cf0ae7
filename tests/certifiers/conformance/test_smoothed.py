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
from certifiers.conformance.voters import Rounding
from certifiers.smoothing import Smoothed, SmoothedMembers, SmoothedOnGrid

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


def member(cut: float) -> nn.Module:
    """Class 1 for the mean of nine inputs above `cut`: at a distance of `3 (cut - 1/2)` from the image of halves."""
    weight = torch.stack([torch.zeros(9), torch.full((9,), 1 / 9)])
    return nn.Sequential(linear_layer(weight, torch.tensor([0.0, -cut])))


@pytest.mark.parametrize(("radius", "false"), [(0.27, False), (0.297, False), (0.375, True)])
def test_the_surest_member_is_what_a_claim_of_all_members_is_tested_by(radius: float, false: bool) -> None:
    """Three half-spaces along one line: the answer of the surest changes midway between the outer two, at .3.

    At t along the diagonal they give class 1 with `Phi((t - .9) / sigma)`, `Phi((t - .3) / sigma)` and, the third,
    `Phi((t + .3) / sigma)`. The largest probability of class 0 is the first one's and that of class 1 the third one's:
    they are equal where `.9 - t = t + .3`.
    """
    image = torch.full((1, 9), 0.5)
    members = tuple(member(0.5 + away / 3) for away in (0.9, 0.3, -0.3))
    target = SmoothedMembers(members, SIGMA)
    found = refute_smoothed(target, image, 0, radius, ThreatModel("l2"), QUICK, samples=20_000)
    assert found.refuted == false
    assert found.distance <= radius
    assert found.forward_passes % 3 == 0


def test_a_member_that_is_sure_of_the_claim_saves_it() -> None:
    """Two of three members change their answer within the ball, the third is surer: the claim is true."""
    image = torch.full((1, 9), 0.5)
    target = SmoothedMembers(tuple(member(0.5 + away / 3) for away in (3.0, 0.1, 0.1)), SIGMA)
    found = refute_smoothed(target, image, 0, 0.5, ThreatModel("l2"), QUICK, samples=20_000)
    assert not found.refuted


def test_equally_sure_members_are_refuted_no_more_often_than_said() -> None:
    """At the radius where the surest of either class are even, the worst that is true, through the whole attack."""
    image = torch.full((1, 9), 0.5)
    target = SmoothedMembers(tuple(member(0.5 + away / 3) for away in (0.9, 0.3, -0.3)), SIGMA)
    found = [
        refute_smoothed(
            target, image, 0, 0.3, ThreatModel("l2"), Effort(steps=2, restarts=2, seed=seed), samples=1000, image_id=3
        )
        for seed in range(100)
    ]
    assert not any(each.refuted for each in found)
    tested = [each for each in found if each.p_value < 1]
    assert len(tested) > 10
    # At 5 percent rather than 1e-6, as far as a hundred can show.
    assert sum(each.p_value < 0.05 for each in tested) <= binom.ppf(1 - 1e-4, len(found), 0.05)


@pytest.mark.parametrize(("radius", "false"), [(0.29, False), (0.375, True)])
def test_smoothing_on_a_grid_is_attacked_as_smoothing_of_what_rounds(radius: float, false: bool) -> None:
    classifier, image = half_space()
    target = SmoothedOnGrid(classifier, SIGMA, 255)
    found = refute_smoothed(target, image, 0, radius, ThreatModel("l2"), QUICK, samples=10_000)
    assert found.refuted == false


def test_what_rounds_sees_the_number_of_a_level_and_nothing_else() -> None:
    seen: list[torch.Tensor] = []

    class Eyes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.detach().clone())
            return x[:, :2] ** 2

    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    Rounding(Eyes(), 255)(x).sum().backward()
    assert torch.equal(seen[0], (x.detach() * 255).round() / 255)
    assert x.grad is not None
    assert torch.equal(x.grad[:, :2], 2 * seen[0][:, :2])
