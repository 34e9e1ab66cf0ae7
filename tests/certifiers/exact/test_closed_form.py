"""Radii in closed form are the distance to the nearest boundary, also at the edges."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from certifiers import Norm, ThreatModel, Verdict
from certifiers.exact import ClosedForm, ClosedFormMargins, affine_form
from tests.certifiers.exact.linear_models_under_test import NORMS, images, linear, random_linear

# Independent truth, first in floating point: the distance to the nearest boundary.


def distance_by_projection(weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> float:
    """l2: the nearest of the points at which another class ties, found by projecting x onto each boundary."""
    scores = weight @ x + bias
    top, distances = int(scores.argmax()), []
    for other in range(len(bias)):
        if other != top:
            normal = weight[top] - weight[other]
            foot = x - (scores[top] - scores[other]) / (normal @ normal) * normal
            tied = weight @ foot + bias
            assert tied[top] == pytest.approx(tied[other], abs=1e-9)
            distances.append(float(np.linalg.norm(x - foot)))
    return min(distances)


def distance_by_linear_program(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, norm: Norm) -> float:
    """l1 and linf: the least norm of a delta that makes another class win, by linear programming."""
    scores, d = weight @ x + bias, len(x)
    top, distances = int(scores.argmax()), []
    eye = np.eye(d)
    # Variables: delta and bounds t of |delta|, one a coordinate (l1: their sum) or one in all (linf).
    t = eye if norm is Norm.L1 else np.ones((d, 1))
    cost = np.concatenate([np.zeros(d), np.ones(t.shape[1])])
    for other in range(len(bias)):
        if other != top:
            lose = np.concatenate([weight[top] - weight[other], np.zeros(t.shape[1])])[None]
            upper = np.vstack([np.hstack([eye, -t]), np.hstack([-eye, -t]), lose])
            limit = np.concatenate([np.zeros(2 * d), [-(scores[top] - scores[other])]])
            solved = linprog(cost, A_ub=upper, b_ub=limit, bounds=[(None, None)] * len(cost))
            assert solved.success
            distances.append(float(solved.fun))
    return min(distances)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("classes", "inputs"), [(2, 1), (2, 5), (4, 3), (6, 8)])
def test_radius_is_the_distance_to_the_nearest_boundary(norm: Norm, classes: int, inputs: int) -> None:
    for seed in range(3):
        model, x = random_linear(classes, inputs, seed), images(4, 1, inputs, seed=seed)
        found = ClosedForm().certify(model, x, ThreatModel(norm))
        weight, bias = model[1].weight.detach().double().numpy(), model[1].bias.detach().double().numpy()
        limit = ThreatModel(norm).box_diameter(inputs)
        for row, image in enumerate(x.flatten(1).double().numpy()):
            truth = (
                distance_by_projection(weight, bias, image)
                if norm is Norm.L2
                else distance_by_linear_program(weight, bias, image, norm)
            )
            assert float(found.radius[row]) == pytest.approx(min(truth, limit), rel=1e-7)
            assert int(found.prediction[row]) == int((weight @ image + bias).argmax())
            if truth < limit:
                scores = weight @ image + bias
                margin = scores[int(found.prediction[row])] - scores[int(found.evidence["runner_up"][row])]
                assert float(found.evidence["margin"][row]) == pytest.approx(float(margin), rel=1e-9)


def test_nearest_boundary_may_be_that_of_the_lowest_score() -> None:
    # At x = (1/2, 1/2) the scores are 1, 0.9 and 0. Class 1 falls behind slowly, class 2 is reached steeply.
    weight, bias = [[0.0, 0.0], [0.1, 0.0], [6.0, 8.0]], [1.0, 0.85, -7.0]
    x = torch.full((1, 1, 2), 0.5)
    expected = {Norm.L1: 1 / 8, Norm.L2: 1 / 10, Norm.LINF: 1 / 14}
    for norm, radius in expected.items():
        found = ClosedForm().certify(linear(weight, bias), x, ThreatModel(norm))
        assert float(found.radius[0]) == pytest.approx(radius, rel=1e-6)
        assert found.evidence["runner_up"].tolist() == [2]
        assert found.evidence["margin"].tolist() == pytest.approx([1.0])
        assert found.prediction.tolist() == [0]
        assert found.cost.bound_passes.tolist() == [1]
        assert found.cost.forward_passes.tolist() == [1]


def test_answer_flips_just_outside_and_nowhere_inside() -> None:
    model, x = random_linear(4, 5, 3, torch.float64), images(1, 1, 5, seed=3).double()
    found = ClosedForm().certify(model, x, ThreatModel("l2"))
    top, other, radius = int(found.prediction[0]), int(found.evidence["runner_up"][0]), float(found.radius[0])
    towards = (model[1].weight[other] - model[1].weight[top]).detach()
    towards = towards / towards.norm()
    assert int(model(x + 0.999999 * radius * towards).argmax()) == top
    assert int(model(x + 1.000001 * radius * towards).argmax()) == other
    directions = torch.randn(2000, 1, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inside = x + radius * directions / directions.flatten(1).norm(dim=1)[:, None, None]
    assert bool((model(inside).argmax(1) == top).all())


# Edges.


@pytest.mark.parametrize("norm", NORMS)
def test_classes_that_are_always_tied_are_never_certified(norm: Norm) -> None:
    weight, bias = [[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]], [0.5, 0.5, 0.0]
    found = ClosedForm().certify(linear(weight, bias), torch.full((1, 1, 2), 0.5), ThreatModel(norm))
    assert found.verdict.tolist() == [Verdict.UNKNOWN]
    assert found.reason[0] == "the classifier's scores are tied, NaN or infinite"


@pytest.mark.parametrize("norm", NORMS)
def test_input_on_the_boundary_is_not_certified(norm: Norm) -> None:
    found = ClosedForm().certify(linear([[1.0], [-1.0]], [0.0, 1.0]), torch.tensor([[[0.5]]]), ThreatModel(norm))
    assert found.verdict.tolist() == [Verdict.UNKNOWN]


@pytest.mark.parametrize("norm", NORMS)
def test_model_without_a_boundary_gets_the_diameter_of_the_box(norm: Norm) -> None:
    for weight in ([[0.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [1.0, 2.0]]):
        found = ClosedForm().certify(linear(weight, [0.0, 1.0]), torch.full((1, 1, 2), 0.5), ThreatModel(norm))
        diameter = {Norm.L1: 2.0, Norm.L2: math.sqrt(2), Norm.LINF: 1.0}[norm]
        assert float(found.radius[0]) == pytest.approx(diameter, rel=1e-12)
        assert found.prediction.tolist() == [1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_never_certified(bad: float) -> None:
    for weight, bias in (([[bad, 0.0], [0.0, 0.0]], [9.0, 0.0]), ([[1.0, 0.0], [0.0, 0.0]], [bad, 0.0])):
        for certifier in (ClosedForm(), ClosedFormMargins()):
            found = certifier.certify(linear(weight, bias), torch.full((2, 1, 2), 0.5), ThreatModel("l2"))
            assert not bool(found.certified.any())


def test_rounding_in_the_classifier_is_not_hidden() -> None:
    # In float32 the scores tie; in exact arithmetic class 0 is ahead. The classifier that answers is the float32 one.
    found = ClosedForm().certify(linear([[1.0], [1.0]], [1e8, 1e8]), torch.tensor([[[0.5]]]), ThreatModel("l2"))
    assert found.verdict.tolist() == [Verdict.UNKNOWN]


def test_forms_are_computed_in_float64_on_the_cpu_and_leave_the_model_alone() -> None:
    model = random_linear(3, 6, 0).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    form = affine_form(model, images(1, 1, 6))
    assert all(tensor.dtype == torch.float64 for tensor in (form.weight, form.bias, form.weight_error, form.bias_error))
    assert not form.weight.requires_grad
    assert model.training
    assert model[1].weight.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
