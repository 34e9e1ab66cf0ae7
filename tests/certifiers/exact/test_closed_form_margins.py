"""The closed form asked one radius at a time: margins over the ball, and the search over them."""

import pytest
import torch

import certifiers
from certifiers import KeyedRandomness, Norm, ThreatModel
from certifiers.exact import ClosedForm, ClosedFormMargins
from tests.certifiers.exact.linear_models_under_test import NORMS, images, random_linear


@pytest.mark.parametrize("norm", NORMS)
def test_search_over_margins_finds_the_closed_form(norm: Norm) -> None:
    threat, x = ThreatModel(norm), images(20, 1, 6)
    model = random_linear(4, 6, 1)
    exact = ClosedForm().certify(model, x, threat)
    searched = ClosedFormMargins().certify(model, x, threat)
    assert torch.equal(searched.prediction, exact.prediction)
    assert torch.equal(searched.verdict, exact.verdict)
    assert bool((searched.radius <= exact.radius).all())
    inner = exact.radius < 0.99 * threat.box_diameter(6)
    assert bool((searched.radius >= exact.radius * (1 - 1e-5) - 1e-6)[inner].all())
    assert int(inner.sum()) >= 10, "a test of nothing"
    grid = [step / 16 for step in range(1, 17)]
    on_grid = ClosedFormMargins().certify(model, x, threat, radii=grid)
    for row in range(20):
        truth = max((radius for radius in grid if radius <= float(exact.radius[row])), default=0.0)
        assert float(on_grid.radius[row]) == truth


@pytest.mark.parametrize("norm", NORMS)
def test_margins_are_the_least_over_the_ball(norm: Norm) -> None:
    model, x = random_linear(3, 4, 2, torch.float64), images(1, 1, 4).double()
    prediction = model(x).argmax(1)
    radius = torch.tensor([0.25], dtype=torch.float64)
    margins = ClosedFormMargins().margins(model, x, prediction, radius, ThreatModel(norm), KeyedRandomness(0, (0,)))[0]
    weight = model[1].weight.detach()
    for other in range(3):
        if other == int(prediction):
            continue
        # The worst point of the ball is known for each norm; no other point of many is worse.
        slope = weight[other] - weight[prediction[0]]
        worst = {
            Norm.L1: torch.nn.functional.one_hot(slope.abs().argmax(), 4) * slope.sign(),
            Norm.L2: slope / slope.norm(),
            Norm.LINF: slope.sign(),
        }[norm]
        scores = model(x + 0.25 * worst)[0]
        truth = float((scores[prediction[0]] - scores[other]).detach())
        assert float(margins[other]) == pytest.approx(truth, abs=1e-12)


def test_both_are_registered() -> None:
    assert certifiers.create("closed-form") == ClosedForm()
    assert certifiers.create("closed-form-margins", bisection_steps=3) == ClosedFormMargins(bisection_steps=3)
    assert ClosedForm().norms == ClosedFormMargins().norms == set(Norm)
    assert not ClosedForm().uses_radii
