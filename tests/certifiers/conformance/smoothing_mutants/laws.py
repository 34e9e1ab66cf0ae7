"""Mistakes with noise that is not Gaussian."""

import math
from dataclasses import dataclass

from torch import Tensor

from certifiers import KeyedRandomness
from tests.certifiers.conformance.smoothing_mutants.honest import ByUniform, Mutant, OnGrid, Plain


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
class StepsOfBytes(OnGrid):
    """The deviation is counted in steps of 1/255, whatever the grid."""

    def noise(self, image: Tensor, row: int, rng: KeyedRandomness, stream: int, samples: int, chunk: int) -> Tensor:
        return (Plain.noise(self, image, row, rng, stream, samples, chunk) * 255).round() / self.levels


@dataclass(frozen=True, kw_only=True)
class ClippedToTheGrid(OnGrid):
    """Noisy inputs are kept within the levels that images have, so that the noise at an image is not the one named."""

    def noisy(self, image: Tensor, noise: Tensor) -> Tensor:
        return (image + noise).clamp(0, 1)


#: Mistake, certifier, and checks that each catch it alone.
MUTANTS: tuple[Mutant, ...] = (
    ("radius of Laplace noise for uniform noise", LaplaceRadius(), ("calibration", "largest-radius")),
    ("half-width taken for the deviation", HalfWidthIsSigma(), ("noise-distribution",)),
    ("deviation in steps of bytes on another grid", StepsOfBytes(), ("noise-distribution",)),
    ("noisy inputs clipped to the levels of images", ClippedToTheGrid(), ("noise-distribution",)),
    ("noise of another law than is named", GaussianForUniform(), ("noise-distribution",)),
)
