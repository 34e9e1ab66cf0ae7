"""The triangle relaxation: bounds by linear programming, proved by the multipliers that the solver returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from certifiers.certificate import Norm, ThreatModel, Unsupported
from certifiers.decision import DecisionCertifier
from certifiers.exact.encoding import Encoder, Program
from certifiers.exact.weak_duality import dual_bound
from certifiers.networks import Network, prepare
from certifiers.randomness import KeyedRandomness
from certifiers.registry import register
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.ensemble_margins import ensemble_margins
from certifiers.relaxation.matrices import Matrices
from certifiers.relaxation.relaxation import Bounds
from ensembles.aggregation import MaxMargin, WeightedAverage

Solver = Literal["highs", "clarabel", "scs"]


class TriangleProgram:
    """A program with its ReLUs relaxed to triangles, set up once and solved for one objective after another.

    Args:
        program: without integral variables.
        solver: its name; None: HiGHS for linear programs, Clarabel for l2.

    Raises:
        Unsupported: cvxpy is not installed, or the solver does not know the ball.
    """

    def __init__(self, program: Program, solver: Solver | None) -> None:
        self.program = program
        self.solver = solver or ("clarabel" if program.ball.norm is Norm.L2 else "highs")
        if self.solver == "highs" and program.ball.norm is Norm.L2:
            raise Unsupported(
                "the solver highs knows linear programs only, and an l2 ball is a second-order cone. "
                "Use solver = clarabel or scs, or the norms l1 and linf."
            )
        cp = self._cvxpy = _cvxpy()
        inputs = program.ball.center[0].numel()
        v = cp.Variable(len(program.lower))
        self._cost = cp.Parameter(len(program.lower))
        self._rows = program.matrix @ v <= program.limit if len(program.limit) else None
        constraints = [v >= program.lower, v <= program.upper, *([] if self._rows is None else [self._rows])]
        if program.ball.norm is not Norm.LINF:
            center = program.ball.center.flatten().double().cpu().numpy()
            order = 1 if program.ball.norm is Norm.L1 else 2
            constraints.append(cp.norm(v[:inputs] - center, order) <= float(program.ball.radius))
        self._problem = cp.Problem(cp.Minimize(self._cost @ v), constraints)

    def lower(self, cost: Float64[np.ndarray, "variables"], constant: float) -> float:
        """A lower bound on `cost . v + constant`: the dual bound of the solver's multipliers, recomputed.

        A solver that is wrong, or stops early, makes the bound weaker and never invalid.

        Raises:
            RuntimeError: the solver failed; in its own words.
        """
        if self._rows is None:  # the least value of a linear function over ball and box: there is nothing to solve
            return dual_bound(self.program, cost, constant, np.zeros(0))
        self._cost.value = cost
        cp = self._cvxpy
        try:
            self._problem.solve(solver=getattr(cp, self.solver.upper()))
        except cp.error.SolverError as error:
            raise RuntimeError(f"The solver {self.solver} failed: {error}") from error
        multipliers = self._rows.dual_value
        if self._problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or multipliers is None:
            raise RuntimeError(
                f"The solver {self.solver} failed: it calls a program that has a solution {self._problem.status!r}. "
                "Try another solver."
            )
        return dual_bound(self.program, cost, constant, np.asarray(multipliers, dtype=np.float64).reshape(-1))


def _cvxpy() -> Any:
    """The modelling library, loaded when it is first needed."""
    try:
        import cvxpy
    except ImportError as error:
        raise Unsupported(
            "lp needs cvxpy, which is not installed. Install it: pip install cvxpy highspy. Without it native-crown "
            "gives bounds that are a little weaker."
        ) from error
    return cvxpy


class LinearProgramBounds(Bounds):
    """Bounds of the triangle relaxation over the ball of one image; members share their input.

    No bound is below that of CROWN, whose linear functions are multipliers of the same program: the larger one of both
    is taken, so that a solver's lack of precision costs nothing.

    Args:
        encoder: of the ball.
        solver: its name; None: HiGHS for linear programs, Clarabel for l2.
        signs: only the signs of bounds matter: those that CROWN proves positive are not solved for. Of several
            networks together it never is more than the sign.
    """

    def __init__(self, encoder: Encoder, solver: Solver | None = None, *, signs: bool = False) -> None:
        self.encoder = encoder
        self.solver = solver
        self.signs = signs
        self._programs: dict[tuple[Network, ...], TriangleProgram] = {}

    def lower(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float[Tensor, "batch rows"]:
        """The programs' least values, from below; a row needs only the networks that it mentions."""
        found = self.encoder.bounds.lower(networks, specifications).double().clone()
        settled = found[0] > 0 if self.signs or len(networks) > 1 else torch.zeros_like(found[0], dtype=torch.bool)
        for row in range(found.shape[1]):
            mentioned = [number for number, part in enumerate(specifications) if bool(part[0, row].any())]
            if settled[row] or not mentioned:
                continue
            program = self._program(tuple(networks[number] for number in mentioned))
            objective = program.program.combined([specifications[number][0, row] for number in mentioned])
            found[0, row] = max(float(found[0, row]), program.lower(*objective))
        return found

    def _program(self, networks: tuple[Network, ...]) -> TriangleProgram:
        if networks not in self._programs:
            self._programs[networks] = TriangleProgram(self.encoder.program(networks, binary=False), self.solver)
        return self._programs[networks]


@register("lp")
@dataclass(frozen=True, kw_only=True)
class LinearProgram(DecisionCertifier):
    """Margins from the triangle relaxation of all ReLUs, the best of its kind (Salman et al., NeurIPS 2019).

        min z_y - z_j   over   x in ball and box,  y >= 0,  y >= z,  y <= u (z - l) / (u - l)  for each unstable ReLU

    Intervals [l, u] are those of CROWN, which this bound is never below. The members of a weighted average of logits,
    and pairs of members of a max-margin ensemble of logits, are one program over one input. A bound is the dual value
    of the solver's multipliers, recomputed and rounded down: see `dual_bound`.

    Attributes:
        solver: highs, clarabel or scs, through cvxpy; None: highs in l1 and linf, clarabel in l2.
    """

    version: ClassVar[int] = 3
    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

    solver: Solver | None = None

    def margins(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        prediction: Int64[Tensor, "batch"],
        radius: Float64[Tensor, "batch"],
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Float64[Tensor, "batch classes"]:
        """The lower bounds on the margins; those of CROWN where they suffice, or where the radius is zero."""
        prepared = prepare(classifier, x)
        matrices, found = Matrices(), []
        aggregation = prepared.aggregation
        by_member = isinstance(aggregation, MaxMargin) or (
            isinstance(aggregation, WeightedAverage) and aggregation.of == "confidence"
        )
        for row in range(len(x)):
            one = slice(row, row + 1)
            ball = Ball.around(x[one].double().cpu(), radius[one].cpu(), threat)
            encoder, answer = Encoder(ball, matrices), prediction[one].cpu()
            margins = ensemble_margins(prepared, encoder.bounds, answer)
            if float(radius[row]) > 0 and not bool((margins > 0).all()):
                bounds = LinearProgramBounds(encoder, self.solver, signs=not by_member)
                margins = torch.fmax(margins, ensemble_margins(prepared, bounds, answer))
            found.append(margins)
        return torch.cat(found)
