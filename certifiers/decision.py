"""The second family: certifiers that decide one radius at a time, and the search over radii around them."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class DecisionCertifier(Certifier):
    """A certifier that bounds the class margins at a given radius. An author writes `margins`.

    The search reports only radii that were themselves proved, so that nothing is assumed of how the bounds
    depend on the radius. Every radius tried is a float32 number, so that an author who computes in float32
    bounds the very ball that is claimed: grid radii are rounded up to one (and reported as asked).

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
        prediction = own.prediction.to(x.device)

        def decide(radius: Tensor) -> Tensor:
            asked = radius > 0
            tried.add_(asked)
            bounds = self.margins(classifier, x.clone(), prediction, radius.to(x.device), threat, rng)
            return positive_margins(bounds, own.prediction, own.classes) & asked

        if radii is None:
            limit = threat.box_diameter(x[0].numel())
            radius = search_by_bisection(decide, len(x), limit, self.bisection_steps)
        else:
            radius = search_grid(decide, len(x), [grid for grid in radii if grid > 0])
        return Findings(radius=radius, rounded=True, bound_passes=tried)


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


def search_grid(decide: Decide, count: int, grid: Sequence[float]) -> Float64[Tensor, "batch"]:
    """The largest radius of an ascending grid that was proved, an image at a time; 0 where none was.

    Bisects the grid, so that a method is asked `log2(len(grid)) + 1` times. A certificate of a larger ball
    holds for the smaller ones, so what lies below a proved radius needs no proof of its own.
    """
    exact = torch.tensor([0.0, *grid], dtype=torch.float64)
    tried = torch.tensor([0.0, *(_float32_at_least(radius) for radius in grid)], dtype=torch.float64)
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


def _float32_at_least(radius: float) -> float:
    nearest = torch.tensor(radius, dtype=torch.float64).float()
    if float(nearest) < radius:
        nearest = torch.nextafter(nearest, torch.full_like(nearest, math.inf))
    return float(nearest)
