"""Mixed-integer programming: whether an answer can change within a ball, exactly, and by which input."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from certifiers.certificate import Norm, ThreatModel, Verdict
from certifiers.decision import DecisionCertifier, Inquiry, Report
from certifiers.exact import highs
from certifiers.exact.encoding import Encoder
from certifiers.exact.escapes import escapes, is_exact
from certifiers.exact.minimum import ExactBounds
from certifiers.exact.witness import replayed
from certifiers.networks import prepare
from certifiers.randomness import KeyedRandomness
from certifiers.registry import register
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.ensemble_margins import ensemble_margins
from certifiers.relaxation.matrices import Matrices
from ensembles.parameters import PositiveFloat


@register("milp")
@dataclass(frozen=True, kw_only=True)
class MILP(DecisionCertifier):
    """Whether the answer can change within a ball, by mixed-integer programming (Tjeng et al., ICLR 2019), with HiGHS.

    For each wrong class j: is there an x in ball and box with z_y(x) - z_j(x) <= 0? All members of an ensemble read
    one input. Certified is what has no solution, by more than a tolerance; a solution is replayed on the classifier
    itself, and if its answer changes the image is falsified. Single members, weighted averages of logits and max-margin
    ensembles of logits are decided exactly, up to the tolerance. For weighted averages and max-margin ensembles of
    confidences the members' margins are exact and the rest is a bound (`ensemble_margins`): sound, not exact, slower.

    Evidence: `witness_distance`, of the nearest input found that is answered otherwise, infinite without one;
    `timeout`, 1 where time ran out at some radius; `exact`, 1 for the aggregations that are decided exactly.

    An image without a certificate has the verdict of the least radius that was tried: FALSIFIED by a witness within it,
    TIMEOUT, or UNKNOWN.

    Attributes:
        time_limit: seconds an image; each radius of the search gets an equal share of what is left. What is answered
            for images that need more depends on the machine.
    """

    version: ClassVar[int] = 4
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1, Norm.LINF})
    complete: ClassVar[bool] = True

    time_limit: PositiveFloat = 60.0

    def margins(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        prediction: Int64[Tensor, "batch"],
        radius: Float64[Tensor, "batch"],
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Float64[Tensor, "batch classes"]:
        """Positive bounds where the answer cannot change, minus infinity elsewhere."""
        return self.inquiry(classifier, x, prediction, threat, rng, questions=1).margins(radius)

    def inquiry(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        prediction: Int64[Tensor, "batch"],
        threat: ThreatModel,
        rng: KeyedRandomness,
        questions: int,
    ) -> "Questioning":
        """A search that keeps time and witnesses."""
        return Questioning(classifier, x, prediction, threat, questions, self.time_limit)


class Questioning(Inquiry):
    """The search of `MILP`: the time left, the nearest witness, and the verdict at the least radius, of each image."""

    def __init__(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        prediction: Int64[Tensor, "batch"],
        threat: ThreatModel,
        questions: int,
        seconds: float,
    ) -> None:
        self.classifier, self.x, self.prediction, self.threat = classifier, x, prediction, threat
        self.prepared = prepare(classifier, x)
        self.classes = self.prepared.networks[0].shapes[-1][0]
        self.matrices = Matrices()
        self.left = torch.full((len(x),), seconds, dtype=torch.float64)
        self.questions = torch.full((len(x),), questions)
        self.distance = torch.full((len(x),), math.inf, dtype=torch.float64)
        self.timeout = torch.zeros(len(x), dtype=torch.int64)
        self.verdict = torch.full((len(x),), int(Verdict.UNKNOWN))

    def margins(self, radius: Float64[Tensor, "batch"]) -> Float64[Tensor, "batch classes"]:
        """Positive numbers where no other answer is possible; minus infinity elsewhere."""
        found = torch.full((len(self.x), self.classes), -math.inf, dtype=torch.float64)
        for row, own in enumerate(radius.tolist()):
            if not own > 0:
                continue
            started = time.perf_counter()
            share = float(self.left[row]) / max(1, int(self.questions[row]))
            verdict, bound = self._decide(row, radius[row : row + 1].cpu(), share)
            self.left[row] -= time.perf_counter() - started
            self.questions[row] -= 1
            self.timeout[row] |= int(verdict is Verdict.TIMEOUT)
            self.verdict[row] = int(verdict)
            if verdict is Verdict.CERTIFIED:
                found[row] = bound
        return found

    def _decide(self, row: int, radius: Float64[Tensor, "1"], seconds: float) -> tuple[Verdict, float]:
        """The verdict at one radius, and a bound below all margins where it is CERTIFIED."""
        if float(self.distance[row]) <= float(radius):
            return Verdict.FALSIFIED, -math.inf
        deadline = time.perf_counter() + seconds
        one = slice(row, row + 1)
        ball = Ball.around(self.x[one].double().cpu(), radius, self.threat)
        encoder, prediction = Encoder(ball, self.matrices), self.prediction[one].cpu()
        least = float(ensemble_margins(self.prepared, encoder.bounds, prediction).min())
        if least > 0:
            return Verdict.CERTIFIED, least
        if not is_exact(self.prepared):
            return self._bounded(row, encoder, prediction, deadline)
        tolerance = math.inf
        for escape in escapes(self.prepared, encoder, int(prediction)):
            found = highs.reachable(escape, deadline - time.perf_counter())
            if found.point is None and found.status == "timeout":
                return Verdict.TIMEOUT, -math.inf
            if found.point is not None:
                if self._falsified(row, ball, [escape.input(found.point)]):
                    return Verdict.FALSIFIED, -math.inf
                # It lies within the tolerance of a boundary: the farthest beyond with the same phases may do.
                farthest = highs.polished(escape, found.point).point
                inputs = [] if farthest is None else [escape.input(farthest)]
                changed = self._falsified(row, ball, inputs)
                return (Verdict.FALSIFIED if changed else Verdict.UNKNOWN), -math.inf
            if found.status != "impossible":
                return Verdict.UNKNOWN, -math.inf
            tolerance = min(tolerance, escape.tolerance)
        # Half of the tolerance is kept back.
        return Verdict.CERTIFIED, tolerance / 2 if math.isfinite(tolerance) else 1.0

    def _bounded(
        self, row: int, encoder: Encoder, prediction: Int64[Tensor, "1"], deadline: float
    ) -> tuple[Verdict, float]:
        bounds = ExactBounds(encoder, deadline - time.perf_counter())
        least = float(ensemble_margins(self.prepared, bounds, prediction).min())
        if least > 0:
            return Verdict.CERTIFIED, least
        if self._falsified(row, encoder.ball, bounds.inputs):
            return Verdict.FALSIFIED, -math.inf
        return (Verdict.TIMEOUT if bounds.timeout else Verdict.UNKNOWN), -math.inf

    def _falsified(self, row: int, ball: Ball, inputs: Sequence[Float64[np.ndarray, "inputs"]]) -> bool:
        """Whether one of the inputs, replayed, changes the answer; the nearest one is kept."""
        for candidate in inputs:
            witness = replayed(self.classifier, self.x[row], int(self.prediction[row]), ball, candidate)
            if witness is not None:
                self.distance[row] = min(float(self.distance[row]), witness.distance)
        return float(self.distance[row]) <= float(ball.radius)

    def report(self) -> Report:
        """Verdicts of the least radii that were tried, and the evidence."""
        reasons = {
            int(Verdict.FALSIFIED): "an input within the least radius tried is answered otherwise",
            int(Verdict.TIMEOUT): "out of time before any radius was proved",
            int(Verdict.UNKNOWN): "a boundary is within the tolerance, or the bound does not suffice",
        }
        verdict = torch.where(self.verdict == int(Verdict.CERTIFIED), int(Verdict.UNKNOWN), self.verdict)
        return Report(
            verdict=verdict,
            reason=[reasons.get(one, "") for one in verdict.tolist()],
            evidence={
                "witness_distance": self.distance,
                "timeout": self.timeout,
                "exact": torch.full((len(self.x),), int(is_exact(self.prepared))),
            },
        )
