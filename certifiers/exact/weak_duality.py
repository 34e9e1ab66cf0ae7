"""Bounds that hold whatever a solver says: weak duality, evaluated here.

All variables lie in boxes and the input in a ball, so that for any multipliers, good or bad, the least value of the
Lagrangian over boxes and ball can be computed, and no feasible point has a smaller objective.
"""

import numpy as np
import torch
from jaxtyping import Float64

from certifiers.certificate import Norm
from certifiers.exact.encoding import Program
from certifiers.relaxation.ball import ROUNDINGS, Ball

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
    return value - float(program.limit @ m) + constant - ROUNDINGS * _UNIT * float(size)


def least_over_ball(ball: Ball, slope: Float64[np.ndarray, "inputs"]) -> float:
    """The least value of `slope . x` over ball and box together, of the one sample of a ball; not rounded.

    With rooms w_i, how far x_i can move against its slope within the box, and any g between 0 and |slope|:

        slope . x  >=  slope . center  -  radius ||g||_dual  -  sum_i (|slope_i| - g_i) w_i.

    The best g is `min(|slope|, t)` in l1 and `min(|slope|, t w)` in l2, for the best number t.
    """
    center, lower, upper = (side.flatten().double().cpu().numpy() for side in (ball.center, ball.lower, ball.upper))
    radius, steep = float(ball.radius), np.abs(slope)
    room = np.where(slope > 0, center - lower, upper - center)
    paid = np.zeros_like(steep)  # g
    if ball.norm is Norm.L1:
        order = np.argsort(-steep)
        exceeded = np.flatnonzero(np.cumsum(room[order]) >= radius)
        paid = np.minimum(steep, steep[order][exceeded[0]] if len(exceeded) else 0.0)
        dual = float(paid.max(initial=0.0))
    elif ball.norm is Norm.L2:
        paid = np.minimum(steep, _multiplier(steep, room, radius) * room)
        dual = float(np.linalg.norm(paid))
    else:
        dual = 0.0
    return float(slope @ center) - radius * dual - float((steep - paid) @ room)


def _multiplier(steep: np.ndarray, room: np.ndarray, radius: float) -> float:
    """The t for which the move `min(|slope| / t, room)` has length radius; 0 where the whole box lies in the ball."""
    if radius <= 0 or float(np.linalg.norm(room)) <= radius:
        return 0.0
    low, high = 0.0, float(np.linalg.norm(steep)) / radius
    for _ in range(100):
        middle = (low + high) / 2
        if middle in (low, high) or middle <= 0:
            break
        if float(np.linalg.norm(np.minimum(steep / middle, room))) > radius:
            low = middle
        else:
            high = middle
    return high
