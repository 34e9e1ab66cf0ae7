"""Noise for certificates in l1: uniform and Laplace, each input by itself."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from certifiers.smoothing.noise import Noise


@dataclass(frozen=True)
class UniformNoise(Noise):
    """Uniform on `[-lambda, lambda]^d`, `lambda = sqrt(3) sigma`: computed in float64, rounded to float32."""

    @property
    def half_width(self) -> float:
        """`lambda`."""
        return math.sqrt(3) * self.sigma

    def draw(self, chunk: Float[Tensor, "samples *shape"], generator: torch.Generator) -> None:
        """`lambda v`, v uniform on (-1, 1)."""
        chunk.copy_(_symmetric(chunk.shape, generator).mul_(self.half_width))


@dataclass(frozen=True)
class LaplaceNoise(Noise):
    """Density `exp(-|v| / lambda) / (2 lambda)` in each input, `lambda = sigma / sqrt(2)`; float64 to float32."""

    @property
    def scale(self) -> float:
        """`lambda`."""
        return self.sigma / math.sqrt(2)

    def draw(self, chunk: Float[Tensor, "samples *shape"], generator: torch.Generator) -> None:
        """`-lambda sign(v) log(1 - |v|)`, v uniform on (-1, 1): the quantiles of the distribution."""
        uniform = _symmetric(chunk.shape, generator)
        chunk.copy_(uniform.abs().neg_().log1p_().mul_(-self.scale).copysign_(uniform))


def _symmetric(shape: torch.Size, generator: torch.Generator) -> Float64[Tensor, "samples *shape"]:
    """Uniform on the odd multiples of 2^-53 in (-1, 1): never 0 or 1, and as often positive as negative."""
    return torch.rand(shape, dtype=torch.float64, generator=generator).mul_(2).sub_(1).add_(2.0**-53)
