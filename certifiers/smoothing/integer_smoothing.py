"""Randomized smoothing of quantised images, sound in floating point: noise and images in whole steps of a grid."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from scipy.special import ndtri
from torch import Tensor, nn

from certifiers.certificate import Norm, Unsupported
from certifiers.randomness import KeyedRandomness
from certifiers.registry import register
from certifiers.smoothing.fixed_samples import FixedSamples
from certifiers.smoothing.rounded_gaussian import RoundedGaussianNoise, table
from ensembles.parameters import PositiveInt

#: An input this far from a multiple of 1 / levels, in input units, is that level: a few roundings of float32.
_OFF_GRID = 2.0**-22


@dataclass(frozen=True)
class SmoothedOnGrid:
    """`h(x) = argmax_c P[f(R(x + N(0, sigma^2 I))) = c]`, R rounding to the nearest multiples of 1 / levels.

    A vote for no class, where `f` returned NaN or infinity, counts against all classes.
    """

    classifier: nn.Module
    sigma: float
    levels: int

    def noise(self, rng: KeyedRandomness) -> RoundedGaussianNoise:
        """The noise, keyed; of images in whole steps."""
        return RoundedGaussianNoise(self.sigma, rng, self.levels)


@register("smoothing-integer")
@dataclass(frozen=True, kw_only=True)
class IntegerSmoothing(FixedSamples):
    """Randomized smoothing in whole numbers, for images of `levels + 1` grey values (after Voracek & Hein, ICLR 2023).

    Floating-point noise is not Gaussian, and `x + noise` is not the sum: certificates of a classifier that looks at
    last bits are false. Here the certified function is

        h(x) = argmax_c P[f(R(x + N(0, sigma^2 I))) = c],    R rounding to multiples of 1 / levels, not clipped.

    f after R is a base classifier like any other, so that h answers A within `sigma Phi^-1(p_A)` in l2 (Cohen et al.,
    ICML 2019, Thm 1): for all real perturbations of this function, and so for all images on the grid. At an image on
    the grid, `levels * R(x + noise) = m + k` with the whole numbers m of the image and `k = round(levels noise)`. k is
    drawn as an integer, from probabilities tabulated in multiples of 2^-62, and f sees one floating-point number a
    level. From the Clopper-Pearson bound is subtracted what d inputs may differ from rounded Gaussian noise by:

        p_A = bound - d * tau,    tau the total variation between table and rounded Gaussian, bounded in `table`

    (1e-12 or so). What is left to believe is that f answers equal inputs alike, and the generator of the integers.

    Images between levels are UNSUPPORTED: of those the probabilities of k are others. What an image lies away from its
    levels by the rounding of its own numbers is taken off the radius.

    Attributes:
        sigma: standard deviation of the noise before rounding, in input units; noisy inputs are not clipped.
        levels: the grid is the multiples of 1 / levels.
        n0: samples that choose the class.
        n: samples that estimate its probability.
        alpha: failure probability of each image.
        batch_size: inputs a forward pass. It does not change the noise.
        compile_members: compile networks first, by `torch.compile`.
    """

    version: ClassVar[int] = 1
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    # Levels such that the images of the conformance kit, multiples of powers of two, are on the grid.
    example: ClassVar[Mapping[str, Any]] = MappingProxyType({"sigma": 0.25, "n": 1_000, "levels": 1024})

    levels: PositiveInt = 255

    def target(self, classifier: nn.Module) -> SmoothedOnGrid:
        """The smoothed classifier, which names its grid."""
        return SmoothedOnGrid(classifier, self.sigma, self.levels)

    def noise(self, rng: KeyedRandomness) -> RoundedGaussianNoise:
        """Whole numbers of steps."""
        return RoundedGaussianNoise(self.sigma, rng, self.levels)

    def radius_of(self, p_a: float) -> float:
        """`sigma Phi^-1(p_a)` in l2."""
        # The factor takes off more than `ndtri`, the product and a later scaling err by: 2, 1/2 and 1 units.
        return self.sigma * float(ndtri(p_a)) * (1 - 2**-50)

    def scale(self, norm: Norm, dimensions: int) -> float:
        """Balls of l1 and linf lie in that of l2."""
        return 1 / math.sqrt(dimensions) if norm is Norm.LINF else 1.0

    def lost(self, dimensions: int) -> float:
        """`d tau`, rounded up."""
        variation = table(RoundedGaussianNoise(self.sigma, KeyedRandomness(0, ()), self.levels).steps).variation
        return dimensions * variation * (1 + 2**-50)

    def images(self, x: Float[Tensor, "batch *shape"]) -> tuple[Tensor, list[str]]:
        """The images in whole steps, in their own precision; those between levels are refused.

        Raises:
            Unsupported: the precision or the grid does not hold whole numbers as large as noisy inputs may be.
        """
        if x.dtype not in (torch.float32, torch.float64):
            raise Unsupported(
                f"smoothing-integer counts steps in float32 or float64, got {x.dtype}; convert the images."
            )
        most = 2**24  # whole numbers up to it are exact in float32, in which noise is kept
        if 10 * self.sigma * self.levels + self.levels >= most:
            raise Unsupported(
                f"noisy inputs of sigma {self.sigma:g} on {self.levels} levels are beyond the whole numbers that "
                "float32 holds; take fewer levels, or smoothing."
            )
        scaled = x.double() * self.levels
        whole = scaled.round()
        between = ((scaled - whole).abs() > self.levels * _OFF_GRID).flatten(1)
        refusals = [
            f"{int(row.sum())} of {row.numel()} inputs lie between the multiples of 1/{self.levels}; round the image "
            f"to them, (x * {self.levels}).round() / {self.levels}, or use smoothing"
            if bool(row.any())
            else ""
            for row in between
        ]
        return whole.to(x.dtype), refusals

    def offsets(self, x: Float[Tensor, "batch *shape"], norm: Norm) -> Float[Tensor, "batch"]:
        """How far the images lie from the multiples of 1 / levels that they stand for, rounded up."""
        away = (x.double() - (x.double() * self.levels).round() / self.levels).abs().flatten(1).cpu()
        # Quotients and norms of float64 err by less than 2^-52 an input, and relatively by 1e-12.
        order = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: math.inf}[norm]
        distances: Tensor = torch.linalg.vector_norm(away + 2.0**-52, ord=order, dim=1)
        return distances * (1 + 1e-12)

    def more_evidence(self) -> dict[str, float | int | str]:
        """The grid."""
        return {"levels": self.levels}
