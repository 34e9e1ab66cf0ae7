import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ensembles import Ensemble, ParameterError
from ensembles.training.drt import DRT
from ensembles.training.smoothadv import SmoothAdv


def smoothed_loss(member: torch.nn.Module, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """`-log mean_k softmax f(x + e_k)_y` of each sample."""
    with torch.no_grad():
        confidences = torch.stack([member(x + draw).softmax(-1) for draw in noise]).mean(0)
    return -confidences[torch.arange(len(y)), y].log()


@pytest.mark.parametrize(("steps", "epsilon", "draws"), [(1, 0.2, 1), (4, 0.5, 2), (10, 1.0, 3)])
def test_the_attack_and_the_loss_equal_the_literal_ones(literal: Any, steps: int, epsilon: float, draws: int) -> None:
    problem = literal.build_problem(members=2, batch=4, seed=1)
    noise = 0.3 * literal.normal(8, draws, *problem.x.shape)
    objective = SmoothAdv(sigma=0.3, steps=steps, epsilon=epsilon, draws=draws)
    for member in problem.ensemble.members:
        found = objective.attack(member, problem.x, problem.y, noise)
        truth = literal.smoothadv_inputs(member, problem.x, problem.y, noise, epsilon=epsilon, steps=steps)
        assert found.flatten(1).tolist() == [pytest.approx(row, abs=1e-9) for row in truth]
    terms = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(8))
    truth = literal.smoothadv_loss(problem.ensemble, problem.x, problem.y, noise, epsilon=epsilon, steps=steps)
    assert literal.values(terms) == pytest.approx({"smoothadv": truth}, abs=1e-9)


def test_the_attack_stays_in_the_ball_and_the_box_and_raises_the_smoothed_loss(literal: Any) -> None:
    problem = literal.build_problem(members=1, batch=64, seed=3)
    x = problem.x.clone()
    x[:20] = x[:20].round()  # at the walls of the box
    noise = 0.2 * literal.normal(1, 4, *x.shape)
    member = problem.ensemble.members[0]
    clean = smoothed_loss(member, x, problem.y, noise)
    for epsilon in (0.05, 0.5, 3.0):
        found = SmoothAdv(sigma=0.2, epsilon=epsilon).attack(member, x, problem.y, noise)
        assert float((found - x).flatten(1).norm(dim=1).max()) <= epsilon * (1 + 1e-12)
        assert float(found.min()) >= 0
        assert float(found.max()) <= 1
        raised = smoothed_loss(member, found, problem.y, noise)
        # Small steps go up everywhere (but for a kink); large ones on the whole.
        if epsilon == 0.05:
            assert bool((raised >= clean - 1e-3).all())
        assert float(raised.mean()) > 1.01 * float(clean.mean())
    assert float((found - x).flatten(1).norm(dim=1).max()) < 3.0, "the box, not the ball, holds these"


def test_a_linear_member_is_attacked_along_its_weights(literal: Any) -> None:
    # Two classes, logits (w x, 0): the gradient of the loss of class 0 is along -w whatever the noise, so ten steps of
    # 2 epsilon / 10 end on the sphere at x - epsilon w / ||w||, if the box leaves room.
    w = torch.tensor([3.0, -4.0], dtype=torch.float64)
    member = literal.LinearClassifier([w.tolist(), [0.0, 0.0]])
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    noise = literal.normal(0, 2, 1, 2)
    found = SmoothAdv(epsilon=0.25).attack(member, x, torch.tensor([0]), noise)
    assert found[0].tolist() == pytest.approx([0.5 - 0.25 * 0.6, 0.5 + 0.25 * 0.8], abs=1e-12)
    # With room for 0.1 along the second pixel only, it stays at the wall there.
    x[0, 1] = 0.9
    found = SmoothAdv(epsilon=0.25).attack(member, x, torch.tensor([0]), noise)
    assert found[0, 1].item() == 1.0
    # One step of 2 epsilon, brought back to the sphere: the same end.
    x[0, 1] = 0.5
    found = SmoothAdv(epsilon=0.25, steps=1).attack(member, x, torch.tensor([0]), noise)
    assert found[0].tolist() == pytest.approx([0.5 - 0.25 * 0.6, 0.5 + 0.25 * 0.8], abs=1e-12)
    # Each step has length 2 epsilon / steps: three steps of 1/4 of the radius are short of the sphere.
    spy = literal.Spy(member)
    SmoothAdv(epsilon=0.25, steps=8).attack(spy, x, torch.tensor([0]), noise)
    moved = [float((inputs[0] - noise[0, 0] - x[0]).norm()) for inputs in spy.inputs]
    assert moved == pytest.approx([0, 0.0625, 0.125, 0.1875, 0.25, 0.25, 0.25, 0.25], abs=1e-12)


