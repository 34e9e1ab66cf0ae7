"""The ways in which an answer may change over a ball, each a mixed-integer program that must have no solution."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy import sparse
from torch import Tensor

from certifiers.certificate import Norm, Unsupported
from certifiers.exact.encoding import Encoder, Program
from certifiers.networks import Network, Prepared
from certifiers.relaxation.ensemble_margins import normalized, pairs
from ensembles.aggregation import MaxMargin, Single, WeightedAverage

#: How far an answer must stay from changing, for terms of size 1. A solver takes constraints as met within
#: `highs.FEASIBLE`, a thousandth of this; what it calls impossible by this much is impossible.
TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Escape:
    """A mixed-integer program: the v with `matrix v <= limit` between `lower` and `upper`, some of them integral.

    The last variable, the slack, is free: by how much the conditions for another answer are missed. The answer may
    change if the slack can be zero; it stays if the slack cannot be as small as `tolerance`.
    """

    program: Program
    matrix: sparse.csr_array
    limit: Float64[np.ndarray, "constraints"]
    lower: Float64[np.ndarray, "variables"]
    upper: Float64[np.ndarray, "variables"]
    integral: Bool[np.ndarray, "variables"]
    tolerance: float

    def input(self, point: Float64[np.ndarray, "variables"]) -> Float64[np.ndarray, "inputs"]:
        """The flattened input of a point."""
        return point[: self.program.ball.center[0].numel()]


class _Draft:
    """A program to which variables and conditions are added; the slack comes last."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.lower, self.upper = [program.lower], [program.upper]
        self.integral = [program.integral]
        self.count = len(program.lower)
        self.rows: list[tuple[dict[int, float], np.ndarray | None, float]] = []
        self.sizes = [1.0]
        if program.ball.norm is Norm.L1:
            self._l1_ball()

    def variables(self, count: int, upper: float, *, integral: bool = False) -> range:
        """New variables between 0 and `upper`."""
        self.lower.append(np.zeros(count))
        self.upper.append(np.full(count, upper))
        self.integral.append(np.full(count, integral))
        self.count += count
        return range(self.count - count, self.count)

    def condition(
        self, limit: float, others: dict[int, float], cost: np.ndarray | None = None, constant: float = 0.0
    ) -> None:
        """`cost . v + constant + sum_k others[k] v_k <= limit`, on variables of the program and new ones."""
        self.rows.append((others, cost, limit - constant))
        if cost is not None:
            largest = np.maximum(np.abs(self.program.lower), np.abs(self.program.upper))
            self.sizes.append(float(np.abs(cost) @ largest) + abs(constant))

    def _l1_ball(self) -> None:
        """`x - t <= center`, `-x - t <= -center`, `sum t <= radius`."""
        ball = self.program.ball
        for place, value in enumerate(ball.center.flatten().tolist()):
            (distance,) = self.variables(1, float(ball.radius))
            self.condition(value, {place: 1.0, distance: -1.0})
            self.condition(-value, {place: -1.0, distance: -1.0})
        first = len(self.program.lower)
        radius = float(np.nextafter(float(ball.radius), np.inf))
        self.condition(radius, dict.fromkeys(range(first, self.count), 1.0))

    def escape(self, slackened: Sequence[int]) -> Escape:
        """The program, with the slack subtracted from the left sides of some of the conditions."""
        known = len(self.program.lower)
        matrix = sparse.lil_array((len(self.rows), self.count + 1))
        for number, (others, cost, _) in enumerate(self.rows):
            if cost is not None:
                matrix[[number], :known] = cost[None]
            for place, value in others.items():
                matrix[number, place] += value
        matrix[list(slackened), self.count] = -1.0
        own = self.program.matrix
        wide = sparse.csr_array((own.data, own.indices, own.indptr), shape=(own.shape[0], self.count + 1))
        return Escape(
            program=self.program,
            matrix=sparse.csr_array(sparse.vstack([wide, matrix])),
            limit=np.concatenate([self.program.limit, [limit for _, _, limit in self.rows]]),
            lower=np.concatenate([*self.lower, [-np.inf]]),
            upper=np.concatenate([*self.upper, [np.inf]]),
            integral=np.concatenate([*self.integral, [False]]),
            tolerance=TOLERANCE * max(self.sizes),
        )


