from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import nn

from certifiers import Norm, ThreatModel
from certifiers.exact import Encoder, Program, TriangleProgram, dual_bound, least_over_ball
from certifiers.networks import prepare
from certifiers.relaxation import Ball


def ball_around(center: torch.Tensor, radius: float, norm: str) -> Ball:
    return Ball.around(center[None].double(), torch.tensor([radius], dtype=torch.float64), ThreatModel(norm))


def triangle(model: nn.Module, x: torch.Tensor, radius: float, norm: str) -> Program:
    prepared = prepare(model, x[None])
    return Encoder(ball_around(x, radius, norm)).program(prepared.networks, binary=False)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("radius", [0.01, 0.3, 0.9, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_least_value_of_a_linear_function_over_ball_and_box(norm: str, radius: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    center, slope = rng.random(4), rng.normal(size=4)
    slope[rng.integers(4)] *= rng.integers(2)
    ball = ball_around(torch.tensor(center), radius, norm)
    found = least_over_ball(ball, slope)
    if norm == "l2":
        solved = minimize(
            lambda x: slope @ x,
            center,
            jac=lambda x: slope,
            bounds=[(0, 1)] * 4,
            constraints={
                "type": "ineq",
                "fun": lambda x: radius**2 - np.sum((x - center) ** 2),
                "jac": lambda x: -2 * (x - center),
            },
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        truth, precision = float(solved.fun), 1e-6
    else:
        eye, zero = np.eye(4), np.zeros((4, 4))
        # x = center + p - q
        limit = np.ones((1, 8)) if norm == "l1" else np.block([[eye, zero], [zero, eye]])
        rows = np.vstack([limit, np.hstack([eye, -eye]), np.hstack([-eye, eye])])
        right = np.concatenate([np.full(len(limit), radius), 1 - center, center])
        truth = float(linprog(np.concatenate([slope, -slope]), rows, right, bounds=(0, None)).fun + slope @ center)
        precision = 1e-9
    assert found == pytest.approx(truth, abs=precision)
    inside = center + np.clip(rng.normal(size=(2000, 4)), -1, 1) * radius
    order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]
    inside = np.clip(inside, 0, 1)
    inside = inside[np.linalg.norm(inside - center, ord=order, axis=1) <= radius]
    assert (inside @ slope >= found - 1e-12).all()


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_any_multipliers_give_a_bound(norm: str, mlp: Any) -> None:
    """Garbage, negative, infinite, NaN: never above what an input attains; a good solver's are close to the best."""
    rng, x = np.random.default_rng(0), torch.tensor([0.4, 0.6, 0.5])
    model = mlp(3, 6, 5, 2, seed=1)
    program = triangle(model, x, 0.3, norm)
    assert len(program.limit) >= 4, "there are unstable ReLUs"
    specification = torch.tensor([1.0, -1.0])
    cost, constant = program.combined([specification])
    moves = torch.rand(20000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    order = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}[norm]
    samples = x + 0.3 * moves / torch.linalg.vector_norm(moves, ord=order, dim=1, keepdim=True).clamp(min=1.0)
    attained = float((model(samples.clamp(0, 1)).double() @ specification.double()).min().detach())
    best = TriangleProgram(program, None).lower(cost, constant)
    assert best <= attained + 1e-6
    for _ in range(200):
        garbage = rng.normal(size=len(program.limit)) * 10.0 ** rng.integers(-3, 3)
        garbage[rng.integers(len(garbage))] = rng.choice([np.nan, np.inf, -np.inf, -1e9])
        bound = dual_bound(program, cost, constant, garbage)
        assert np.isfinite(bound)
        assert bound <= best + 1e-6
    assert best > dual_bound(program, cost, constant, np.zeros(len(program.limit))), "multipliers matter"


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_multipliers_of_another_solver_give_its_optimum(norm: str, mlp: Any) -> None:
    """Strong duality, with the multipliers of scipy's solver of the same program."""
    program = triangle(mlp(3, 6, 5, 2, seed=1), torch.tensor([0.4, 0.6, 0.5]), 0.2, norm)
    cost, constant = program.combined([torch.tensor([1.0, -1.0])])
    count, inputs = len(cost), 3
    if norm == "linf":
        rows, limit, bounds = (
            program.matrix.toarray(),
            program.limit,
            list(zip(program.lower, program.upper, strict=True)),
        )
    else:
        center = program.ball.center.flatten().numpy()
        eye, pad = np.eye(inputs), np.zeros((inputs, count - inputs))
        ball = np.block([[eye, pad, -eye], [-eye, pad, -eye], [np.zeros((1, count)), np.ones((1, inputs))]])
        rows = np.vstack([np.hstack([program.matrix.toarray(), np.zeros((len(program.limit), inputs))]), ball])
        limit = np.concatenate([program.limit, center, -center, program.ball.radius.numpy()])
        bounds = [*zip(program.lower, program.upper, strict=True), *[(0, None)] * inputs]
    solved = linprog(np.concatenate([cost, np.zeros(rows.shape[1] - count)]), rows, limit, bounds=bounds)
    multipliers = -solved.ineqlin.marginals[: len(program.limit)]
    assert dual_bound(program, cost, constant, multipliers) == pytest.approx(solved.fun + constant, abs=1e-9)


def test_bound_is_rounded_down() -> None:
    """0.1 + 0.2 - 0.3 is not 0 in floating point; the bound lies below the exact value of each sum."""
    model = nn.Linear(3, 2)
    model.weight.data = torch.tensor([[0.1, 0.2, -0.3], [0.0, 0.0, 0.0]])
    model.bias.data.zero_()
    x = torch.ones(3)
    program = triangle(model, x, 1e-6, "linf")
    cost, constant = program.combined([torch.tensor([1.0, -1.0])])
    assert dual_bound(program, cost, constant, np.zeros(0)) < least_over_ball(program.ball, cost)


def test_norms_are_those_of_the_ball() -> None:
    found = [least_over_ball(ball_around(torch.full((2,), 0.5), 0.25, norm), np.array([3.0, 4.0])) for norm in Norm]
    expected = {"l1": 3.5 - 0.25 * 4, "l2": 3.5 - 0.25 * 5, "linf": 3.5 - 0.25 * 7}
    assert found == pytest.approx([expected[norm.value] for norm in Norm], abs=1e-12)
