"""Randomized smoothing with the Neyman-Pearson certificate."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from certifiers.certificate import Norm
from certifiers.randomness import KeyedRandomness
from certifiers.registry import register
from certifiers.smoothing.fixed_samples import FixedSamples
from certifiers.smoothing.gaussian_radius import gaussian_radius
from certifiers.smoothing.noise import GaussianNoise


@dataclass(frozen=True)
class Smoothed:
    """`g(x) = argmax_c P[f(x + N(0, sigma^2 I)) = c]`: the smoothed version of a classifier `f`.

    A vote for no class, where `f` returned NaN or infinity, counts against all classes.
    """

    classifier: nn.Module
    sigma: float

    def noise(self, rng: KeyedRandomness) -> GaussianNoise:
        """The noise, keyed."""
        return GaussianNoise(self.sigma, rng)


@register("smoothing")
@dataclass(frozen=True, kw_only=True)
class Smoothing(FixedSamples):
    """Randomized smoothing, certified by the Neyman-Pearson lemma (Cohen et al., ICML 2019, Thm 1 and CERTIFY).

    `n0` samples choose the class A; `n` *fresh* samples count its votes `n_A`; with the one-sided
    Clopper-Pearson bound `p_A` at `alpha`, the smoothed classifier answers A within

        radius = sigma * Phi^-1(p_A)   in l2, if p_A > 1/2; else it abstains.

    In d dimensions the l2 ball of that radius holds the l1 ball of the same radius and the linf ball of
    radius / sqrt(d), which are certified so. Each image's certificate is wrong with probability at most alpha.

    Attributes:
        sigma: standard deviation of the noise, in input units; noisy inputs are not clipped.
        n0: samples that choose the class.
        n: samples that estimate its probability; it caps the radius at `sigma * Phi^-1(alpha^(1/n))`.
        alpha: failure probability of each image.
        batch_size: inputs a forward pass. It does not change the noise.
        compile_members: compile networks first, by `torch.compile`.
    """

    version: ClassVar[int] = 1
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1, Norm.L2, Norm.LINF})

    def target(self, classifier: nn.Module) -> Smoothed:
        """The smoothed classifier."""
        return Smoothed(classifier, self.sigma)

    def noise(self, rng: KeyedRandomness) -> GaussianNoise:
        """Gaussian noise."""
        return GaussianNoise(self.sigma, rng)

    def radius_of(self, p_a: float) -> float:
        """`sigma Phi^-1(p_a)` in l2."""
        return gaussian_radius(p_a, self.sigma)

    def scale(self, norm: Norm, dimensions: int) -> float:
        """Balls of l1 and linf lie in that of l2."""
        return 1 / math.sqrt(dimensions) if norm is Norm.LINF else 1.0