def test_the_same_draws_from_a_zero_start_to_the_training_step(literal: Any) -> None:
    problem = literal.build_problem(members=2, batch=3, seed=2)
    spies = [literal.Spy(member) for member in problem.ensemble.members]
    steps, draws = 5, 3
    noise = 0.5 * literal.normal(11, draws, *problem.x.shape)
    objective = SmoothAdv(sigma=0.5, epsilon=0.7, steps=steps, draws=draws)
    objective.terms(Ensemble(spies), problem.x, problem.y, literal.generator(11))
    for spy in spies:
        assert len(spy.inputs) == steps + 1, "one forward a step, one for the loss"
        for asked in spy.inputs:
            clean = asked.unflatten(0, (draws, len(problem.x))) - noise
            # Less the draws all copies are of one input, within the ball and the box.
            torch.testing.assert_close(clean, clean[:1].expand_as(clean), rtol=0, atol=1e-12)
            assert float((clean[0] - problem.x).flatten(1).norm(dim=1).max()) <= 0.7 + 1e-9
            assert -1e-12 <= float(clean.min()) <= float(clean.max()) <= 1 + 1e-12
        torch.testing.assert_close(
            spy.inputs[0].unflatten(0, (draws, len(problem.x))), problem.x + noise, rtol=0, atol=1e-15
        )
    assert not torch.equal(spies[0].inputs[-1], spies[1].inputs[-1]), "each member has its own adversary"


def test_the_attack_leaves_no_gradient_and_the_loss_treats_its_inputs_as_given(literal: Any) -> None:
    problem = literal.build_problem(members=1, batch=3)
    member = problem.ensemble.members[0]
    noise = 0.3 * literal.normal(4, 2, *problem.x.shape)
    objective = SmoothAdv(sigma=0.3, steps=3)
    found = objective.attack(member, problem.x, problem.y, noise)
    assert not found.requires_grad
    assert problem.x.grad is None
    assert all(parameter.grad is None for parameter in member.parameters())
    term = objective.terms(problem.ensemble, problem.x, problem.y, literal.generator(4))["smoothadv"]
    plain = torch.nn.functional.cross_entropy(member((found + noise).flatten(0, 1)), problem.y.repeat(2))
    for one, other in zip(
        torch.autograd.grad(term, list(member.parameters())),
        torch.autograd.grad(plain, list(member.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_a_member_without_slope_is_left_where_it_is(literal: Any) -> None:
    member = literal.LinearClassifier([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
    x = torch.full((2, 2), 0.5, dtype=torch.float64)
    found = SmoothAdv().attack(member, x, torch.tensor([0, 1]), torch.zeros(1, 2, 2, dtype=torch.float64))
    assert torch.equal(found, x)


@pytest.mark.parametrize(
    "objective", [SmoothAdv(sigma=0.5, epsilon=2.0, warmup_epochs=4), DRT(epsilon=2.0, warmup_epochs=4)]
)
def test_epsilon_warms_up_linearly(objective: Any) -> None:
    assert [objective.at_epoch(epoch).epsilon for epoch in range(1, 8)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]
    assert type(objective.at_epoch(1)) is type(objective)
    assert {**objective.at_epoch(1).describe(), "epsilon": 2.0} == objective.describe(), "nothing else changes"
    assert objective.epsilon == 2.0
    without = type(objective)(epsilon=2.0)
    assert without.at_epoch(1) is without


def test_the_defaults_are_the_papers() -> None:
    objective = SmoothAdv()
    assert (objective.steps, objective.epsilon, objective.warmup_epochs) == (10, 1.0, 0)
    assert not SmoothAdv.joint


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"SmoothAdv: steps = 0 is not allowed\. Input should be greater than 0\."):
        SmoothAdv(steps=0)
    with pytest.raises(ParameterError, match=r"SmoothAdv: epsilon = inf is not allowed\. Input should be a finite"):
        SmoothAdv(epsilon=math.inf)
