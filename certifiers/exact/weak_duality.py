"""Bounds that hold whatever a solver says: weak duality, evaluated here.

All variables lie in boxes and the input in a ball, so that for any multipliers, good or bad, the least value of the
Lagrangian over boxes and ball can be computed, and no feasible point has a smaller objective.
"""

import numpy as np
import torch
from jaxtyping import Float64

from certifiers.exact.encoding import Program
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.rounding import roundings
from certifiers.relaxation.rows import Rows

_UNIT = float(torch.finfo(torch.float64).eps)

Vector = Float64[np.ndarray, "variables"]


def dual_bound(
    program: Program,
    cost: Float64[np.ndarray, "variables"],
    constant: float,
    multipliers: Float64[np.ndarray, "constraints"],
) -> float:
    """A lower bound on `cost . v + constant` over a program, from any multipliers, rounded down.

        min over A v <= b, v in V of c . v  >=  min over v in V of (c + A^T m) . v  -  b . m      for every m >= 0

    V holds the v whose input is in the ball and which lie between their bounds; phases need not be 0 or 1. Multipliers
    that are negative or not finite count as zero. Equal to the least value for the best multipliers (strong duality).

    Source: Boyd & Vandenberghe, Convex Optimization, section 5.1.3.
    """
    m = np.where(np.isfinite(multipliers), np.maximum(multipliers, 0.0), 0.0)
    slope = cost + m @ program.matrix
    inputs = program.ball.center[0].numel()
    rest = slope[inputs:]
    value = least_over_ball(program.ball, slope[:inputs]) + float(
        np.sum(np.minimum(rest * program.lower[inputs:], rest * program.upper[inputs:]))
    )
    largest = np.maximum(np.abs(program.lower), np.abs(program.upper))
    # The slope of a basic variable is zero, summed from numbers that are not.
    size = (np.abs(cost) + m @ abs(program.matrix)) @ largest + np.abs(program.limit) @ m + abs(constant)
    return value - float(program.limit @ m) + constant - roundings(max(program.matrix.shape)) * _UNIT * float(size)


def least_over_ball(ball: Ball, slope: Float64[np.ndarray, "inputs"]) -> float:
    """The least value of `slope . x` over ball and box together, of the one sample of a ball; rounded down."""
    values = torch.from_numpy(slope).reshape(1, *ball.center.shape[1:])
    rows = Rows(values, torch.zeros(1, dtype=torch.int64), tuple(ball.center.shape[1:]))
    return float(ball.least(rows, values.new_zeros(1)))
