"""LipSDP: the Lipschitz constant of a small fully connected network as a semidefinite program, and as a proof."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import nn

from certifiers.certificate import Unsupported
from certifiers.lipschitz.layer_norms import upward
from certifiers.lipschitz.spectral_norm import largest_singular_value
from certifiers.networks import Network, Shift
from certifiers.relaxation.ball import ROUNDINGS

Solver = Literal["clarabel", "scs"]

Matrix = Float64[np.ndarray, "_ _"]
Vector = Float64[np.ndarray, "_"]

_UNIT = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Chain:
    """A fully connected network `W_n relu(... relu(W_1 x))`, without biases, which do not matter to differences.

    Attributes:
        hidden: W_1 to W_(n-1), each divided by a power of two, exactly, so that its spectral norm is at most 1.
        last: W_n.
        scale: the product of these powers, which ReLUs let through: `relu(s z) = s relu(z)`.
    """

    hidden: tuple[Matrix, ...]
    last: Matrix
    scale: float

    @classmethod
    def of(cls, network: Network) -> "Chain":
        """The chain that a network is.

        Raises:
            Unsupported: it is not one; says where.
        """
        weights: list[Matrix] = []
        expected = "linear"
        for number, (layer, sources, name) in enumerate(
            zip(network.layers, network.sources, network.names, strict=True)
        ):
            if sources == (number,):
                if isinstance(layer, Shift) or (isinstance(layer, nn.Flatten) and not weights):
                    continue
                if isinstance(layer, nn.Linear) and expected == "linear":
                    weights.append(layer.weight.detach().double().cpu().numpy())
                    expected = "relu"
                    continue
                if isinstance(layer, nn.ReLU) and expected == "relu":
                    expected = "linear"
                    continue
            raise Unsupported(
                f"{name}: lipsdp is for networks of linear layers with a ReLU between each two, and this is "
                f"{type(layer).__name__} where {expected} was expected. lipschitz certifies convolutions, pooling and "
                "residual blocks."
            )
        if not weights or expected == "linear":
            raise Unsupported("lipsdp is for networks that end in a linear layer; lipschitz certifies others.")
        hidden, scale = [], 1.0
        for weight in weights[:-1]:
            norm = largest_singular_value(torch.from_numpy(weight))
            power = 2.0 ** math.ceil(math.log2(norm)) if 0 < norm < math.inf else 1.0
            hidden.append(weight / power)
            scale *= power
        return cls(tuple(hidden), weights[-1], scale)

    @property
    def neurons(self) -> int:
        """How many ReLUs it has."""
        return sum(len(weight) for weight in self.hidden)


def inequality(hidden: Sequence[Matrix], row: Vector, multipliers: Sequence[Vector], square: float) -> Matrix:
    """The matrix that must have no positive eigenvalue for `square` to be the square of a Lipschitz constant.

    With differences d of the values, ReLUs satisfy `sum_i t_i dh_i (dz_i - dh_i) >= 0` for all t >= 0 (they are slope-
    restricted in [0, 1]); with `dz = W d` of the layer before,

        |row . d_last|^2 - square |d_0|^2 + 2 sum_k dh_k . T_k (W_k d_(k-1) - dh_k)   =   d^T M d.

    Source: Fazlyab et al., Efficient and accurate estimation of Lipschitz constants for deep neural networks, NeurIPS
    2019, theorem 2, with diagonal T (LipSDP-Neuron) and alpha = 0, beta = 1.
    """
    sizes = [hidden[0].shape[1], *(len(weight) for weight in hidden)]
    ends = np.cumsum([0, *sizes])
    matrix = np.zeros((ends[-1], ends[-1]))
    matrix[: sizes[0], : sizes[0]] = -square * np.eye(sizes[0])
    for number, (weight, t) in enumerate(zip(hidden, multipliers, strict=True)):
        before, own = slice(ends[number], ends[number + 1]), slice(ends[number + 1], ends[number + 2])
        matrix[own, own] -= 2 * np.diag(t)
        matrix[own, before] += t[:, None] * weight
        matrix[before, own] += (t[:, None] * weight).T
    last = slice(ends[-2], ends[-1])
    matrix[last, last] += np.outer(row, row)
    return matrix


def proved_square(hidden: Sequence[Matrix], row: Vector, multipliers: Sequence[Vector], square: float) -> float:
    """The square of a Lipschitz constant, from whatever a solver returned: what its answer lacks is added.

    All W_k have norm at most 1, so that `|d_k| <= |d_0|` for every layer k. With e the largest eigenvalue of the
    inequality's matrix, or zero,

        |row . d_last|^2  <=  square |d_0|^2 + e sum_k |d_k|^2  <=  (square + (n + 1) e) |d_0|^2,     n hidden layers,

    for any multipliers that are not negative. The eigenvalue is that of a matrix which is off by at most a few units of
    its own norm for each of its rows (Golub & Van Loan, section 8.2); `ROUNDINGS` of them are given away.
    """
    t = [np.maximum(part, 0.0) for part in multipliers]
    square = max(square, 0.0)
    matrix = inequality(hidden, row, t, square)
    if not np.isfinite(matrix).all():
        return math.inf
    size = float(np.abs(matrix).sum(1).max())
    excess = max(float(np.linalg.eigvalsh(matrix)[-1]), 0.0) + ROUNDINGS * _UNIT * len(matrix) * size
    return (square + (len(hidden) + 1) * excess) * (1 + ROUNDINGS * _UNIT)


def solved(hidden: Sequence[Matrix], row: Vector, solver: Solver, iterations: int) -> tuple[list[Vector], float]:
    """The multipliers and the square that a solver finds; nothing is believed of them: see `proved_square`.

    The input enters through `W_1 x` alone, so that a triangular factor takes the place of a wide W_1. SCS stops after
    so many iterations; a proof is made of what it has by then.

    Raises:
        Unsupported: cvxpy is not installed.
        RuntimeError: the solver failed; in its own words.
    """
    cp = _cvxpy()
    narrow = list(hidden)
    if narrow[0].shape[1] > narrow[0].shape[0]:
        narrow[0] = np.linalg.qr(narrow[0].T).R.T
    widths = [len(weight) for weight in narrow]
    t, square = cp.Variable(sum(widths), nonneg=True), cp.Variable(nonneg=True)
    zero = [np.zeros(width) for width in widths]
    constant = inequality(narrow, row, zero, 0.0)
    side = len(constant)
    columns = []
    for neuron in range(sum(widths)):
        unit = np.zeros(sum(widths))
        unit[neuron] = 1.0
        split = np.split(unit, np.cumsum(widths)[:-1])
        columns.append((inequality(narrow, row, split, 0.0) - constant).ravel())
    first = inequality(narrow, row, zero, 1.0) - constant
    total = cp.reshape(np.stack(columns, 1) @ t, (side, side), order="C") + square * first + constant
    problem = cp.Problem(cp.Minimize(square), [(total + total.T) / 2 << 0])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")  # it is repaired
            problem.solve(solver=getattr(cp, solver.upper()), **({"max_iters": iterations} if solver == "scs" else {}))
    except cp.error.SolverError as error:
        raise RuntimeError(f"The solver {solver} failed: {error}") from error
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or t.value is None or square.value is None:
        raise RuntimeError(
            f"The solver {solver} failed: it calls the program {problem.status!r}, which has a solution. "
            "Try another solver, or lipschitz."
        )
    return [np.asarray(part, dtype=np.float64) for part in np.split(t.value, np.cumsum(widths)[:-1])], float(
        square.value
    )


def _cvxpy() -> Any:
    """The modelling library, loaded when it is first needed."""
    try:
        import cvxpy
    except ImportError as error:
        raise Unsupported(
            "lipsdp needs cvxpy, which is not installed. Install it: pip install cvxpy. Without it lipschitz gives "
            "constants that are larger."
        ) from error
    return cvxpy


@dataclass(frozen=True, eq=False)
class Program:
    """LipSDP-Neuron of one network, solved for one function of its outputs after another.

    Attributes:
        chain: the network.
        solver: of cvxpy.
        iterations: of SCS, at most.
    """

    chain: Chain
    solver: Solver
    iterations: int

    def constant(self, direction: Float64[np.ndarray, "outputs"]) -> float:
        """A proved Lipschitz constant of `direction . z`; see `proved_square`."""
        row = direction @ self.chain.last
        size = float(np.linalg.norm(row))
        if not np.isfinite(row).all():
            return math.inf
        # The row is off by a unit for each term of its sums, and so are its length and the root.
        terms = np.abs(direction) @ np.abs(self.chain.last)
        slack = (len(direction) + 2) * _UNIT * float(np.linalg.norm(terms))
        if size == 0:
            return upward(slack * self.chain.scale)  # hidden layers stretch by their scale at most
        row = row / size
        found = solved(self.chain.hidden, row, self.solver, self.iterations)
        square = max(proved_square(self.chain.hidden, row, *found), 0.0)
        return upward(math.sqrt(square) * (size * (1 + (len(row) + 8) * _UNIT) + slack) * self.chain.scale)
