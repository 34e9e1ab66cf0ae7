"""The second family: certifiers that decide one radius at a time, and the search over radii around them."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast, final

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn

from certifiers.certificate import Findings, Guarantee, ThreatModel, Unsupported, Verdict
from certifiers.certifier import Certifier
from certifiers.randomness import KeyedRandomness
from certifiers.sanitize import CleanAnswer
from ensembles.parameters import PositiveInt

#: From a radius an image to whether it was proved.
Decide = Callable[[Float64[Tensor, "batch"]], Bool[Tensor, "batch"]]

#: From a classifier, images, predictions, radii and threat model to lower bounds on margins.
Margins = Callable[[nn.Module, Tensor, Tensor, Tensor, ThreatModel], Tensor]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a search has to say of its images beside the radii that were proved; each as in `Findings`.

    Attributes:
        verdict: of images for which no radius was proved; None: UNKNOWN.
        reason: why there is no certificate.
        evidence: columns of numbers or strings.
    """

    verdict: Int64[Tensor, "batch"] | None = None
    reason: Sequence[str] | None = None
    evidence: Mapping[str, Tensor | Sequence[str]] = field(default_factory=dict)


class Inquiry(ABC):
    """One search: its images, and what a method keeps from one radius to the next."""

    @abstractmethod
    def margins(self, radius: Float64[Tensor, "batch"]) -> Float[Tensor, "batch classes"]:
        """`DecisionCertifier.margins` at these radii; images with radius 0 are not asked for."""

    def report(self) -> Report:
        """What is to be said once the search is over."""
        return Report()


@dataclass(frozen=True, kw_only=True)
class DecisionCertifier(Certifier):
    """A certifier that bounds the class margins at a given radius. An author writes `margins`.

    The search reports only radii that were themselves proved, so that nothing is assumed of how the bounds
    depend on the radius. Every radius tried is a float32 number, so that an author who computes in float32
    bounds the very ball that is claimed: grid radii are rounded up to one (and reported as asked).

    Evidence of all of them: `margin`, the least bound on a margin to another class at `margin_radius`, the largest
    radius that was asked. Of those that bound `without_rounding` too, `unrounded_radius`: the radius found so.

    Attributes:
        bisection_steps: halvings of the bracket when no grid of radii is given.
    """

    uses_radii: ClassVar[bool] = True
    bisection_steps: PositiveInt = 24

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a probabilistic guarantee: trying many radii would multiply its failure probability."""
        super().__init_subclass__(**options)
        if cls.guarantee is not Guarantee.DETERMINISTIC:
            raise TypeError(
                f"{cls.__name__} is a DecisionCertifier with a probabilistic guarantee; every radius that is tried "
                "would spend its alpha again. Derive it from RadiusCertifier."
            )

    @abstractmethod
    def margins(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        prediction: Int64[Tensor, "batch"],
        radius: Float64[Tensor, "batch"],
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Float[Tensor, "batch classes"]:
        """Lower bounds on `score[prediction] - score[j]` over the ball of each image's own radius, for all j.

        The column of the prediction itself is not read. Called with gradients off, the classifier in eval mode.
        Raise `Unsupported` where the method does not apply.
        """

    def without_rounding(self) -> Margins | None:
        """`margins` with nothing given away for rounding: no proof, but it shows what that costs. None: not shown."""
        return None

    def inquiry(
        self,
        classifier: nn.Module,
        x: Float[Tensor, "batch *shape"],
        prediction: Int64[Tensor, "batch"],
        threat: ThreatModel,
        rng: KeyedRandomness,
        questions: int,
    ) -> Inquiry:
        """A search of at most `questions` radii an image.

        Replace it to keep something from one radius to the next, or to report verdicts and evidence.
        """
        return _Stateless(self, classifier, x, prediction, threat, rng)

    @final
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
            try:
                answers.append(self._search_one(classifier, x, cast("CleanAnswer", own), threat, radii, rng))
            except Unsupported as reason:
                answers.append((Verdict.UNSUPPORTED, str(reason)))
            except TimeoutError as reason:
                answers.append((Verdict.TIMEOUT, str(reason) or "out of time"))
        return answers

    def _search_one(
        self,
        classifier: nn.Module,
        x: Tensor,
        own: CleanAnswer,
        threat: ThreatModel,
        radii: Sequence[float] | None,
        rng: KeyedRandomness,
    ) -> Findings:
        tried = torch.zeros(len(x), dtype=torch.int64)
        grid = None if radii is None else [radius for radius in radii if radius > 0]
        questions = self.bisection_steps if grid is None else len(grid).bit_length()
        inquiry = self.inquiry(classifier, x, own.prediction.to(x.device), threat, rng, questions)

        margin, margin_radius = torch.full((len(x),), torch.nan, dtype=torch.float64), torch.zeros(len(x)).double()

        decide = functools.partial(_decide, inquiry, own, tried, margin, margin_radius)
        radius = self._searched(decide, x, threat, grid)
        report = inquiry.report()
        evidence = {"margin": margin, "margin_radius": margin_radius, **report.evidence}

        if (unrounded := self.without_rounding()) is not None:
            decide = functools.partial(_decide_unrounded, unrounded, classifier, x, own, threat)
            evidence["unrounded_radius"] = self._searched(decide, x, threat, grid)
        # Nothing that is reported can take a proof away, or give one.
        verdict = (
            None if report.verdict is None else torch.where(radius > 0, int(Verdict.UNKNOWN), report.verdict.cpu())
        )
        return Findings(
            radius=radius,
            rounded=True,
            bound_passes=tried,
            verdict=verdict,
            reason=report.reason,
            evidence=evidence,
        )

    def _searched(self, decide: Decide, x: Tensor, threat: ThreatModel, grid: Sequence[float] | None) -> Tensor:
        if grid is not None:
            return search_grid(decide, len(x), grid)
        return search_by_bisection(decide, len(x), threat.box_diameter(x[0].numel()), self.bisection_steps)


def _decide(
    inquiry: "Inquiry", own: CleanAnswer, tried: Tensor, margin: Tensor, margin_radius: Tensor, radius: Tensor
) -> Tensor:
    """Which images hold at their radii; counts what was tried, and keeps the margins at the largest radius."""
    asked = radius > 0
    tried.add_(asked)
    bounds = inquiry.margins(radius)
    held = positive_margins(bounds, own.prediction, own.classes) & asked
    largest = asked & (radius >= margin_radius)
    margin[largest] = least_margins(bounds, own.prediction)[largest]
    margin_radius[largest] = radius[largest]
    return held


def _decide_unrounded(
    unrounded: "Margins", classifier: nn.Module, x: Tensor, own: CleanAnswer, threat: ThreatModel, radius: Tensor
) -> Tensor:
    asked = radius.to(x.device)
    bounds = unrounded(classifier, x.clone(), own.prediction.to(x.device), asked, threat)
    return positive_margins(bounds, own.prediction, own.classes) & (radius > 0)


@dataclass(frozen=True, eq=False)
class _Stateless(Inquiry):
    """A search that asks the author's `margins`, and keeps nothing."""

    certifier: DecisionCertifier
    classifier: nn.Module
    x: Tensor
    prediction: Tensor
    threat: ThreatModel
    rng: KeyedRandomness

    def margins(self, radius: Float64[Tensor, "batch"]) -> Tensor:
        """The author's margins, of a copy of the images; their shape is looked at where they are read."""
        return self.certifier.margins(
            self.classifier, self.x.clone(), self.prediction, radius.to(self.x.device), self.threat, self.rng
        )


