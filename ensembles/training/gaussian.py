"""Gaussian augmentation: every member learns on noisy inputs, by itself."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ensembles.ensemble import Ensemble
from ensembles.training.objective import Objective, register


@register("gaussian")
@dataclass(frozen=True, kw_only=True)
class Gaussian(Objective):
    """`sum_i CE(f_i(x + N(0, sigma^2 I)), y)`: Cohen et al., ICML 2019, section 3.3.

    Members see the same noise within a batch; nothing couples them, so they are trained one by one.
    `sigma = 0` is plain training.
    """

    name: ClassVar[str] = "gaussian"
    joint: ClassVar[bool] = False

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """One term, `cross_entropy`: the sum over members of the mean over the batch."""
        noisy = self.noisy(x, generator)
        return {"cross_entropy": torch.stack([cross_entropy(member(noisy), y) for member in ensemble.members]).sum()}
