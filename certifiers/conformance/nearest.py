"""The nearest counterexample that is known: attacks inside a ball, and then ever nearer ones."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certifiers.certificate import ThreatModel
from certifiers.conformance.apgd import apgd
from certifiers.conformance.balls import Ball, distance
from certifiers.conformance.falsify import attack, changed
from certifiers.conformance.losses import CROSS_ENTROPY, LOGIT_RATIO, MARGIN, TOWARDS, margin, scores_of, views
from certifiers.undisturbed import undisturbed
from ensembles.ensemble import members_of, stack_logits
from ensembles.seeds import derive_seed

#: More attacks: from (classifier, image, prediction, radius, threat) to named candidates, which are replayed.
Candidates = Callable[[nn.Module, Tensor, int, float, ThreatModel], Iterator[tuple[str, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard to attack.

    Attributes:
        steps: of each ascent.
        restarts: ascents an objective: the first from the image, one from the nearest counterexample known.
        rounds: smaller balls that are tried once a counterexample is known.
        seed: of the random starts.

    Raises:
        ValueError: steps or restarts below one, or rounds below zero.
    """

    steps: int = 40
    restarts: int = 4
    rounds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an effort that is none."""
        if self.steps < 1 or self.restarts < 1 or self.rounds < 0:
            raise ValueError(
                "An attack needs at least one step, one restart and no rounds, got "
                f"{self.steps}, {self.restarts} and {self.rounds}."
            )


class Witness(NamedTuple):
    """An input that was replayed: in the box, and answered otherwise.

    Attributes:
        point: in the precision of the image.
        distance: from the image, measured in float64.
        answer: the class of the largest score there.
        margin: by how much that score exceeds the prediction's, as the classifier computes it.
        method: what found it first.
    """

    point: Float[Tensor, "*shape"]
    distance: float
    answer: int
    margin: float
    method: str


@dataclass(eq=False)
class Hunt:
    """The search for the nearest counterexample of one image.

    Attributes:
        classifier: an `Ensemble`, or any module from inputs to logits; in eval mode while it is attacked.
        image: one, [1, *shape], in [0, 1].
        prediction: the answer to change.
        threat: the norm of the distance.
        effort: how hard.
        more: further attacks, besides PGD and APGD on the classifier and on each member alone.
        best: the nearest counterexample so far.
        forward_passes: inputs sent through a member so far.
    """

    classifier: nn.Module
    image: Float[Tensor, "1 *shape"]
    prediction: int
    threat: ThreatModel
    effort: Effort = field(default_factory=Effort)
    more: Candidates | None = None
    best: Witness | None = None
    forward_passes: int = 0

    def __post_init__(self) -> None:
        """Copy the classifier in float64."""
        self._double = copy.deepcopy(self.classifier).double().eval().requires_grad_(False)
        self._center = self.image.double()
        self._members = len(members_of(self.classifier))

    def refute(self, radius: float, *, thorough: bool = True) -> bool:
        """Whether a counterexample within `radius` is known, after attacks on that ball; the nearest is kept.

        In turn, until one succeeds: Auto-PGD in float64 on the classifier, on the mean of the logits and on each
        member, with several losses and starts; projected gradient descent (`attack`); the attacks in `more`. Only the
        first two of these where it need not be thorough.
        """
        if radius <= 0 or self._within(radius):
            return self._within(radius)
        for method, points in self._attempts(radius, thorough):
            self._keep(points, method, radius)
            if self._within(radius):
                self.shrink()
                return True
        return False

    def nearest(self, radius: float) -> Witness | None:
        """The nearest counterexample found, or None: an upper bound on the robust radius beyond `radius` too.

        First the ball of the claimed radius; if that stands, balls of twice the radius each until one falls or the box
        is filled; then balls between the last that stood and the nearest counterexample.
        """
        stood, limit = radius, self.threat.box_diameter(self.image[0].numel())
        if self.refute(radius):
            return self.best
        tried = max(radius, 1e-3 * limit)
        while self.best is None and tried < limit:
            tried = min(2 * tried, limit)
            if not self.refute(tried, thorough=False):
                stood = tried
        for _ in range(self.effort.rounds):
            if self.best is None or self.best.distance <= 1.01 * stood:
                break
            middle = (stood + self.best.distance) / 2
            if not self.refute(middle, thorough=False):
                stood = middle
        return self.best

    def shrink(self, halvings: int = 12) -> None:
        """Bring the nearest counterexample nearer along the segment to the image, every point of it replayed."""
        if self.best is None:
            return
        low, far, method = 0.0, self.best.point.double()[None], self.best.method
        high = 1.0
        for _ in range(halvings):
            middle = (low + high) / 2
            before = self.best.distance
            self._keep(self._center + middle * (far - self._center), method)
            low, high = (low, middle) if self.best.distance < before else (middle, high)

    def _within(self, radius: float) -> bool:
        return self.best is not None and self.best.distance <= radius

    def _attempts(self, radius: float, thorough: bool) -> Iterator[tuple[str, Tensor]]:
        """Named candidates from each attack on a ball."""
        asked, effort = torch.tensor([radius], dtype=torch.float64), self.effort
        own = torch.tensor([self.prediction], device=self.image.device)
        rows, shape = effort.restarts, self.image.shape[1:]
        ball = Ball(self._center.expand(rows, *shape), asked.to(self.image.device).expand(rows), self.threat.norm)
        for number, (name, climbed) in enumerate(views(self.classifier)):
            if number > 1 and not thorough:
                return
            points, _ = apgd(
                self._outputs,
                scores_of(self._double),
                climbed,
                ball,
                own.expand(rows),
                self._kinds(rows),
                self._starts(ball, number),
                effort.steps,
            )
            yield "apgd" if not number else f"apgd on {name}", points
        if not thorough:
            return
        seed = derive_seed(effort.seed, "pgd")
        plain = attack(
            *(self.classifier, self.image, own, asked, self.threat),
            steps=effort.steps,
            restarts=min(2, effort.restarts),
            seed=seed,
        )
        self.forward_passes += int(plain.forward_passes[0])
        yield "pgd", plain.witness
        if self.more is not None:
            yield from self.more(self.classifier, self.image, self.prediction, radius, self.threat)

    def _outputs(self, x: Tensor) -> Tensor:
        self.forward_passes += len(x) * self._members
        return stack_logits([member(x) for member in members_of(self._double)])

    def _kinds(self, rows: int) -> Tensor:
        """Losses in turn: the first three of them, and then towards one class each."""
        first = [MARGIN, LOGIT_RATIO, CROSS_ENTROPY]
        kinds = [first[row] if row < len(first) else TOWARDS + row - len(first) for row in range(rows)]
        return torch.tensor(kinds, device=self.image.device)

    def _starts(self, ball: Ball, number: int) -> Tensor:
        """The image, the nearest counterexample drawn into the ball where one is known, and random points."""
        generator = torch.Generator().manual_seed(derive_seed(self.effort.seed, "apgd", number))
        found = []
        for row in range(len(ball.center)):
            direction = torch.randn(self.image.shape[1:], generator=generator, dtype=torch.float64)
            if row == 0:
                found.append(self._center[0])
            elif row == 1 and self.best is not None:
                found.append(self.best.point.double())
            else:
                one = Ball(self._center, ball.radius[:1], self.threat.norm)
                found.append(one.start(direction.to(self.image.device))[0])
        return torch.stack(found)

    def _keep(self, points: Tensor, method: str, radius: float | None = None) -> None:
        """Replay candidates as the claim was made: one image at a time, in its precision; keep the nearest."""
        for point in points:
            replayed = point[None].to(self.image).clamp(0, 1)
            if radius is not None:
                limit = torch.tensor([radius], dtype=torch.float64, device=self.image.device)
                replayed, _ = Ball(self.image, limit, self.threat.norm).inside(replayed)
            away = float(distance(self.image, replayed, self.threat.norm))
            if not math.isfinite(away) or (self.best is not None and away >= self.best.distance):
                continue
            with undisturbed([self.classifier]):
                scores = self.classifier(replayed)
            self.forward_passes += self._members
            own = torch.tensor([self.prediction], device=scores.device)
            if bool(changed(scores, own)):
                gap = float(margin(scores, own))
                self.best = Witness(replayed[0].detach().clone(), away, int(scores.argmax(1)), gap, method)
