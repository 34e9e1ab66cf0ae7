"""Distances to polytopes in l2, exactly: least squares with non-negative multipliers."""

import numpy as np
from jaxtyping import Float64
from scipy.optimize import nnls

#: Below this the residual of an empty polytope is taken to be zero.
EMPTY = 1e-10


def distance_to_polytope(
    point: Float64[np.ndarray, "inputs"],
    matrix: Float64[np.ndarray, "conditions inputs"],
    limit: Float64[np.ndarray, "conditions"],
) -> float:
    """The l2 distance from a point to `{x : matrix x <= limit}`, infinite if that is empty; exact up to about 1e-9.

    Least distance programming (Lawson & Hanson, Solving Least Squares Problems, 1974, chapter 23, section 4): with
    `G u >= h` for `u = x - point`, solve `min ||E y - f||` over `y >= 0`, where `E = [G, h]^T` and
    `f = (0, ..., 0, 1)`; from the residual `r = E y - f`, `u = -r_u / r_last`.
    """
    gap = matrix @ point - limit
    if not (gap > 0).any():
        return 0.0
    # Rows of length one, so that the residual has one scale.
    length = np.linalg.norm(matrix, axis=1).clip(min=1e-300)
    stacked = np.vstack([-matrix.T / length, gap / length])
    goal = np.zeros(len(stacked))
    goal[-1] = 1.0
    multipliers, _ = nnls(stacked, goal, maxiter=100 * stacked.shape[1])
    residual = stacked @ multipliers - goal
    if np.linalg.norm(residual) < EMPTY or residual[-1] >= 0:
        return np.inf
    return float(np.linalg.norm(residual[:-1] / residual[-1]))
