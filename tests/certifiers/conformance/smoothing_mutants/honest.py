"""Smoothing written down once more, without a mistake, in each of its forms: what mutants change one method of."""

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.special import ndtri
from scipy.stats import beta
from torch import Tensor, nn

from certifiers import Findings, Guarantee, KeyedRandomness, Norm, RadiusCertifier, ThreatModel, Verdict
from certifiers.smoothing import (
    Smoothed,
    SmoothedBy,
    SmoothedOnGrid,
)
from ensembles.parameters import PositiveFloat, PositiveInt, Probability


@dataclass(frozen=True, kw_only=True)
class Plain(RadiusCertifier):
    """Smoothing written down once more, without a mistake: what the mutants below change one method of."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2, Norm.LINF})
    guarantee: ClassVar[Guarantee] = Guarantee.PROBABILISTIC

    sigma: PositiveFloat = 0.5
    n0: PositiveInt = 100
    n: PositiveInt = 1000
    alpha: Probability = 0.001

    def target(self, classifier: nn.Module) -> Smoothed:
        return Smoothed(classifier, self.sigma)

    def radii(self, classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Findings:
        answers = [self.certificate(classifier, image, row, rng) for row, image in enumerate(x)]
        tops, counts, radii = zip(*answers, strict=True)
        scale = self.scale(threat.norm, x[0].numel())
        radius = torch.tensor(radii, dtype=torch.float64) * scale
        return Findings(
            radius=radius,
            prediction=torch.tensor(tops),
            verdict=torch.where(radius > 0, int(Verdict.CERTIFIED), int(Verdict.ABSTAINED)),
            failure_probability=self.alpha,
            evidence={"n_A": torch.tensor(counts), "n": torch.full((len(x),), self.n)},
            forward_passes=self.n0 + self.n,
        )

    def scale(self, norm: Norm, dimensions: int) -> float:
        return 1 / math.sqrt(dimensions) if norm is Norm.LINF else 1.0

    def certificate(
        self, classifier: nn.Module, image: Tensor, row: int, rng: KeyedRandomness
    ) -> tuple[int, int, float]:
        """Class, votes for it, radius."""
        top = int(self.votes(classifier, image, row, rng, 0, self.n0).argmax())
        votes = self.votes(classifier, image, row, rng, 1, self.n)
        return top, int(votes[top]), self.radius(votes, top)

    def noise(self, image: Tensor, row: int, rng: KeyedRandomness, stream: int, samples: int, chunk: int) -> Tensor:
        return torch.randn(samples, *image.shape, generator=rng.generator(row, stream, chunk)) * self.sigma

    def noisy(self, image: Tensor, noise: Tensor) -> Tensor:
        return image + noise

    def votes(
        self,
        classifier: nn.Module,
        image: Tensor,
        row: int,
        rng: KeyedRandomness,
        stream: int,
        samples: int,
        chunk: int = 0,
    ) -> Tensor:
        noise = self.noise(image, row, rng, stream, samples, chunk)
        scores = classifier(self.noisy(image, noise))
        return torch.bincount(self.winners(scores), minlength=scores.shape[1])

    def winners(self, scores: Tensor) -> Tensor:
        return scores[torch.isfinite(scores).all(1)].argmax(1)

    def radius(self, votes: Tensor, top: int) -> float:
        return self.sigma * max(0.0, float(ndtri(self.lower(int(votes[top]), self.n))))

    def lower(self, hits: int, samples: int) -> float:
        return float(beta.ppf(self.alpha, hits, samples - hits + 1)) if hits else 0.0


@dataclass(frozen=True, kw_only=True)
class ByUniform(Plain):
    """Smoothing by uniform noise, without a mistake."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1})

    def target(self, classifier: nn.Module) -> SmoothedBy:  # type: ignore[override]
        return SmoothedBy(classifier, self.sigma, "uniform")

    def noise(self, image: Tensor, row: int, rng: KeyedRandomness, stream: int, samples: int, chunk: int) -> Tensor:
        drawn = torch.rand(samples, *image.shape, generator=rng.generator(row, stream, chunk), dtype=torch.float64)
        return (2 * drawn - 1) * math.sqrt(3) * self.sigma

    def radius(self, votes: Tensor, top: int) -> float:
        return max(0.0, 2 * math.sqrt(3) * self.sigma * (self.lower(int(votes[top]), self.n) - 0.5))


@dataclass(frozen=True, kw_only=True)
class OnGrid(Plain):
    """Smoothing of images in whole steps by noise in whole steps, without a mistake."""

    levels: PositiveInt = 1024

    def target(self, classifier: nn.Module) -> SmoothedOnGrid:  # type: ignore[override]
        return SmoothedOnGrid(classifier, self.sigma, self.levels)

    def noise(self, image: Tensor, row: int, rng: KeyedRandomness, stream: int, samples: int, chunk: int) -> Tensor:
        return (super().noise(image, row, rng, stream, samples, chunk) * self.levels).round() / self.levels


@functools.cache
def _quantile(alpha: float, a: int, b: int) -> float:
    return float(beta.ppf(alpha, a, b))


@dataclass(frozen=True, kw_only=True)
class PlainLooks(Plain):
    """Cumulative looks written down once more, without a mistake: a union of bounds at alpha / 5, without stopping."""

    looks: ClassVar[int] = 5

    def ends(self) -> list[int]:
        return sorted({max(1, self.n * (look + 1) // self.looks) for look in range(self.looks)})

    def look_alpha(self) -> float:
        return self.alpha / self.looks

    def counted(self, votes: list[Tensor]) -> Tensor:
        """The votes that a look's bound is from, of those of all steps so far."""
        return torch.stack(votes).sum(0)

    def certificate(
        self, classifier: nn.Module, image: Tensor, row: int, rng: KeyedRandomness
    ) -> tuple[int, int, float]:
        selection = self.votes(classifier, image, row, rng, 0, self.n0)
        top = int(selection.argmax())
        steps, before, best = self.start(selection), 0, 0.0
        for number, end in enumerate(self.ends()):
            steps.append(self.votes(classifier, image, row, rng, 1, end - before, chunk=number))
            before = end
            votes = self.counted(steps)
            hits, samples = int(votes[top]), int(votes.sum())
            best = max(best, _quantile(self.look_alpha(), hits, samples - hits + 1) if hits else 0.0)
        return top, int(torch.stack(steps[-len(self.ends()) :]).sum(0)[top]), self.sigma * max(0.0, float(ndtri(best)))

    def start(self, selection: Tensor) -> list[Tensor]:
        """The votes to begin with: none."""
        return []


@dataclass(frozen=True, kw_only=True)
class PlainPhases(PlainLooks):
    """Phases of fresh samples, without a mistake."""

    def counted(self, votes: list[Tensor]) -> Tensor:
        return votes[-1]


#: A mistake, a certifier that makes it, and checks that each catch it alone.
Mutant = tuple[str, RadiusCertifier, tuple[str, ...]]
