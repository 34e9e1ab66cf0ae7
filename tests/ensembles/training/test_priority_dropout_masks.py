"""Units are dropped in training with the stated frequencies, and none in evaluation."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from ensembles import Ensemble
from ensembles.training.priority_dropout import LPD, PDD, PDDWithDEG, PriorityDropout
from tests.ensembles.training.priority_dropout_papers import keep_of


class Recorder(nn.Module):
    """A member of given features, whose head records what it is given."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.given = nn.Parameter(features)
        self.head = nn.Linear(features.shape[-1], 3).to(features.dtype)
        self.seen: list[Tensor] = []
        self.head.register_forward_pre_hook(lambda _, arguments: self.seen.append(arguments[0].detach()))

    def features(self, x: Tensor) -> Tensor:
        return self.given.expand(len(x), -1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


FIRST, SECOND = [0.0, 0.03, 0.32, 0.38, 0.37, 1.21], [0.33, 1.22, 1.28, 0.0, 0.0, 0.03]


def recorders() -> Ensemble:
    return Ensemble([Recorder(torch.tensor(row)) for row in (FIRST, SECOND)])


@pytest.mark.parametrize("objective", [LPD(), PDD(), PDD(active_only=True)], ids=["lpd", "pdd", "pdd-active"])
def test_masks_are_drawn_with_the_stated_frequencies(literal: Any, objective: PriorityDropout) -> None:
    ensemble, copies = recorders(), 4000
    keep = keep_of(objective, FIRST, SECOND)
    x = torch.zeros(copies, 1)
    objective.dropped_logits(ensemble, [x, x], literal.generator(17))
    masks = []
    for member, row, rates in zip(ensemble.members, (FIRST, SECOND), keep, strict=True):
        kept = member.seen[0] != 0
        for unit, (value, rate) in enumerate(zip(row, rates, strict=True)):
            if value > 0:
                assert torch.equal(member.seen[0][:, unit], torch.where(kept[:, unit], value, 0.0))
                # Ten units an objective: a fair one fails once in a hundred million such tests.
                assert binomtest(int(kept[:, unit].sum()), copies, rate).pvalue > 1e-9
                masks.append(kept[:, unit].double())
    # Units, samples and members are independent: no correlation beyond 5 standard errors.
    drawn = torch.stack(masks)
    assert float((torch.corrcoef(drawn) - torch.eye(len(drawn))).abs().max()) < 5 / math.sqrt(copies)
    after = torch.corrcoef(torch.cat([drawn[:, :-1], drawn[:, 1:]]))
    assert float(after[: len(drawn), len(drawn) :].abs().max()) < 5 / math.sqrt(copies)


def test_features_are_larger_in_evaluation_than_in_training_unless_scaled(literal: Any) -> None:
    # What the papers' code does not divide by: expected feature = keep * feature in training, feature in evaluation.
    x = torch.zeros(4000, 1)
    for objective, smallest, largest in ((PDD(), 0.0, 0.9), (LPD(), 0.127, 0.977)):
        plain, scaled = recorders(), recorders()
        objective.dropped_logits(plain, [x, x], literal.generator(1))
        type(objective)(inverted_scaling=True).dropped_logits(scaled, [x, x], literal.generator(1))
        plain.eval()(x)
        for member, twin in zip(plain.members, scaled.members, strict=True):
            training, evaluation = (seen.mean(0) for seen in member.seen)
            active = evaluation > 0
            ratio = training[active] / evaluation[active]
            assert float(ratio.max()) <= largest + 0.03
            assert float(ratio.min()) >= smallest
            assert float(evaluation.sum()) > float(training.sum()) * 1.03
            # Scaled, the expectations agree (to five standard errors of the mean of 4000 draws).
            error = 5 * ((1 / ratio[ratio > 0.02] - 1).clamp(min=0) / 4000).sqrt()
            found = (twin.seen[0].mean(0)[active] / evaluation[active])[ratio > 0.02]
            assert bool(((found - 1).abs() <= error + 1e-6).all())


def test_under_pdd_evaluation_sees_several_times_the_features_of_training(literal: Any) -> None:
    # On a real network: METHODS section 3, "several times larger", which saturates confidences.
    problem = literal.build_problem(members=3, hidden=64, batch=64)
    sums = []
    for member in problem.ensemble.members:
        member.head.register_forward_pre_hook(lambda _, arguments: sums.append(float(arguments[0].detach().sum())))
    objective = PDD()
    objective.terms(problem.ensemble.train(), problem.x, problem.y, literal.generator(0))
    training, _ = sum(sums), sums.clear()
    problem.ensemble.eval()(problem.x)
    assert sum(sums) > 2 * training
    sums.clear()
    PDD(inverted_scaling=True).terms(problem.ensemble.train(), problem.x, problem.y, literal.generator(0))
    scaled, _ = sum(sums), sums.clear()
    problem.ensemble.eval()(problem.x)
    assert sum(sums) == pytest.approx(scaled, rel=0.25)


@pytest.mark.parametrize("objective", [PDD(), PDDWithDEG(), LPD()], ids=lambda objective: objective.name)
def test_evaluation_is_deterministic_and_uses_all_units(literal: Any, objective: PriorityDropout) -> None:
    problem = literal.build_problem(members=2)
    before = problem.ensemble.eval()(problem.x)
    objective.loss(problem.ensemble.train(), problem.x, problem.y, literal.generator(0)).backward()
    problem.ensemble.eval()
    torch.manual_seed(1)
    once = problem.ensemble(problem.x)
    torch.manual_seed(2)
    assert torch.equal(problem.ensemble(problem.x), once)
    assert torch.equal(once, before), "training leaves nothing behind but gradients"
    plain = torch.stack([member.head(member.features(problem.x)).softmax(-1) for member in problem.ensemble.members])
    assert torch.equal(once, plain.mean(0))
