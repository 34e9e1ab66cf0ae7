"""The least value of a linear function over a ball cut to the box."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from certifiers import Norm, ThreatModel
from certifiers.relaxation import Ball
from certifiers.relaxation.rows import Rows

SHAPE = (1, 3, 4)
ORDER = {Norm.L1: 1, Norm.L2: 2, Norm.LINF: "inf"}


@pytest.fixture
def center() -> Tensor:
    """Four images, some of whose pixels lie on the border of the box."""
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    x[0, 0, 0], x[1, 0, 1], x[2] = 0.0, 1.0, 0.0
    return x


@pytest.fixture
def slope() -> Tensor:
    values = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(1)).double()
    values[0, 0, 0], values[7] = 0.0, 0.0
    return values


def least(center: Tensor, radius: Tensor, norm: Norm, slope: Tensor) -> Tensor:
    owner = torch.arange(len(center)).repeat_interleave(len(slope) // len(center))
    ball = Ball.around(center, radius, ThreatModel(norm))
    return ball.least(Rows(slope, owner, SHAPE), slope.new_zeros(len(slope)))


@pytest.mark.parametrize("norm", list(Norm))
def test_it_is_what_a_solver_finds(center: Tensor, slope: Tensor, norm: Norm) -> None:
    radius = torch.tensor([0.1, 0.5, 1.5, 8.0]).double()
    found = least(center, radius, norm, slope)
    for row, value in enumerate(found.tolist()):
        own = row // 2
        x, a = cp.Variable(12), slope[row].flatten().numpy()
        near = cp.norm(x - center[own].flatten().numpy(), ORDER[norm]) <= float(radius[own])
        problem = cp.Problem(cp.Minimize(a @ x), [x >= 0, x <= 1, near])
        problem.solve(solver=cp.CLARABEL)
        assert value == pytest.approx(problem.value, abs=1e-6), row


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nothing_in_ball_and_box_lies_below(center: Tensor, slope: Tensor, norm: Norm, dtype: torch.dtype) -> None:
    for scale in (0.0, 1e-3, 0.3, 1.0, 4.0):
        radius = torch.full((4,), scale, dtype=dtype)
        found = least(center.to(dtype), radius, norm, slope.to(dtype)).double()
        step = torch.randn(500, 4, 12, generator=torch.Generator().manual_seed(2)).double()
        length = torch.linalg.vector_norm(step, ord=float(ORDER[norm]), dim=-1, keepdim=True)
        inside = (center.to(dtype).double().flatten(1) + scale * step / length).clamp(0, 1)
        seen = torch.einsum("spi,pri->spr", inside, slope.to(dtype).double().flatten(1).reshape(4, 2, 12)).amin(0)
        assert bool((found.reshape(4, 2) <= seen).all()), scale


@pytest.mark.parametrize("norm", [Norm.L1, Norm.L2])
def test_the_box_makes_a_ball_at_the_border_smaller(norm: Norm) -> None:
    corner, a = torch.zeros(1, *SHAPE).double(), torch.ones(1, *SHAPE).double()
    assert float(least(corner, torch.ones(1).double(), norm, a)) == pytest.approx(0, abs=1e-9)
    hoelder = -1.0 if norm is Norm.L1 else -np.sqrt(12)
    assert float(least(corner + 0.5, torch.ones(1).double(), norm, a)) == pytest.approx(6 + max(hoelder, -6), abs=1e-9)


def test_a_radius_that_is_not_a_number_has_no_bound(center: Tensor, slope: Tensor) -> None:
    for norm in Norm:
        found = least(center, torch.full((4,), torch.nan).double(), norm, slope)
        assert not bool((found > -torch.inf)[:7].any()), norm
