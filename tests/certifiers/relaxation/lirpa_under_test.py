"""Margins by auto_LiRPA and by its twins in plain torch, and an attack on them."""

import pytest
import torch
from torch import Tensor, nn

from certifiers import Norm, ThreatModel
from certifiers.networks import Network, prepare
from certifiers.relaxation import BackwardBounds, Ball, Bounds, IntervalBounds
from certifiers.relaxation.ensemble_margins import pairs

METHODS = ["ibp", "crown-ibp", "crown", "alpha-crown"]
TWINS = ["ibp", "crown-ibp", "crown"]
LINF = ThreatModel("linf")

every_norm = pytest.mark.parametrize("norm", list(Norm))
every_method = pytest.mark.parametrize("method", METHODS)


def native(method: str, ball: Ball) -> Bounds:
    if method == "ibp":
        return IntervalBounds(ball)
    return BackwardBounds(ball, "ibp" if method == "crown-ibp" else "crown")


def around(x: Tensor, radius: float, norm: str = "linf") -> Ball:
    return Ball.around(x, torch.full((len(x),), radius, dtype=torch.float64), ThreatModel(norm))


def margins(network: Network, bounds: Bounds, x: Tensor) -> Tensor:
    """Lower bounds on the margins of the answer at x."""
    return bounds.lower([network], [pairs(network(x).argmax(1), network.shapes[-1][0])])


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert bool((found <= wanted + 1e-6 * (1 + wanted.abs())).all()), "rounded against ourselves"


def read(model: nn.Module, x: Tensor) -> Network:
    (network,) = prepare(model.double().eval(), x).networks
    return network


def lowest(network: Network, specification: Tensor, ball: Ball) -> Tensor:
    """The least values that Frank and Wolfe's method finds in the balls, not cut to the box for l1 and l2."""
    rows = specification.shape[1]
    starts, shape = 16, ball.center.shape[1:]
    generator = torch.Generator().manual_seed(0)

    def farthest(direction: Tensor) -> Tensor:
        flat = direction.flatten(2)
        if ball.norm is Norm.LINF:
            x = torch.where(direction > 0, ball.upper, ball.lower)
            return x - ball.center
        if ball.norm is Norm.L2:
            unit = flat / torch.linalg.vector_norm(flat, dim=-1, keepdim=True).clamp(min=1e-300)
        else:
            unit = torch.zeros_like(flat).scatter(2, flat.abs().argmax(-1, keepdim=True), 1.0) * flat.sign()
        return (unit * ball.radius[:, None]).reshape(direction.shape)

    least = torch.full(specification.shape[:2], torch.inf, dtype=torch.float64)
    for row in range(rows):
        delta = farthest(torch.randn(starts, len(ball), *shape, generator=generator, dtype=torch.float64))
        for step in range(25):
            with torch.enable_grad():
                delta = delta.detach().requires_grad_()
                outputs = network((ball.center + delta).flatten(0, 1)).unflatten(0, (starts, len(ball)))
                value = (outputs * specification[:, row]).sum(-1)
                (slope,) = torch.autograd.grad(value.sum(), delta)
            least[:, row] = torch.minimum(least[:, row], value.detach().amin(0))
            delta = delta + (2 / (step + 2) if step % 2 else 1.0) * (farthest(-slope) - delta)
    return least
