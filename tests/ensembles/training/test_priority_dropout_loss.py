"""The loss of priority dropout equals the papers' formulas, and its draws come from the generator alone."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ensembles import Ensemble
from ensembles.training.priority_dropout import LPD, PDD, PDDWithDEG, PriorityDropout
from tests.ensembles.training.priority_dropout_papers import literal_keep


def literal_masks(
    objective: PriorityDropout, ensemble: Ensemble, noisy: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Keep probabilities of the papers, and the factor of each unit, drawn after the noise."""
    with torch.no_grad():
        features = torch.stack([member.features(noisy) for member in ensemble.members])
    keep = literal_keep(features, objective)
    dtype = objective.keep_probabilities(features).dtype
    drawn = torch.rand(features.shape, generator=generator, dtype=dtype)
    factor = torch.zeros_like(features)
    for index in itertools.product(*map(range, features.shape)):
        if drawn[index] < keep[index]:
            factor[index] = 1 / float(keep[index]) if objective.inverted_scaling else 1.0
    return keep, factor


class Dropped(nn.Module):
    """A member with the factor of each unit fixed, for one sample."""

    def __init__(self, member: Any, factor: Tensor) -> None:
        super().__init__()
        self.member = member
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.member.head(self.member.features(x) * self.factor)


@pytest.mark.parametrize("inverted_scaling", [False, True])
@pytest.mark.parametrize("statistics", ["sample", "batch"])
@pytest.mark.parametrize("kind", [PDD, PDDWithDEG, LPD])
def test_terms_equal_the_formulas(literal: Any, kind: Any, statistics: str, inverted_scaling: bool) -> None:
    problem = literal.build_problem(members=3, hidden=12, seed=5)
    objective = kind(sigma=0.5, statistics=statistics, inverted_scaling=inverted_scaling)
    generator = literal.generator(6)
    noisy = problem.x + 0.5 * torch.randn(problem.x.shape, generator=generator, dtype=torch.float64)
    _, factor = literal_masks(objective, problem.ensemble, noisy, generator)
    assert bool((factor > 0).any())
    assert bool((factor == 0).any())
    batch, pairs = len(noisy), list(itertools.combinations(range(3), 2))
    loss = dispersion = 0.0
    for b, label in enumerate(problem.y.tolist()):
        members = [Dropped(member, factor[k, b]) for k, member in enumerate(problem.ensemble.members)]
        loss += (
            sum(literal.cross_entropy(literal.logits_of(one, noisy[b : b + 1])[0], label) for one in members) / batch
        )
        gradients = [literal.input_gradient(one, noisy[b], literal.negative_log_confidence(label)) for one in members]
        for i, j in pairs:
            alive = any(gradients[i]) and any(gradients[j])
            dispersion += literal.cosine(gradients[i], gradients[j]) / batch if alive else 0.0
    truth = {"cross_entropy": loss}
    if kind is PDDWithDEG:
        truth["gradient_dispersion"] = 0.01 * dispersion
        assert abs(dispersion) > 0.1
    terms = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(6))
    # Keep rates are of single precision, and inverted scaling divides by them.
    assert literal.values(terms) == pytest.approx(truth, rel=1e-6, abs=1e-8)


def test_training_draws_anew_and_from_the_generator_alone(literal: Any) -> None:
    problem = literal.build_problem(members=2, hidden=20)
    generator = literal.generator(3)

    def loss(generator: torch.Generator) -> float:
        return LPD().loss(problem.ensemble, problem.x, problem.y, generator).item()

    first, second = loss(generator), loss(generator)
    assert first != second
    again = literal.generator(3)
    torch.manual_seed(5)
    assert [loss(again), loss(again)] == [first, second]


def test_no_gradient_flows_through_the_keep_probabilities(literal: Any) -> None:
    # With inverted scaling the factor is 1 / keep: as a constant it makes the gradient that of a fixed mask.
    problem = literal.build_problem(members=2, hidden=10)
    objective = LPD(inverted_scaling=True)
    generator = literal.generator(6)
    torch.randn(problem.x.shape, generator=generator, dtype=torch.float64)
    _, factor = literal_masks(objective, problem.ensemble, problem.x, generator)
    fixed = sum(
        nn.functional.cross_entropy(member.head(member.features(problem.x) * own), problem.y)
        for member, own in zip(problem.ensemble.members, factor, strict=True)
    )
    parameters = list(problem.ensemble.parameters())
    truth = torch.autograd.grad(fixed, parameters)
    found = torch.autograd.grad(
        objective.loss(problem.ensemble, problem.x, problem.y, literal.generator(6)), parameters
    )
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)
