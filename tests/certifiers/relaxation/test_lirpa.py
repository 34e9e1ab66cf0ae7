"""Bounds by auto_LiRPA, beside those in plain torch."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from certifiers import Norm
from certifiers.networks import prepare
from certifiers.relaxation import Ball, LirpaBounds, ensemble_margins
from certifiers.relaxation.ensemble_margins import pairs
from ensembles import Ensemble, MaxMargin, WeightedAverage, architectures
from tests.certifiers.relaxation.awkward_networks import AWKWARD, Awkward
from tests.certifiers.relaxation.lirpa_under_test import TWINS, around, close, lowest, margins, native, read


def without_box(x: Tensor, radius: float, norm: str) -> Ball:
    """A ball that is not cut to [0, 1], as auto_LiRPA bounds those of l1 and l2."""
    each = torch.full((len(x),), radius, dtype=torch.float64)
    return Ball(x, each, Norm(norm), x - 100, x + 100)


@pytest.mark.parametrize("method", TWINS)
@pytest.mark.parametrize("kind", ["mlp", "conv", "residual", "max pooling", "avg pooling", "batch norm"])
def test_linf_bounds_are_those_in_plain_torch(models: Any, kind: str, method: str) -> None:
    x = models.images(3, 5)
    for seed in range(3):
        network, ball = models.network(kind, seed), around(x, 0.004)
        close(margins(network, LirpaBounds(ball, method), x), margins(network, native(method, ball), x))


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("method", TWINS)
def test_bounds_over_round_balls_are_those_in_plain_torch(models: Any, method: str, norm: str) -> None:
    x = models.images(3, 5)
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        networks = [models.network("mlp", 1), models.network("mlp", 2)]
        if norm == "l2":  # auto_LiRPA takes the l2 norms of kernels for l1 too
            networks.append(read(nn.Sequential(*layers), x))
    for network in networks:
        ball = without_box(x, 0.05, norm)
        close(margins(network, LirpaBounds(ball, method), x), margins(network, native(method, ball), x))


@pytest.mark.parametrize("aggregation", [WeightedAverage(of="logit", weights=(1.0, 2.0, 3.0)), MaxMargin(of="logit")])
@pytest.mark.parametrize("method", TWINS)
def test_ensembles_are_bounded_jointly(method: str, aggregation: Any) -> None:
    members = [
        architectures.create("conv_small", input_shape=(1, 8, 8), classes=4, seed=seed, mean=(0.13,), std=(0.31,))
        for seed in range(3)
    ]
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prepared = prepare(Ensemble(members, aggregation).eval(), x)
        ball, prediction = around(x.double(), 0.003), Ensemble(members, aggregation).eval()(x).argmax(1)
    found = ensemble_margins(prepared, LirpaBounds(ball, method), prediction)
    wanted = ensemble_margins(prepared, native(method, ball), prediction)
    others = torch.isfinite(wanted)
    assert bool((torch.isfinite(found) == others).all())
    close(found[others], wanted[others])
    if method == "crown" and isinstance(aggregation, WeightedAverage):
        parts = [weight / 6 * pairs(prediction, 4) for weight in (1.0, 2.0, 3.0)]
        apart = [
            LirpaBounds(ball, method).lower([network], [part])
            for network, part in zip(prepared.networks, parts, strict=True)
        ]
        assert bool((torch.stack(apart).sum(0)[others] < found[others] - 1e-4).all()), (
            "what members disagree on cancels"
        )


@pytest.mark.parametrize("method", TWINS)
@pytest.mark.parametrize("name", AWKWARD)
def test_layers_that_it_gets_wrong_are_rewritten(models: Any, name: str, method: str) -> None:
    x = models.images(2, 3)
    network, ball = read(AWKWARD[name], x), around(x, 0.004)
    close(margins(network, LirpaBounds(ball, method), x), margins(network, native(method, ball), x))


@pytest.mark.parametrize("method", TWINS)
def test_images_need_not_be_square(method: str) -> None:
    x = torch.rand(2, 2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = Awkward(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), features=48)
    for ball in (around(x, 0.004), around(x, 0.02, "l2")):
        found = margins(network := read(model, x), LirpaBounds(ball, method), x)
        if ball.norm is Norm.LINF:
            close(found, margins(network, native(method, ball), x))
        assert bool((found <= lowest(network, pairs(network(x).argmax(1), 3), ball)).all())
