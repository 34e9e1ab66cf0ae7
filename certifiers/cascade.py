"""The cascade: cheap proofs first, then a cheap refutation, then dear proofs, each on what is still open."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, nn

from certifiers.certificate import Findings, Norm, ThreatModel, Unsupported, Verdict
from certifiers.certifier import Certifier
from certifiers.conformance.falsify import attack
from certifiers.decision import DecisionCertifier, float32_at_least, positive_margins
from certifiers.randomness import KeyedRandomness
from certifiers.registry import get, register
from certifiers.relaxation.certifiers import BackwardCertifier
from certifiers.sanitize import CleanAnswer
from ensembles.parameters import ParameterError, PositiveFloat, PositiveInt

#: The stage that refutes: a projected gradient attack instead of a certifier.
ATTACK = "attack"


@register("cascade")
@dataclass(frozen=True, kw_only=True)
class Cascade(Certifier):
    """Stages in turn, from cheap to dear, each asked only what no stage before it has settled.

    Every image has a bracket: the largest radius that was proved, and the least with a counterexample that was
    replayed, found by the attack or by a stage that reports one (`milp`). A stage that proves bisects what lies
    between, and its failures bind no other stage. An image is closed once no radius is left in its bracket. CROWN's
    bounds on the neurons at one radius are used for smaller radii of the bracket too. Only radii that were themselves
    proved are reported.

    Evidence: `stage`, which closed the image (`open` if none did); `proof`, the stage that proved the radius;
    `refuted_radius`, the least radius with a counterexample, infinite without one.

    Attributes:
        stages: names of decision certifiers, and `attack`. A stage that does not apply to a classifier is left out.
        attack_steps: of projected gradient descent, at each radius.
        attack_restarts: ascents an objective; the first starts from the image.
        time_limit: seconds an image and radius, for stages that have such a limit.
        steps: halvings of the bracket in a stage when no grid of radii is given.
    """

    version: ClassVar[int] = 2
    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)
    uses_radii: ClassVar[bool] = True

    stages: tuple[str, ...] = ("native-ibp", "native-crown-ibp", ATTACK, "native-crown", "alpha-crown", "milp")
    attack_steps: PositiveInt = 10
    attack_restarts: PositiveInt = 1
    time_limit: PositiveFloat = 10.0
    steps: PositiveInt = 8

    def __post_init__(self) -> None:
        """Refuse stages that are not decision certifiers, and a cascade that proves nothing."""
        super().__post_init__()
        for name in self.stages:
            if name != ATTACK and not issubclass(get(name), DecisionCertifier):
                raise ParameterError(
                    f"Cascade: the stage {name!r} does not decide a radius. Stages are 'attack' and "
                    "decision certifiers such as 'native-crown'."
                )
        if len(set(self.stages)) != len(self.stages) or set(self.stages) <= {ATTACK}:
            raise ParameterError(f"Cascade: stages = {self.stages} must name at least one certifier, and none twice.")

    def describe(self) -> dict[str, Any]:
        """As of all certifiers, with the stages in full: their versions and parameters are part of the method."""
        return {
            **super().describe(),
            "stages": [self._prover(name).describe() for name in self.stages if name != ATTACK],
        }

    def _prover(self, name: str) -> DecisionCertifier:
        stage = cast("type[DecisionCertifier]", get(name))
        limits = {"time_limit": self.time_limit} if "time_limit" in {item.name for item in fields(stage)} else {}
        return cast("DecisionCertifier", get(name).from_mapping(limits, f"stage {name!r}"))

    def _search(
        self,
        classifiers: Sequence[nn.Module],
        x: Tensor,
        clean: Sequence[CleanAnswer | None],
        threat: ThreatModel,
        radii: Sequence[float] | None,
        rng: KeyedRandomness,
    ) -> list[Findings | tuple[Verdict, str]]:
        answers: list[Findings | tuple[Verdict, str]] = []
        for classifier, own in zip(classifiers, clean, strict=True):
            run = _Run(
                self, classifier, x, cast("CleanAnswer", own), threat, rng, _levels(radii, threat, x, self.steps)
            )
            try:
                answers.append(run.findings())
            except Unsupported as reason:
                answers.append((Verdict.UNSUPPORTED, str(reason)))
        return answers


class _Levels:
    """The radii that may be asked: those of a grid, or all, up to a resolution."""

    def __init__(self, grid: Sequence[float] | None, limit: float, steps: int) -> None:
        self.limit, self.steps = limit, steps
        self.exact = None if grid is None else torch.tensor([0.0, *grid], dtype=torch.float64)
        self.asked = None if grid is None else torch.tensor([0.0, *map(float32_at_least, grid)], dtype=torch.float64)

    def between(self, low: Tensor, high: Tensor, resolution: Tensor | float = 0.0) -> Float64[Tensor, "batch"]:
        """A radius strictly between, about half-way; 0 where there is none, or the gap is not above a resolution."""
        if self.asked is None:
            high = high.clamp(max=self.limit)
            middle = ((low + high) / 2).float().double()
            return torch.where((middle > low) & (middle < high) & (high - low > resolution), middle, 0.0)
        first = torch.searchsorted(self.asked, low, right=True)
        last = torch.searchsorted(self.asked, high)
        middle = (first + (last - first) // 2).clamp(max=len(self.asked) - 1)
        return torch.where(last > first, self.asked[middle], 0.0)

    def below(self, low: Tensor, high: Tensor, count: int) -> Float64[Tensor, "level batch"]:
        """`high`, and some radii between it and `low`, descending."""
        found = [high]
        for _ in range(count):
            smaller = self.between(low, found[-1])
            found.append(torch.where(smaller > 0, smaller, found[-1]))
        return torch.stack(found)

    def reported(self, proved: Tensor) -> Float64[Tensor, "batch"]:
        """The radii as they were asked for."""
        if self.asked is None or self.exact is None:
            return proved
        return self.exact[torch.searchsorted(self.asked, proved)]


def _levels(radii: Sequence[float] | None, threat: ThreatModel, x: Tensor, steps: int) -> _Levels:
    grid = None if radii is None else [radius for radius in radii if radius > 0]
    return _Levels(grid, threat.box_diameter(x[0].numel()), steps)


@dataclass
class _Run:
    """One classifier on its way through the stages."""

    cascade: Cascade
    classifier: nn.Module
    x: Tensor
    clean: CleanAnswer
    threat: ThreatModel
    rng: KeyedRandomness
    levels: _Levels
    proved: Tensor = field(init=False)
    refuted: Tensor = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.x)
        self.proved = torch.zeros(count, dtype=torch.float64)
        self.refuted = torch.full((count,), math.inf, dtype=torch.float64)
        self.stage, self.proof = ["open"] * count, [""] * count
        self.bound_passes = torch.zeros(count, dtype=torch.int64)
        self.forward_passes = torch.zeros(count, dtype=torch.int64)

    def findings(self) -> Findings:
        """Go through the stages.

        Raises:
            Unsupported: no stage that proves applies.
        """
        unsupported: list[str] = []
        for name in self.cascade.stages:
            open_images = self._open()
            if not bool(open_images.any()):
                break
            try:
                if name == ATTACK:
                    self._refute(open_images)
                else:
                    self._prove(name, self.cascade._prover(name), open_images)
            except Unsupported as reason:
                unsupported.append(f"{name}: {reason}")
            still_open = self._open()
            for image in (open_images & ~still_open).nonzero().flatten().tolist():
                self.stage[image] = name
        if len(unsupported) == sum(name != ATTACK for name in self.cascade.stages):
            raise Unsupported(" ".join(unsupported))
        refuted = (self.proved == 0) & torch.isfinite(self.refuted) & ~self._open()
        return Findings(
            radius=self.levels.reported(self.proved),
            rounded=True,
            verdict=torch.where(refuted, int(Verdict.FALSIFIED), int(Verdict.UNKNOWN)),
            reason=[
                f"an input within {float(radius):g} is answered otherwise" if found else ""
                for found, radius in zip(refuted, self.refuted, strict=True)
            ],
            evidence={"stage": self.stage, "proof": self.proof, "refuted_radius": self.refuted},
            forward_passes=self.forward_passes,
            bound_passes=self.bound_passes,
        )

    def _open(self) -> Bool[Tensor, "batch"]:
        resolution = self.levels.limit * 2.0**-24
        return self.clean.sure & (self.levels.between(self.proved, self.refuted, resolution) > 0)

    def _prove(self, name: str, prover: DecisionCertifier, images: Bool[Tensor, "batch"]) -> None:
        """Bisect the brackets of some images by a certifier; what it fails at is settled for this stage alone."""
        if self.threat.norm not in prover.norms:
            raise Unsupported(f"does not certify the norm {self.threat.norm}.")
        failed = torch.full_like(self.refuted, math.inf)
        for _ in range(self._rounds()):
            asked = self.levels.between(self.proved, torch.minimum(failed, self.refuted)) * images
            rows = asked.nonzero().flatten()
            if not len(rows):
                return
            self.bound_passes[rows] += 1
            best = self._best(prover, rows, asked[rows])
            for row, radius in zip(rows.tolist(), best.tolist(), strict=True):
                if radius > self.proved[row]:
                    self.proved[row], self.proof[row] = radius, name
            failed[rows] = torch.where(best == asked[rows], failed[rows], asked[rows])

    def _rounds(self) -> int:
        return self.cascade.steps if self.levels.asked is None else len(self.levels.asked)

    def _best(
        self, prover: DecisionCertifier, rows: Int64[Tensor, "part"], radius: Float64[Tensor, "part"]
    ) -> Float64[Tensor, "part"]:
        """What a certifier proves when asked a radius: that, or one below it that came for little, or 0."""
        try:
            if isinstance(prover, BackwardCertifier):
                return self._largest_held(prover, rows, radius)
            return torch.where(self._held(prover, rows, radius), radius, 0.0)
        except TimeoutError:
            if len(rows) == 1:
                return torch.zeros(1, dtype=torch.float64)
            return torch.cat([self._best(prover, rows[i : i + 1], radius[i : i + 1]) for i in range(len(rows))])

    def _held(
        self, prover: DecisionCertifier, rows: Int64[Tensor, "part"], radius: Float64[Tensor, "part"]
    ) -> Bool[Tensor, "part"]:
        """Which radii a certifier proves; where it reports a counterexample instead, the bracket ends there."""
        x, prediction = self.x[rows], self.clean.prediction[rows]
        own = prediction.to(x.device), self.threat, self._rng(rows)
        inquiry = prover.inquiry(self.classifier, x.clone(), *own, questions=1)
        held = positive_margins(inquiry.margins(radius.to(x.device)), prediction, self.clean.classes)
        if (verdict := inquiry.report().verdict) is not None:
            falsified = (verdict.cpu() == int(Verdict.FALSIFIED)) & ~held
            self.refuted[rows] = torch.where(falsified, radius.minimum(self.refuted[rows]), self.refuted[rows])
        return held

    def _largest_held(
        self, prover: BackwardCertifier, rows: Int64[Tensor, "part"], radius: Float64[Tensor, "part"]
    ) -> Float64[Tensor, "part"]:
        """`radius` where it is proved, else the largest of some smaller ones that is; 0 if none is.

        Bounds on neurons are the dear part, and hold for all smaller radii, which can be asked of them for little.
        """
        x, prediction = self.x[rows], self.clean.prediction[rows]
        radii = self.levels.below(self.proved[rows], radius, 3)
        radii = radii[: 1 + int((radii[1:] < radii[:-1]).any(1).sum())]
        margins = prover.descending(self.classifier, x, prediction.to(x.device), radii.to(x.device), self.threat)
        best = torch.zeros(len(rows), dtype=torch.float64)
        for asked, bounds in zip(radii, margins, strict=True):
            best = torch.where((best == 0) & positive_margins(bounds, prediction, self.clean.classes), asked, best)
        return best

    def _refute(self, images: Bool[Tensor, "batch"]) -> None:
        """Bisect the brackets of some images by the attack: the least radius at which it finds another answer."""
        survived = self.proved.clone()
        steps, restarts = self.cascade.attack_steps, self.cascade.attack_restarts
        for _ in range(self._rounds()):
            asked = self.levels.between(survived, self.refuted) * images
            rows = asked.nonzero().flatten()
            if not len(rows):
                return
            x, prediction = self.x[rows], self.clean.prediction[rows]
            answer = attack(self.classifier, x, prediction, asked[rows], self.threat, steps=steps, restarts=restarts)
            self.forward_passes[rows] += answer.forward_passes.cpu()
            found = answer.found.cpu()
            self.refuted[rows] = torch.where(found, asked[rows], self.refuted[rows])
            survived[rows] = torch.where(found, survived[rows], asked[rows])

    def _rng(self, rows: Int64[Tensor, "part"]) -> KeyedRandomness:
        return KeyedRandomness(self.rng.seed, tuple(self.rng.image_ids[row] for row in rows.tolist()))
