"""Mistakes with samples: which noise is drawn, for whom, and how often."""

from dataclasses import dataclass

import torch
from scipy.special import ndtri
from torch import Tensor, nn

from certifiers import KeyedRandomness
from tests.certifiers.conformance.smoothing_mutants.honest import Mutant, Plain


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
class NoiseInOtherUnits(Plain):
    """Noise is added after a normalisation that divides by .5: in pixels it has half the sigma of the radius."""

    def noisy(self, image: Tensor, noise: Tensor) -> Tensor:
        return image + noise * 0.5


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


#: Mistake, certifier, and checks that each catch it alone.
MUTANTS: tuple[Mutant, ...] = (
    ("selection samples drawn again", SamplesDrawnAgain(), ("fresh-samples",)),
    ("selection and estimation in one", SelectionIsEstimation(), ("fresh-samples", "calibration")),
    (
        "selection samples reused for estimation",
        SelectionPooled(),
        ("calibration", "largest-radius", "counts-and-radius"),
    ),
    ("best of five seeds", BestOfFiveSeeds(), ("calibration",)),
    ("sigma of the noise in other units", NoiseInOtherUnits(), ("noise-distribution", "smoothed-linear")),
    ("NaN votes counted for the top class", NaNVotes(), ("invalid-votes",)),
    ("noisy inputs clipped", ClippedNoise(), ("noise-distribution",)),
    ("antithetic noise", Antithetic(), ("fresh-samples",)),
    ("the same noise for all images", SameNoiseForAll(), ("keyed-noise",)),
    ("noise keyed by the place in the batch", PlaceInTheBatch(), ("keyed-noise",)),
)
