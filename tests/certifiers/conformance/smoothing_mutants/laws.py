"""Mistakes with noise that is not Gaussian."""

import math
from dataclasses import dataclass

from torch import Tensor

from certifiers import KeyedRandomness
from tests.certifiers.conformance.smoothing_mutants.honest import ByUniform, Mutant, Plain


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


#: Mistake, certifier, and checks that each catch it alone.
MUTANTS: tuple[Mutant, ...] = (
    ("radius of Laplace noise for uniform noise", LaplaceRadius(), ("calibration", "largest-radius")),
    ("half-width taken for the deviation", HalfWidthIsSigma(), ("noise-distribution",)),
    ("noise of another law than is named", GaussianForUniform(), ("noise-distribution",)),
)
