"""Networks over the ball of one image, as linear constraints on variables that they share.

The variables are the input, and the output of each ReLU that the ball leaves unstable. All other values are affine
functions of them: a ReLU that reads positive numbers only is the identity, and of negative numbers only, zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy import sparse
from torch import Tensor, nn

from certifiers.certificate import Unsupported
from certifiers.networks import Add, Network
from certifiers.relaxation.affine import AFFINE
from certifiers.relaxation.backward import Relaxed
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.matrices import Expression, Matrices
from certifiers.relaxation.relaxation import BackwardBounds

#: A ReLU that can pass zero by no more than this share of how far it reaches on the other side gets no binary variable:
#: its output is off by no more than that.
BARELY = 1e-7


@dataclass(frozen=True, eq=False)
class Program:
    """What networks compute over a ball: v with `matrix v <= limit` and `lower <= v <= upper`, the input in the ball.

    Attributes:
        ball: of one sample; the input comes first among the variables.
        outputs: the networks' outputs as functions of v.
        matrix: the constraints of the ReLUs.
        limit: their right sides.
        lower: least values of the variables, all of them finite.
        upper: largest values.
        integral: which variables are 0 or 1.
    """

    ball: Ball
    outputs: tuple[Expression, ...]
    matrix: sparse.csr_array
    limit: Float64[np.ndarray, "constraints"]
    lower: Float64[np.ndarray, "variables"]
    upper: Float64[np.ndarray, "variables"]
    integral: Bool[np.ndarray, "variables"]

    def combined(
        self, specifications: Sequence[Float[Tensor, "outputs"]]
    ) -> tuple[Float64[np.ndarray, "variables"], float]:
        """`sum_i specifications[i] . networks[i](x)` as the coefficients of the variables, and a constant."""
        cost, constant = np.zeros(len(self.lower)), 0.0
        for output, specification in zip(self.outputs, specifications, strict=True):
            part, offset = output.combined(specification.double().cpu().numpy())
            cost, constant = cost + part, constant + offset
        return cost, constant


class Encoder:
    """Programs of networks over the ball of one image.

    Args:
        ball: of one sample, in float64.
        matrices: of layers, where they are known already.
    """

    def __init__(self, ball: Ball, matrices: Matrices | None = None) -> None:
        if len(ball) != 1:
            raise ValueError(
                f"An encoder needs the ball of one sample, got {len(ball)}. Use ball.part(slice(k, k + 1))."
            )
        self.ball = ball
        self.bounds = BackwardBounds(ball, "crown")
        self._matrices = Matrices() if matrices is None else matrices

    def program(self, networks: Sequence[Network], *, binary: bool) -> Program:
        """The constraints of networks that read the same input.

        An unstable ReLU `y = max(z, 0)` with l <= z <= u has `y >= 0` and `y >= z`, and

            y <= u (z - l) / (u - l)                      the triangle (Ehlers, ATVA 2017), or with `binary`
            y <= u d,   y <= z - l (1 - d),   d in {0, 1}      which is exact (Tjeng et al., ICLR 2019).

        The intervals [l, u] are those of CROWN. Where of u and -l one is less than `BARELY` of the other, `y <= u` or
        `y <= z - l` replace the binary variable.

        Raises:
            Unsupported: a layer is not linear or a ReLU, or an interval is not one.
        """
        relaxed = [self.bounds.relaxed(network) for network in networks]
        states = [_states(one, binary=binary) for one in relaxed]
        inputs = self.ball.center[0].numel()
        count = sum(state.variables for one in states for state in one.values())
        building = _Building(inputs + count, inputs)
        outputs = tuple(
            building.outputs(network, state, self._matrices) for network, state in zip(networks, states, strict=True)
        )
        lower, upper = (side.flatten().double().cpu().numpy() for side in (self.ball.lower, self.ball.upper))
        return Program(
            ball=self.ball,
            outputs=outputs,
            matrix=sparse.csr_array(sparse.vstack([*building.rows, sparse.csr_array((0, inputs + count))])),
            limit=np.concatenate([*building.limits, np.zeros(0)]),
            lower=np.concatenate([lower, np.zeros(count)]),
            upper=np.concatenate([upper, *building.uppers]),
            integral=np.concatenate([np.zeros(inputs, dtype=bool), *building.integral]),
        )


@dataclass(frozen=True, eq=False)
class _State:
    """What the ball leaves of the ReLUs of a layer: indices of those that are the identity, unstable, or binary."""

    lower: Float64[np.ndarray, "entries"]
    upper: Float64[np.ndarray, "entries"]
    binary: bool
    active: np.ndarray = field(init=False)
    unstable: np.ndarray = field(init=False)
    decided: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        open_ = (self.lower < 0) & (self.upper > 0)
        least, most = np.minimum(-self.lower, self.upper), np.maximum(-self.lower, self.upper)
        decided = open_ & (least >= BARELY * most) & self.binary
        object.__setattr__(self, "active", np.flatnonzero(self.lower >= 0))
        object.__setattr__(self, "unstable", np.flatnonzero(open_))
        object.__setattr__(self, "decided", np.flatnonzero(decided))

    @property
    def variables(self) -> int:
        return len(self.unstable) + len(self.decided)


def _states(relaxed: Relaxed, *, binary: bool) -> dict[int, _State]:
    found = {}
    for number, (lower, upper) in relaxed.bounds.items():
        name = relaxed.network.names[number]
        if not isinstance(relaxed.network.layers[number], nn.ReLU):
            kind = type(relaxed.network.layers[number]).__name__
            raise Unsupported(
                f"{name}: linear programs know no {kind} here. The certifiers native-crown and native-ibp bound it; "
                "average pooling or strided convolutions are encoded."
            )
        if not bool((torch.isfinite(lower) & torch.isfinite(upper) & (lower <= upper)).all()):
            raise Unsupported(f"{name}: its inputs have no finite bounds over the ball. Are there huge weights?")
        low, high = (side.flatten().double().cpu().numpy() for side in (lower, upper))
        found[number] = _State(low, high, binary)
    return found


class _Building:
    """Constraints while layers add to them."""

    def __init__(self, variables: int, used: int) -> None:
        self.variables, self.inputs, self.used = variables, used, used
        self.rows: list[sparse.csr_array] = []
        self.limits: list[np.ndarray] = []
        self.uppers: list[np.ndarray] = []
        self.integral: list[np.ndarray] = []

    def outputs(self, network: Network, states: dict[int, _State], matrices: Matrices) -> Expression:
        """The output of a network, its ReLUs constrained."""
        everywhere = np.arange(self.inputs)
        known = [Expression(self._units(everywhere, everywhere, self.inputs), np.zeros(self.inputs))]
        for number, (layer, sources) in enumerate(zip(network.layers, network.sources, strict=True)):
            read = known[sources[0]]
            if isinstance(layer, nn.ReLU):
                known.append(self._relu(read, states[number]))
            elif isinstance(layer, Add):
                other = known[sources[1]]
                known.append(Expression(sparse.csr_array(read.matrix + other.matrix), read.offset + other.offset))
            elif isinstance(layer, nn.Flatten):
                known.append(read)
            elif isinstance(layer, AFFINE):
                own = matrices.of(layer, network.shapes[sources[0]])
                matrix = sparse.csr_array(own.matrix @ read.matrix)
                known.append(Expression(matrix, own.matrix @ read.offset + own.offset))
            else:
                raise Unsupported(f"{network.names[number]}: linear programs know no {type(layer).__name__}.")
        return known[-1]

    def _units(self, rows: np.ndarray, columns: np.ndarray, count: int) -> sparse.csr_array:
        return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(count, self.variables))

    def _constrain(self, matrix: sparse.csr_array, limit: np.ndarray) -> None:
        self.rows.append(sparse.csr_array(matrix))
        self.limits.append(limit)

    def _relu(self, read: Expression, state: _State) -> Expression:
        count, own, decided = len(read.offset), state.unstable, state.decided
        place = np.full(count, -1)
        place[own] = self.used + np.arange(len(own))
        phase = np.full(count, -1)
        phase[decided] = self.used + len(own) + np.arange(len(decided))
        self.used += state.variables
        self.uppers += [state.upper[own], np.ones(len(decided))]
        self.integral += [np.zeros(len(own), dtype=bool), np.ones(len(decided), dtype=bool)]

        self._constrain(read.matrix[own] - self._entries(place[own]), -read.offset[own])  # y >= z
        if state.binary:
            low, high = state.lower[decided], state.upper[decided]
            outputs, phases = self._entries(place[decided]), self._entries(phase[decided])
            self._constrain(outputs - sparse.diags_array(high) @ phases, np.zeros(len(decided)))
            identity = outputs - read.matrix[decided]
            self._constrain(identity - sparse.diags_array(low) @ phases, read.offset[decided] - low)
            nearly = np.setdiff1d(own[-state.lower[own] < state.upper[own]], decided)
            self._constrain(
                self._entries(place[nearly]) - read.matrix[nearly], read.offset[nearly] - state.lower[nearly]
            )
        else:
            slope = state.upper[own] / (state.upper[own] - state.lower[own])
            lifted = sparse.diags_array(slope) @ read.matrix[own]
            self._constrain(self._entries(place[own]) - lifted, slope * (read.offset[own] - state.lower[own]))
        active = self._select(state.active, count)
        matrix = sparse.csr_array(active @ read.matrix + self._units(own, place[own], count))
        return Expression(matrix, active @ read.offset)

    def _entries(self, columns: np.ndarray) -> sparse.csr_array:
        return self._units(np.arange(len(columns)), columns, len(columns))

    @staticmethod
    def _select(rows: np.ndarray, count: int) -> sparse.csr_array:
        return sparse.csr_array((np.ones(len(rows)), (rows, rows)), shape=(count, count))
