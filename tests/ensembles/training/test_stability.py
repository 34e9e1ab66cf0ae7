import math
from typing import Any

import pytest
import torch

from ensembles.training.stability import Stability


@pytest.mark.parametrize("detach_target", [False, True])
@pytest.mark.parametrize("members", [1, 3])
def test_terms_equal_the_formula(literal: Any, members: int, detach_target: bool) -> None:
    problem = literal.build_problem(members=members, seed=members)
    noisy = problem.x + 0.5 * literal.normal(7, *problem.x.shape)
    clean = stable = 0.0
    for member in problem.ensemble.members:
        for at_x, at_noise, label in zip(
            literal.logits_of(member, problem.x), literal.logits_of(member, noisy), problem.y.tolist(), strict=True
        ):
            clean += literal.cross_entropy(at_x, label) / len(noisy)
            target = literal.softmax(at_x)
            stable += sum(p * literal.cross_entropy(at_noise, c) for c, p in enumerate(target)) / len(noisy)
    objective = Stability(sigma=0.5, weight=3.0, detach_target=detach_target)
    terms = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(7))
    assert list(terms) == ["cross_entropy", "stability"]
    assert literal.values(terms) == pytest.approx({"cross_entropy": clean, "stability": 3 * stable}, abs=1e-9)


def test_detaching_holds_the_target_fixed_in_the_gradient_alone(literal: Any) -> None:
    problem = literal.build_problem(members=1, smooth=True, shape=(1, 2, 2), hidden=3, classes=3)
    member = problem.ensemble.members[0]
    noisy = problem.x + 0.5 * literal.normal(7, *problem.x.shape)

    def gradient(objective: Stability) -> list[torch.Tensor]:
        terms = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(7))
        return list(torch.autograd.grad(terms["stability"], list(member.parameters())))

    target = torch.tensor([literal.softmax(logits) for logits in literal.logits_of(member, problem.x)])
    fixed = -2 * (target.double() * member(noisy).log_softmax(-1)).sum(-1).mean()
    truth = torch.autograd.grad(fixed, list(member.parameters()))
    for found, wanted in zip(gradient(Stability(sigma=0.5, detach_target=True)), truth, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    through = gradient(Stability(sigma=0.5))
    assert any(float((one - other).abs().max()) > 1e-2 for one, other in zip(through, truth, strict=True))


def test_without_noise_it_is_twice_the_entropy(literal: Any) -> None:
    problem = literal.build_problem(members=1)
    entropy = 0.0
    for logits in literal.logits_of(problem.ensemble.members[0], problem.x):
        entropy -= sum(p * math.log(p) for p in literal.softmax(logits)) / len(problem.y)
    terms = Stability().terms(problem.ensemble, problem.x, problem.y, literal.generator(0))
    assert terms["stability"].item() == pytest.approx(2 * entropy, abs=1e-12)
    assert not Stability.joint
