"""Randomized smoothing with noise whose certificates are in l1."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from certifiers.certificate import Norm
from certifiers.randomness import KeyedRandomness
from certifiers.registry import register
from certifiers.smoothing.fixed_samples import FixedSamples
from certifiers.smoothing.l1_noise import LaplaceNoise, UniformNoise

#: Distributions of independent noise with a certificate in l1.
L1Noise = Literal["uniform", "laplace"]


@dataclass(frozen=True)
class SmoothedBy:
    """`g(x) = argmax_c P[f(x + noise) = c]` for noise that is not Gaussian: independent inputs, of deviation sigma.

    A vote for no class, where `f` returned NaN or infinity, counts against all classes.
    """

    classifier: nn.Module
    sigma: float
    kind: L1Noise

    def noise(self, rng: KeyedRandomness) -> UniformNoise | LaplaceNoise:
        """The noise, keyed."""
        return UniformNoise(self.sigma, rng) if self.kind == "uniform" else LaplaceNoise(self.sigma, rng)


@register("smoothing-l1")
@dataclass(frozen=True, kw_only=True)
class SmoothingL1(FixedSamples):
    """Randomized smoothing by uniform or Laplace noise, in l1.

    Samples are counted and bounded as in `smoothing`; with `p_A > 1/2` the smoothed classifier answers A within

        uniform on [-lambda, lambda]^d     radius = 2 lambda (p_A - 1/2),        lambda = sqrt(3) sigma
        Laplace of scale lambda            radius = -lambda log(2 (1 - p_A)),    lambda = sigma / sqrt(2)

    Uniform (Lee et al., NeurIPS 2019, and Yang et al., ICML 2020): moving the cube by delta uncovers
    `1 - prod_i (1 - |delta_i| / (2 lambda)) <= ||delta||_1 / (2 lambda)` of its volume, and no more of p_A is lost.
    Laplace (Teng et al., 2020): the density changes by a factor of at most `exp(||delta||_1 / lambda)`, and so does the
    probability of all other classes together. Both are the distance to the boundary of a half-space across one input.

    Attributes:
        noise_kind: `uniform` or `laplace`.
        sigma: standard deviation of each input's noise, so that kinds of noise compare at one strength (Yang et al.).
        n0: samples that choose the class.
        n: samples that estimate its probability.
        alpha: failure probability of each image.
        batch_size: inputs a forward pass. It does not change the noise.
        compile_members: compile networks first, by `torch.compile`.
    """

    version: ClassVar[int] = 1
    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1})

    noise_kind: L1Noise = "uniform"

    def target(self, classifier: nn.Module) -> SmoothedBy:
        """The smoothed classifier, which names its noise."""
        return SmoothedBy(classifier, self.sigma, self.noise_kind)

    def noise(self, rng: KeyedRandomness) -> UniformNoise | LaplaceNoise:
        """Uniform or Laplace noise."""
        return SmoothedBy(nn.Identity(), self.sigma, self.noise_kind).noise(rng)

    def radius_of(self, p_a: float) -> float:
        """The radius in l1."""
        # Differences of p_a in [1/2, 1] are exact; the factor takes off more than lambda, the logarithm and the
        # products err by.
        if self.noise_kind == "uniform":
            return 2 * math.sqrt(3) * self.sigma * (p_a - 0.5) * (1 - 2**-49)
        return -self.sigma / math.sqrt(2) * math.log(2 * (1 - p_a)) * (1 - 2**-49)

    def more_evidence(self) -> dict[str, float | int | str]:
        """Which noise it was."""
        return {"noise": self.noise_kind}
