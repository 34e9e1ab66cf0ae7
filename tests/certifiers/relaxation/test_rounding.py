from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from certifiers import Norm, ThreatModel
from certifiers.lipschitz.global_bound import GlobalBounds
from certifiers.networks import Network, prepare
from certifiers.relaxation import rounding
from certifiers.relaxation.affine import magnitude
from certifiers.relaxation.backward import relaxed
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.certifiers import NativeCertifier, NativeCROWN, NativeCROWNIBP, NativeIBP
from certifiers.relaxation.lirpa import LirpaBounds
from certifiers.relaxation.relaxation import BackwardBounds, Bounds, IntervalBounds

WIDE = 784


def cancelling(inputs: int = WIDE) -> nn.Sequential:
    """Two units that are equal but for a thousandth, a thousand times larger than what is left of them."""
    torch.manual_seed(4)
    first, last = nn.Linear(inputs, 2), nn.Linear(2, 2)
    with torch.no_grad():
        first.weight[1] = first.weight[0] * (1 + 1e-3)
        first.weight *= 1000
        first.bias += 5000
        last.weight.copy_(torch.tensor([[1000.0, -1000.0], [0.0, 0.0]]))
        last.bias.copy_(torch.tensor([0.5, -0.25]))
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), last)


def random_mlp(inputs: int = WIDE) -> nn.Sequential:
    torch.manual_seed(5)
    hidden = (nn.Linear(inputs, 600), nn.ReLU(), nn.Linear(600, 50), nn.ReLU())
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(50, 4))


def convolutional(inputs: int = WIDE) -> nn.Sequential:
    torch.manual_seed(6)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 40, 5, 2, 2), nn.ReLU(), nn.AvgPool2d(7)),
        *(nn.Flatten(), nn.Linear(40, 4)),
    )


NETWORKS = (cancelling, random_mlp, convolutional)


def layerwise(network: Network, x: Tensor, row: Tensor, unit: float) -> float:
    """`sum over layers of gamma_n |A| (|W| |x| + |b|)` at x, A the gradient of `row . output` in a layer's outputs."""
    leaf = x.double().requires_grad_()
    with torch.enable_grad():
        values = network.values(leaf)
        gradients = torch.autograd.grad((values[-1] * row).sum(), values, allow_unused=True)
    values, total = [value.detach() for value in values], 0.0
    for number, (layer, sources) in enumerate(zip(network.layers, network.sources, strict=True)):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            fan_in = layer.weight[0].numel() + 1  # the products, and the bias
            gamma = fan_in * unit / (1 - fan_in * unit)
            terms = magnitude(layer, values[sources[0]].abs()) + layer(torch.zeros_like(values[sources[0]])).abs()
            total += float((gamma * gradients[number + 1].abs() * terms).sum())
    return total


def inputs() -> Tensor:
    return torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(3))


def native_ibp(ball: Ball) -> Bounds:
    return IntervalBounds(ball)


def native_crown(ball: Ball) -> Bounds:
    return BackwardBounds(ball, "crown")


def lirpa_ibp(ball: Ball) -> Bounds:
    return LirpaBounds(ball, "ibp")


def lirpa_crown(ball: Ball) -> Bounds:
    return LirpaBounds(ball, "crown")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("bounds", [native_ibp, native_crown, lirpa_ibp, lirpa_crown, GlobalBounds])
@pytest.mark.parametrize("make", NETWORKS)
def test_a_bound_at_a_point_lies_below_the_value_by_the_error_of_every_layer(
    make: Callable[[], nn.Sequential], bounds: Callable[[Ball], Bounds], dtype: torch.dtype
) -> None:
    if bounds in (GlobalBounds, lirpa_ibp, lirpa_crown) and dtype is torch.float32:
        pytest.skip("computed in float64 alone")
    x = inputs().double()
    (network,) = prepare(make().double().eval(), x).networks  # in float32 the cancelling one is not even reproducible
    ball = Ball.around(x.to(dtype), torch.zeros(1).to(dtype), ThreatModel(Norm.L2))
    row = torch.zeros(1, 1, network.shapes[-1][0], dtype=torch.float64)
    row[0, 0, 0], row[0, 0, 1] = 1.0, -1.0
    with torch.no_grad():
        found = float(bounds(ball).lower([network], [row.to(dtype)]).double())
        value = float((network.values(x)[-1] * row[0]).sum())
    assert value - found >= layerwise(network, x, row[0], float(torch.finfo(dtype).eps) / 2) > 0