def linear_escape(
    encoder: Encoder, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "outputs"]]
) -> Escape:
    """`sum_i specifications[i] . networks[i](x) <= slack`, over one input that all networks read."""
    program = encoder.program(networks, binary=True)
    cost, constant = program.combined(specifications)
    draft = _Draft(program)
    draft.condition(0.0, {}, cost, constant)
    return draft.escape([len(draft.rows) - 1])


def is_exact(prepared: Prepared) -> bool:
    """Whether `escapes` knows the aggregation: scores that are linear in logits, and max-margin of logits."""
    aggregation = prepared.aggregation
    if type(aggregation) in (WeightedAverage, MaxMargin):
        return getattr(aggregation, "of", "") == "logit"
    return aggregation is None or type(aggregation) is Single


def escapes(prepared: Prepared, encoder: Encoder, prediction: int) -> Iterator[Escape]:
    """All ways in which the answer may change; where none is possible, the answer is certain.

    Those that CROWN excludes are left out, and the likeliest come first.

    Raises:
        Unsupported: the aggregation is not piecewise linear in the logits.
    """
    if not is_exact(prepared):
        raise Unsupported("scores of confidences are not piecewise linear; there are only bounds from their members.")
    networks, aggregation = prepared.networks, prepared.aggregation
    classes = networks[0].shapes[-1][0]
    own = pairs(torch.tensor([prediction]), classes)
    if isinstance(aggregation, MaxMargin):
        yield from _max_margin_escapes(networks, encoder, prediction, own)
        return
    if isinstance(aggregation, WeightedAverage):
        blocks = [float(weight) * own for weight in normalized(aggregation, len(networks))]
    else:
        networks, blocks = networks[:1], [own]
    least = encoder.bounds.lower(networks, blocks)[0]
    for wrong in least.argsort().tolist():
        if wrong != prediction and not float(least[wrong]) > 0:
            yield linear_escape(encoder, networks, [block[0, wrong] for block in blocks])


def _max_margin_escapes(
    networks: Sequence[Network], encoder: Encoder, prediction: int, own: Float[Tensor, "1 rows classes"]
) -> Iterator[Escape]:
    """Member i answers l, and no other member answers y with a larger gap.

    For some g >= 0

        z_i[l] - z_i[j] >= g   for all j != l,      and for each k != i some j != y with   z_k[y] - z_k[j] <= g.

    If the ensemble does not answer y, its chosen member is such an i: a member k that answers y has the gap
    `min_j z_k[y] - z_k[j]`, no larger than that of i, and for one that does not that number is not positive.
    Conversely, such an x ties the largest gap, or is answered by a member that does not answer y. So this is exact up
    to ties.
    """
    classes = own.shape[1]
    others = [label for label in range(classes) if label != prediction]
    least = [encoder.bounds.lower([network], [own])[0].tolist() for network in networks]
    most = [(-encoder.bounds.lower([network], [-own])[0]).tolist() for network in networks]
    cases = sorted((least[i][wrong], i, wrong) for i in range(len(networks)) for wrong in others)
    for surely, leader, wrong in cases:
        gap = -surely  # the largest gap with which the leader can answer `wrong`
        outvoted = any(min(least[k][j] for j in others) > gap for k in range(len(networks)) if k != leader)
        if gap < 0 or outvoted:
            continue
        program = encoder.program(networks, binary=True)
        draft = _Draft(program)
        (g,) = draft.variables(1, gap + 1.0)
        first = len(draft.rows)
        for label in range(classes):
            if label != wrong:
                cost, constant = _difference(program, leader, label, wrong, classes)
                draft.condition(0.0, {g: 1.0}, cost, constant)
        slackened = list(range(first, len(draft.rows)))
        for k in range(len(networks)):
            if k == leader:
                continue
            chosen = draft.variables(len(others), 1.0, integral=True)
            draft.condition(-1.0, dict.fromkeys(chosen, -1.0))
            for choice, label in zip(chosen, others, strict=True):
                large = max(most[k][label], 0.0) + 1.0  # room for a slack down to -1
                cost, constant = _difference(program, k, prediction, label, classes)
                slackened.append(len(draft.rows))
                draft.condition(large, {g: -1.0, choice: large}, cost, constant)
        yield draft.escape(slackened)


def _difference(
    program: Program, member: int, first: int, second: int, classes: int
) -> tuple[Float64[np.ndarray, "variables"], float]:
    """`z[first] - z[second]` of one member."""
    coefficients = np.zeros(classes)
    coefficients[first] += 1.0
    coefficients[second] -= 1.0
    return program.outputs[member].combined(coefficients)
