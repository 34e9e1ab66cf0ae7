"""Bounds by auto_LiRPA fail closed: what is broken or in doubt is no bound."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import certifiers
from certifiers import Norm
from certifiers.relaxation import LirpaBounds, lirpa
from tests.certifiers.relaxation.lirpa_under_test import LINF, around, every_method, margins


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@every_method
def test_broken_numbers_are_no_bounds(models: Any, method: str, value: float) -> None:
    x = models.images(2, 1)
    for kind in ("mlp", "conv", "residual"):
        for number in range(3):
            network = models.network(kind, 9)
            layers = [layer for layer in network.layers if hasattr(layer, "weight")]
            layer = layers[number % len(layers)]
            layer.weight.data.flatten()[:2] = torch.tensor([value, -value], dtype=torch.float64)
            found = margins(network, LirpaBounds(around(x, 0.01), method), x)
            assert not bool((torch.isfinite(found) & (found > 0)).any()), kind


@every_method
def test_a_classifier_of_nan_is_not_certified(models: Any, method: str) -> None:
    classifier, x = models.model("mlp", 0), models.images(2, 1)
    classifier[1].weight.data[0, 0] = torch.nan
    found = certifiers.create(method).certify(classifier, x, LINF, radii=[0.001])
    assert not bool(found.certified.any())


def test_bounds_above_the_center_or_crossed_are_disbelieved(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = models.network("mlp", 1), models.images(2, 1)
    bounds = LirpaBounds(around(x, 0.01), "crown")
    assert bool(torch.isfinite(margins(network, bounds, x)).all())
    (module, _), *_ = lirpa._recordings[network].values()
    compute = module.compute_bounds

    def too_high(**arguments: Any) -> Any:
        lower, upper = compute(**arguments)
        return lower + 1.0, upper

    with monkeypatch.context() as patched:
        patched.setattr(module, "compute_bounds", too_high)
        assert bool(torch.isnan(margins(network, bounds, x)).all())

    def crossed(**arguments: Any) -> Any:
        result = compute(**arguments)
        node = module.optimizable_activations[0].inputs[0]
        node.lower = node.upper + 0.1
        return result

    monkeypatch.setattr(module, "compute_bounds", crossed)
    assert bool(torch.isnan(margins(network, bounds, x)).all())


def node(lower: Any, upper: Any, *, perturbed: bool = True) -> SimpleNamespace:
    return SimpleNamespace(lower=lower, upper=upper, perturbed=perturbed)


def test_what_is_no_interval_is_found_sample_by_sample() -> None:
    zeros, ones = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)

    def broken(*nodes: SimpleNamespace) -> list[bool]:
        module = SimpleNamespace(_modules=dict(enumerate([node(zeros, ones), *nodes])))
        found = lirpa._broken(module, 3)
        return found.tolist()  # type: ignore[no-any-return]

    assert broken() == [False] * 3
    for value in (torch.nan, torch.inf, -torch.inf):
        wrong = zeros.clone()
        wrong[1, 0, 1] = value
        assert broken(node(wrong, ones)) == [False, True, False]
        assert broken(node(zeros - 9, wrong)) == [False, True, False]
        assert broken(node(wrong[1], wrong[1], perturbed=False)) == [True] * 3
        assert broken(node(ones, wrong[1], perturbed=False)) == [True] * 3
    crossed = zeros.clone()
    crossed[2] = 1 + 3 * lirpa.CROSSING
    assert broken(node(crossed, ones)) == [False, False, True]
    assert broken(node(1 + lirpa.CROSSING * ones, ones)) == [False] * 3, "rounding"
    others = [node(None, ones), node(zeros, None), node(zeros.long(), zeros.long()), SimpleNamespace()]
    assert broken(*others, node(zeros[:0], zeros[:0], perturbed=False)) == [False] * 3


def test_balls_are_rounded_outward(models: Any) -> None:
    x = models.images(3, 1)
    for norm in Norm:
        ball = around(x, 0.1 + 1e-12, norm)
        for shift in (torch.zeros(()), torch.tensor([-0.1307, 0.3]).double()[:, None, None]):
            tensor = lirpa._bounded_tensor(ball, [0, 1, 2], shift)
            if norm is Norm.LINF:
                assert bool((tensor.ptb.x_L.double() <= ball.lower + shift).all())
                assert bool((tensor.ptb.x_U.double() >= ball.upper + shift).all())
            else:
                order = {Norm.L1: 1, Norm.L2: 2}[norm]
                off = (torch.Tensor(tensor).double() - (x + shift)).flatten(1)
                room = tensor.ptb.eps - torch.linalg.vector_norm(off, ord=order, dim=1)
                assert bool((room >= ball.radius).all())
            assert torch.Tensor(tensor).dtype == torch.float64