def test_sizes_are_those_of_the_terms_and_hold_the_values() -> None:
    x = inputs().double()
    (network,) = prepare(convolutional().double().eval(), x).networks
    ball = Ball.around(x, torch.full((1,), 0.05).double(), ThreatModel(Norm.LINF))
    sizes = relaxed(network, ball).sizes
    points = (ball.lower + (ball.upper - ball.lower) * torch.rand(20, *x.shape[1:]).double()).unbind()
    for number, (layer, sources) in enumerate(zip(network.layers, network.sources, strict=True)):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            for point in points:
                own = network.values(point[None])[sources[0]]
                terms = magnitude(layer, own.abs()) + layer(torch.zeros_like(own)).abs()
                assert bool((terms <= sizes.of(number) * (1 + 1e-12)).all())


@pytest.mark.parametrize(
    ("layer", "terms"),
    [
        (nn.Linear(784, 10), 784),
        (nn.Linear(10, 784), 784),
        (nn.Conv2d(3, 16, 5), 16 * 25),
        (nn.Conv2d(32, 16, (3, 1)), 96),
        (nn.Conv2d(8, 8, 3, groups=8), 9),
        (nn.AvgPool2d(4), 16),
        (nn.Flatten(), 1),
    ],
)
def test_sums_are_counted_forward_and_backward(layer: nn.Module, terms: int) -> None:
    assert rounding.terms_of(layer) == terms


@pytest.mark.parametrize("terms", [1, 255, 257, 5000])
@pytest.mark.parametrize("unit", [2.0**-24, 2.0**-53])
def test_roundings_are_twice_gamma_at_least(terms: int, unit: float) -> None:
    more = terms + 4
    assert rounding.roundings(terms) * 2 * unit >= 1.9 * more * unit / (1 - more * unit)


@pytest.mark.parametrize("bounds", [native_ibp, native_crown])
@pytest.mark.parametrize("norm", list(Norm), ids=str)
def test_without_rounding_a_bound_at_a_point_is_the_value(bounds: Callable[[Ball], Bounds], norm: Norm) -> None:
    x = inputs().double()
    (network,) = prepare(random_mlp().double().eval(), x).networks
    row = torch.tensor([[[1.0, -1.0, 0.0, 0.0]]], dtype=torch.float64)
    value = float((network.values(x)[-1] * row[0]).sum())

    def lost(dtype: torch.dtype, *, rounding: bool) -> float:
        ball = Ball.around(x.to(dtype), torch.zeros(1).to(dtype), ThreatModel(norm), rounding=rounding)
        return value - float(bounds(ball.part(slice(0, 1))).lower([network], [row.to(dtype)]).double())

    with torch.no_grad():
        assert abs(lost(torch.float64, rounding=False)) < 1e-12 < lost(torch.float64, rounding=True)
        assert abs(lost(torch.float32, rounding=False)) < 1e-4 < lost(torch.float32, rounding=True)


@pytest.mark.parametrize("certifier", [NativeIBP, NativeCROWN, NativeCROWNIBP])
def test_what_would_be_certified_without_rounding_is_evidence_and_no_certificate(
    certifier: type[NativeCertifier],
) -> None:
    model, x = random_mlp().eval(), torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(9))
    threat = ThreatModel(Norm.LINF)
    plain = certifier(dtype="float32", bisection_steps=14)
    shown = replace(plain, show_rounding=True)
    own, found = (asker.certify(model, x, threat) for asker in (plain, shown))
    torch.testing.assert_close(found.radius, own.radius, rtol=0, atol=0)
    assert "unrounded_radius" not in own.evidence
    unrounded = found.evidence["unrounded_radius"]
    assert isinstance(unrounded, Tensor)
    assert bool((unrounded > found.radius * 1.01).all())  # the sums are of hundreds of terms

    between = float(found.radius[0] + unrounded[0]) / 2
    asked = shown.certify(model, x[:1], threat, radii=(between / 2, between))
    assert asked.radius.tolist() == [between / 2]
    assert asked.evidence["unrounded_radius"].tolist() == [between]