def positive_margins(bounds: Tensor, prediction: Int64[Tensor, "batch"], classes: int) -> Bool[Tensor, "batch"]:
    """Whether all margins to other classes are proved positive: finite and above zero, ties refused.

    Raises:
        ValueError: not one bound for each image and class; an author's mistake.
    """
    bounds = bounds.detach().cpu()
    if bounds.shape != (len(prediction), classes):
        raise ValueError(
            f"margins must return bounds of shape [{len(prediction)}, {classes}], one an image and class, "
            f"got {list(bounds.shape)}."
        )
    others = torch.ones_like(bounds, dtype=torch.bool).scatter(1, prediction[:, None], value=False)
    return ((torch.isfinite(bounds) & (bounds > 0)) | ~others).all(1)


def least_margins(bounds: Tensor, prediction: Int64[Tensor, "batch"]) -> Float64[Tensor, "batch"]:
    """The smallest bound on a margin to another class; NaN where one is NaN."""
    return bounds.detach().cpu().double().scatter(1, prediction[:, None], torch.inf).amin(1)


def search_grid(decide: Decide, count: int, grid: Sequence[float]) -> Float64[Tensor, "batch"]:
    """The largest radius of an ascending grid that was proved, an image at a time; 0 where none was.

    Bisects the grid, so that a method is asked `log2(len(grid)) + 1` times. A certificate of a larger ball
    holds for the smaller ones, so what lies below a proved radius needs no proof of its own.
    """
    exact = torch.tensor([0.0, *grid], dtype=torch.float64)
    tried = torch.tensor([0.0, *(float32_at_least(radius) for radius in grid)], dtype=torch.float64)
    proved = torch.zeros(count, dtype=torch.int64)
    refuted = torch.full((count,), len(exact))
    while bool((refuted - proved > 1).any()):
        middle = torch.where(refuted - proved > 1, (proved + refuted) // 2, 0)
        held = decide(tried[middle])
        searching = middle > 0
        proved = torch.where(searching & held, middle, proved)
        refuted = torch.where(searching & ~held, middle, refuted)
    return exact[proved]


def search_by_bisection(decide: Decide, count: int, limit: float, steps: int) -> Float64[Tensor, "batch"]:
    """A radius in (0, limit] that was proved, by `steps` halvings; 0 where none was."""
    proved = torch.zeros(count, dtype=torch.float64)
    refuted = torch.full((count,), limit, dtype=torch.float64)
    for _ in range(steps):
        middle = ((proved + refuted) / 2).float().double()
        held = decide(middle)
        proved = torch.where(held, middle, proved)
        refuted = torch.where(held, refuted, middle)
    return proved


def float32_at_least(radius: float) -> float:
    """The least float32 number that is not below a radius: what is asked in its place."""
    nearest = torch.tensor(radius, dtype=torch.float64).float()
    if float(nearest) < radius:
        nearest = torch.nextafter(nearest, torch.full_like(nearest, math.inf))
    return float(nearest)
