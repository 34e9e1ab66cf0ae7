"""Smoothing with one mistake each, of the kind that published code has made. The kit must catch them all."""

import functools
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from scipy.special import ndtri
from scipy.stats import beta
from torch import Tensor, nn

from certifiers import Findings, Guarantee, KeyedRandomness, Norm, RadiusCertifier, ThreatModel, Verdict
from certifiers.smoothing import (
    EnsembleAfterSmoothing,
    MemberBounds,
    Smoothed,
    SmoothedBy,
    clopper_pearson_lower,
    clopper_pearson_upper,
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
class SamplesDrawnAgain(Plain):
    """The estimation draws the numbers that the selection drew."""

    def noise(self, image: Tensor, row: int, rng: KeyedRandomness, stream: int, samples: int, chunk: int) -> Tensor:
        return super().noise(image, row, rng, 0, samples, chunk)


@dataclass(frozen=True, kw_only=True)
class SelectionIsEstimation(Plain):
    """One set of samples chooses the class and estimates its probability."""

    def certificate(
        self, classifier: nn.Module, image: Tensor, row: int, rng: KeyedRandomness
    ) -> tuple[int, int, float]:
        votes = self.votes(classifier, image, row, rng, 1, self.n)
        top = int(votes.argmax())
        return top, int(votes[top]), self.radius(votes, top)


@dataclass(frozen=True, kw_only=True)
class SelectionPooled(Plain):
    """The samples that chose the class are counted among those that estimate its probability."""

    def certificate(
        self, classifier: nn.Module, image: Tensor, row: int, rng: KeyedRandomness
    ) -> tuple[int, int, float]:
        selection = self.votes(classifier, image, row, rng, 0, self.n0)
        top = int(selection.argmax())
        estimation = self.votes(classifier, image, row, rng, 1, self.n)
        hits = int((selection + estimation)[top])
        # The count that is told is that of the estimation: nothing in the evidence gives it away.
        return top, int(estimation[top]), self.sigma * max(0.0, float(ndtri(self.lower(hits, self.n0 + self.n))))


@dataclass(frozen=True, kw_only=True)
class TwoSidedAlpha(Plain):
    """The lower end of a two-sided interval at alpha would have been right; this takes 2 alpha on one side."""

    def lower(self, hits: int, samples: int) -> float:
        return float(beta.ppf(2 * self.alpha, hits, samples - hits + 1)) if hits else 0.0


@dataclass(frozen=True, kw_only=True)
class TenLooks(Plain):
    """Looks after each tenth of the samples and keeps the best bound, each at the full alpha."""

    def certificate(
        self, classifier: nn.Module, image: Tensor, row: int, rng: KeyedRandomness
    ) -> tuple[int, int, float]:
        top = int(self.votes(classifier, image, row, rng, 0, self.n0).argmax())
        hits, seen, best = 0, 0, 0.0
        for look in range(10):
            more = self.n * (look + 1) // 10 - seen
            seen += more
            hits += int(self.votes(classifier, image, row, rng, 1, more, chunk=look)[top]) if more else 0
            best = max(best, self.lower(hits, seen) if seen else 0.0)
        return top, hits, self.sigma * max(0.0, float(ndtri(best)))


@dataclass(frozen=True, kw_only=True)
class BestOfFiveSeeds(Plain):
    """Estimates five times and reports the largest radius."""

    def certificate(
        self, classifier: nn.Module, image: Tensor, row: int, rng: KeyedRandomness
    ) -> tuple[int, int, float]:
        top = int(self.votes(classifier, image, row, rng, 0, self.n0).argmax())
        tries = [self.votes(classifier, image, row, rng, 1, self.n, chunk) for chunk in range(5)]
        best = max(tries, key=lambda votes: int(votes[top]))
        return top, int(best[top]), self.radius(best, top)


@dataclass(frozen=True, kw_only=True)
class PlugIn(Plain):
    """The share of votes in place of a lower bound on their probability."""

    def lower(self, hits: int, samples: int) -> float:
        return (hits - 0.5) / samples if hits else 0.0


@dataclass(frozen=True, kw_only=True)
class NormalApproximation(Plain):
    """Wald's interval, which is empty where all votes agree and too short near it."""

    def lower(self, hits: int, samples: int) -> float:
        share = min(hits, samples - 0.1) / samples
        return share + float(ndtri(self.alpha)) * math.sqrt(share * (1 - share) / samples)


@dataclass(frozen=True, kw_only=True)
class RunnerUpOnly(Plain):
    """Takes `1 - p_B` for p_A, with an upper bound on the runner-up's p_B, as if there were two classes."""

    def radius(self, votes: Tensor, top: int) -> float:
        others = votes.clone()
        others[top] = 0
        rivals = int(others.max())
        upper = float(beta.ppf(1 - self.alpha, rivals + 1, self.n - rivals)) if rivals < self.n else 1.0
        return self.sigma * max(0.0, float(ndtri(1 - upper)))


@dataclass(frozen=True, kw_only=True)
class PlugInGap(Plain):
    """`sigma / 2 (Phi^-1(p_A) - Phi^-1(p_B))` of shares instead of bounds."""

    def radius(self, votes: Tensor, top: int) -> float:
        shares = votes.double().clamp(min=0.5, max=self.n - 0.5) / self.n
        others = shares.clone()
        others[top] = 0
        gap = float(ndtri(float(shares[top]))) - float(ndtri(float(others.max())))
        return max(0.0, self.sigma / 2 * gap)


@dataclass(frozen=True, kw_only=True)
class NoiseInOtherUnits(Plain):
    """Noise is added after a normalisation that divides by .5: in pixels it has half the sigma of the radius."""

    def noisy(self, image: Tensor, noise: Tensor) -> Tensor:
        return image + noise * 0.5


@dataclass(frozen=True, kw_only=True)
class RadiusInOtherUnits(Plain):
    """The radius of normalised inputs is reported as one of pixels."""

    def radius(self, votes: Tensor, top: int) -> float:
        return super().radius(votes, top) / 0.5


@dataclass(frozen=True, kw_only=True)
class AlphaIgnored(Plain):
    """The bound is at the .001 of the paper, whatever alpha was asked for."""

    def lower(self, hits: int, samples: int) -> float:
        return float(beta.ppf(0.001, hits, samples - hits + 1)) if hits else 0.0


@dataclass(frozen=True, kw_only=True)
class NaNVotes(Plain):
    """`argmax` of NaN is a class like any other."""

    def winners(self, scores: Tensor) -> Tensor:
        return scores.argmax(1)


@dataclass(frozen=True, kw_only=True)
class ClippedNoise(Plain):
    """Noisy inputs are clipped to images, as if the theorem spoke of that."""

    def noisy(self, image: Tensor, noise: Tensor) -> Tensor:
        return (image + noise).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class Antithetic(Plain):
    """Every sample comes with its mirror image: votes in pairs are not binomial."""

    def noise(self, image: Tensor, row: int, rng: KeyedRandomness, stream: int, samples: int, chunk: int) -> Tensor:
        half = super().noise(image, row, rng, stream, (samples + 1) // 2, chunk)
        return torch.cat([half, -half])[:samples]


@dataclass(frozen=True, kw_only=True)
class SameNoiseForAll(Plain):
    """One set of noise for all images of a seed: what one image was lucky with, all are."""

    def noise(self, image: Tensor, row: int, rng: KeyedRandomness, stream: int, samples: int, chunk: int) -> Tensor:
        return super().noise(image, 0, KeyedRandomness(rng.seed, (0,)), stream, samples, chunk)


@dataclass(frozen=True, kw_only=True)
class PlaceInTheBatch(Plain):
    """Noise is keyed by the row of the batch: resuming a run changes its counts."""

    def noise(self, image: Tensor, row: int, rng: KeyedRandomness, stream: int, samples: int, chunk: int) -> Tensor:
        keyed = KeyedRandomness(rng.seed, tuple(range(len(rng.image_ids))))
        return super().noise(image, row, keyed, stream, samples, chunk)


@dataclass(frozen=True, kw_only=True)
class L2AsLinf(Plain):
    """The l2 radius is reported for linf."""

    def scale(self, norm: Norm, dimensions: int) -> float:
        return 1.0


@functools.cache
def _quantile(alpha: float, a: int, b: int) -> float:
    return float(beta.ppf(alpha, a, b))


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
class LaplaceRadius(ByUniform):
    """The radius of Laplace noise for uniform noise."""

    def radius(self, votes: Tensor, top: int) -> float:
        return max(0.0, -self.sigma / math.sqrt(2) * math.log(2 * (1 - self.lower(int(votes[top]), self.n))))


@dataclass(frozen=True, kw_only=True)
class HalfWidthIsSigma(ByUniform):
    """The noise is uniform on [-sigma, sigma], and the radius that of a deviation sigma."""

    def noise(self, image: Tensor, row: int, rng: KeyedRandomness, stream: int, samples: int, chunk: int) -> Tensor:
        return super().noise(image, row, rng, stream, samples, chunk) / math.sqrt(3)


@dataclass(frozen=True, kw_only=True)
class GaussianForUniform(ByUniform):
    """Uniform noise is named, and Gaussian noise of the same deviation is drawn."""

    def noise(self, image: Tensor, row: int, rng: KeyedRandomness, stream: int, samples: int, chunk: int) -> Tensor:
        return Plain.noise(self, image, row, rng, stream, samples, chunk)


@dataclass(frozen=True, kw_only=True)
class AlphaForEachMember(EnsembleAfterSmoothing):
    """Every member's bound at the whole alpha, as if one of them were certified."""

    sigma: PositiveFloat = 0.5
    n: PositiveInt = 1000

    def bounds(self, selection: Tensor, estimation: Tensor) -> MemberBounds:
        shared = super().bounds(selection, estimation)
        least = tuple(
            clopper_pearson_lower(own, self.n, self.alpha) if same else 0.0
            for own, same in zip(shared.votes, shared.agrees, strict=True)
        )
        most = tuple(
            1 - low if same else clopper_pearson_upper(rival, self.n, self.alpha)
            for low, rival, same in zip(least, shared.rivals, shared.agrees, strict=True)
        )
        return replace(shared, least=least, most=most)


@dataclass(frozen=True, kw_only=True)
class BestMember(EnsembleAfterSmoothing):
    """The radius of the surest member, as if no other could become surer."""

    sigma: PositiveFloat = 0.5
    n: PositiveInt = 1000

    def certificate_of_bounds(self, bounds: MemberBounds) -> tuple[float, float, float]:
        _, largest, smallest = super().certificate_of_bounds(bounds)
        return max(0.0, largest), largest, smallest


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
class PeekedFixedBound(PlainLooks):
    """Every look of a confidence sequence takes the bound that is made for one number of samples."""

    def look_alpha(self) -> float:
        return self.alpha


@dataclass(frozen=True, kw_only=True)
class SelectionCarriedOver(PlainLooks):
    """The cumulative count begins with the samples that chose the class."""

    def start(self, selection: Tensor) -> list[Tensor]:
        return [selection]


@dataclass(frozen=True, kw_only=True)
class PlainPhases(PlainLooks):
    """Phases of fresh samples, without a mistake."""

    def counted(self, votes: list[Tensor]) -> Tensor:
        return votes[-1]


@dataclass(frozen=True, kw_only=True)
class PhasesWithoutSplit(PlainPhases):
    """Each phase has all of alpha."""

    def look_alpha(self) -> float:
        return self.alpha


#: Mistake, certifier, and checks that each catch it alone.
MUTANTS: tuple[tuple[str, RadiusCertifier, tuple[str, ...]], ...] = (
    ("selection samples drawn again", SamplesDrawnAgain(), ("fresh-samples",)),
    ("selection and estimation in one", SelectionIsEstimation(), ("fresh-samples", "calibration")),
    (
        "selection samples reused for estimation",
        SelectionPooled(),
        ("calibration", "largest-radius", "counts-and-radius"),
    ),
    ("two-sided alpha used as one-sided", TwoSidedAlpha(), ("calibration", "largest-radius")),
    ("ten uncorrected looks", TenLooks(), ("calibration", "counts-and-radius")),
    ("best of five seeds", BestOfFiveSeeds(), ("calibration",)),
    ("plug-in p", PlugIn(), ("calibration", "largest-radius", "smoothed-linear")),
    ("normal approximation", NormalApproximation(), ("largest-radius",)),
    ("runner-up only: 1 - p_B for p_A", RunnerUpOnly(), ("calibration-classes",)),
    ("gap of plug-in shares", PlugInGap(), ("calibration", "smoothed-linear")),
    ("sigma of the noise in other units", NoiseInOtherUnits(), ("noise-distribution", "smoothed-linear")),
    ("sigma of the radius in other units", RadiusInOtherUnits(), ("largest-radius",)),
    ("alpha ignored", AlphaIgnored(), ("largest-radius",)),
    ("NaN votes counted for the top class", NaNVotes(), ("invalid-votes",)),
    ("noisy inputs clipped", ClippedNoise(), ("noise-distribution",)),
    ("antithetic noise", Antithetic(), ("fresh-samples",)),
    ("the same noise for all images", SameNoiseForAll(), ("keyed-noise",)),
    ("noise keyed by the place in the batch", PlaceInTheBatch(), ("keyed-noise",)),
    ("l2 radius as linf", L2AsLinf(), ("smoothed-linear", "largest-radius")),
    ("radius of Laplace noise for uniform noise", LaplaceRadius(), ("calibration", "largest-radius")),
    ("half-width taken for the deviation", HalfWidthIsSigma(), ("noise-distribution",)),
    ("noise of another law than is named", GaussianForUniform(), ("noise-distribution",)),
    ("alpha not shared by the members", AlphaForEachMember(), ("calibration-members",)),
    ("the best member's radius for the ensemble", BestMember(), ("calibration-members",)),
    ("a fixed-n bound peeked at", PeekedFixedBound(), ("calibration", "counts-and-radius")),
    ("selection carried over into a sequence", SelectionCarriedOver(), ("largest-radius", "counts-and-radius")),
    ("phases without their alpha split", PhasesWithoutSplit(), ("calibration",)),
)
