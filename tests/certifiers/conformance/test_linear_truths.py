"""Networks that are linear on the box, and the radii of the closed form."""

import pytest
import torch
from torch import nn

from certifiers import Norm, ThreatModel
from certifiers.conformance.linear_truths import FAMILIES, lowest_logit

every_norm = pytest.mark.parametrize("norm", list(Norm))


@every_norm
@pytest.mark.parametrize("family", FAMILIES)
def test_the_nearest_boundary_is_at_the_radius_and_in_the_box(family: str, norm: Norm) -> None:
    truth = FAMILIES[family](torch.Generator().manual_seed(3), ThreatModel(norm), batch=2)
    modes = [module.training for module in truth.classifier.modules()]
    network = truth.classifier.eval()
    for x, radius, answer in zip(truth.x, truth.radius, truth.prediction, strict=True):
        point = x[None].clone().requires_grad_()
        scores = network(point)[0]
        others = [other for other in range(len(scores)) if other != int(answer)]
        reached = []
        for other in others:
            (gradient,) = torch.autograd.grad(scores[answer] - scores[other], point, retain_graph=True)
            if norm is Norm.LINF:
                step = gradient.sign()
            elif norm is Norm.L2:
                step = gradient / gradient.norm()
            else:
                step = torch.zeros_like(gradient).flatten()
                largest = int(gradient.abs().argmax())
                step[largest] = gradient.flatten()[largest].sign()
                step = step.reshape(gradient.shape)
            there = (x - radius * step).detach()
            assert bool(((there >= 0) & (there <= 1)).all())
            gap = network(there)[0, answer] - network(there)[0, other]
            assert float(gap) > -1e-9
            reached.append(float(gap))
        assert min(reached) == pytest.approx(0.0, abs=1e-9)
    assert float(truth.radius.min()) > 1e-4
    assert ("batch-norm" in family or family == "dropout") is any(modes)


@every_norm
def test_the_lowest_logit_is_the_nearest(norm: Norm) -> None:
    truth = lowest_logit(torch.Generator().manual_seed(0), ThreatModel(norm))
    scores = truth.classifier(truth.x)
    lowest, runner_up = scores.argmin(1), scores.topk(2).indices[:, 1]
    for turned in (lowest, runner_up):
        assert bool((turned != truth.prediction).all())
    assert truth.radius.tolist() == pytest.approx([0.0125] * 3, rel=0.2)
    gap = scores.gather(1, truth.prediction[:, None]) - scores
    assert bool((gap.gather(1, lowest[:, None]) > gap.gather(1, runner_up[:, None])).all())


def test_the_hidden_direction_is_what_the_layers_norms_multiply_to() -> None:
    truth = FAMILIES["hidden-direction"](torch.Generator().manual_seed(1), ThreatModel("l2"), batch=1)
    layers = [layer for layer in truth.classifier.modules() if isinstance(layer, nn.Linear)]
    product = 1.0
    for layer in layers[:-1]:
        product *= float(torch.linalg.matrix_norm(layer.weight, ord=2))
    last = layers[-1].weight[0] - layers[-1].weight[1]
    scores = truth.classifier(truth.x)[0]
    margin = float(scores[truth.prediction] - scores[1 - truth.prediction])
    assert margin / (product * float(last.norm())) == pytest.approx(float(truth.radius), rel=1e-9)
