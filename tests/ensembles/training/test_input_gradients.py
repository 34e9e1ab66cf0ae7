import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from ensembles import Ensemble
from ensembles.architectures import Classifier, Normalize
from ensembles.training.input_gradients import cross_entropy_of, member_gradients, pairwise_cosines, valid_pairs


def test_gradients_equal_those_of_single_samples(literal: Any) -> None:
    problem = literal.build_problem(members=3)
    logits, gradients = member_gradients(problem.ensemble, problem.x, cross_entropy_of(problem.y))
    assert logits.shape == (3, 5, 4)
    assert gradients.shape == (3, 5, 16)
    for i, member in enumerate(problem.ensemble.members):
        for b in range(5):
            truth = literal.input_gradient(member, problem.x[b], literal.negative_log_confidence(int(problem.y[b])))
            assert gradients[i, b].tolist() == pytest.approx(truth, abs=1e-12)
            assert logits[i, b].tolist() == pytest.approx(literal.logits_of(member, problem.x)[b], abs=1e-12)


def test_another_sample_does_not_change_a_gradient(literal: Any) -> None:
    problem = literal.build_problem(members=2)
    other = problem.x.clone()
    other[2] = 1 - other[2]
    before = member_gradients(problem.ensemble, problem.x, cross_entropy_of(problem.y))[1]
    after = member_gradients(problem.ensemble, other, cross_entropy_of(problem.y))[1]
    rest = [0, 1, 3, 4]
    assert torch.equal(before[:, rest], after[:, rest])
    assert not torch.equal(before[:, 2], after[:, 2])


def test_neither_the_inputs_nor_the_weights_are_left_with_gradients(literal: Any) -> None:
    problem = literal.build_problem(members=2)
    x = problem.x.clone().requires_grad_()
    member_gradients(problem.ensemble, x, cross_entropy_of(problem.y))
    assert x.grad is None
    assert all(parameter.grad is None for parameter in problem.ensemble.parameters())
    # A backward pass through the gradients reaches the weights, not the inputs.
    gradients = member_gradients(problem.ensemble, x, cross_entropy_of(problem.y))[1]
    gradients.square().sum().backward()
    assert x.grad is None
    assert all(bool(parameter.grad.any()) for parameter in problem.ensemble.parameters() if parameter.ndim == 2)


def test_each_member_is_asked_once(literal: Any) -> None:
    problem = literal.build_problem(members=3)
    spies = [literal.Spy(member) for member in problem.ensemble.members]
    member_gradients(Ensemble(spies), problem.x, cross_entropy_of(problem.y))
    assert [len(spy.inputs) for spy in spies] == [1, 1, 1]
    assert all(torch.equal(spy.inputs[0], problem.x) for spy in spies)


def test_a_member_in_the_gradient_of_another_is_not_mixed_up(literal: Any) -> None:
    # The same module twice: each copy has its own gradient, not the sum of both.
    problem = literal.build_problem(members=2)
    member = problem.ensemble.members[0]
    once = member_gradients(Ensemble([member]), problem.x, cross_entropy_of(problem.y))[1]
    twice = member_gradients(Ensemble([member, member]), problem.x, cross_entropy_of(problem.y))[1]
    assert torch.equal(twice[0], once[0])
    assert torch.equal(twice[1], once[0])


def test_batch_norm_in_train_mode_couples_samples_and_says_so(literal: Any) -> None:
    # What the docstring warns of: the gradient is then that of the sum of all samples' numbers.
    body = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Tanh())
    member = Classifier("norm", Normalize([0.0], [1.0], 3), body, nn.Linear(16, 3)).double()
    x, y = literal.normal(0, 4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    found = member_gradients(Ensemble([member]), x, cross_entropy_of(y))[1]
    own = x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(nn.functional.cross_entropy(member(own), y, reduction="sum"), own)
    torch.testing.assert_close(found[0], truth.flatten(1))
    member.eval()
    found = member_gradients(Ensemble([member]), x, cross_entropy_of(y))[1]
    truth = literal.input_gradient(member, x[1], literal.negative_log_confidence(1))
    assert found[0, 1].tolist() == pytest.approx(truth, abs=1e-12)


def test_cosines_equal_the_formula_and_pairs_come_in_order(literal: Any) -> None:
    gradients = literal.normal(3, 4, 5, 7)
    cosines = pairwise_cosines(gradients)
    assert cosines.shape == (6, 5)
    for row, (i, j) in zip(cosines, itertools.combinations(range(4), 2), strict=True):
        truth = [literal.cosine(gradients[i, b].tolist(), gradients[j, b].tolist()) for b in range(5)]
        assert row.tolist() == pytest.approx(truth, abs=1e-12)


def test_a_gradient_that_vanishes_has_cosine_zero_with_a_finite_slope() -> None:
    gradients = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]], dtype=torch.float64, requires_grad=True)
    cosines = pairwise_cosines(gradients)
    assert cosines.tolist() == [[0.0]]
    (slope,) = torch.autograd.grad(cosines.sum(), gradients)
    assert bool(torch.isfinite(slope).all())
    assert math.isfinite(float(slope.abs().max()))


def test_valid_pairs_by_hand() -> None:
    right = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    # Pairs (0, 1), (0, 2), (1, 2).
    assert valid_pairs(right).tolist() == [[True, False, False], [True, True, False], [True, False, False]]
    assert valid_pairs(right[:1]).shape == (0, 3)
