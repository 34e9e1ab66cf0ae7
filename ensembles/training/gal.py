"""Gradient Alignment Loss (GAL): members whose input gradients point apart."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeFloat
from ensembles.training.input_gradients import cross_entropy_of, member_gradients, pairwise_cosines
from ensembles.training.objective import Objective, register


@register("gal")
@dataclass(frozen=True, kw_only=True)
class GAL(Objective):
    """`sum_i CE_i + c mean_b log sum_{i<j} exp cos(g_i, g_j)` (Kariyappa & Qureshi, 2019, Eq. 6 and 8).

    g_i is the input gradient of member i's cross-entropy, a sample at a time, at the noisy input.

    Attributes:
        c: weight of the alignment; .5.
    """

    name: ClassVar[str] = "gal"
    pairwise: ClassVar[bool] = True

    c: NonNegativeFloat = 0.5

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`cross_entropy` and `gradient_alignment`."""
        logits, gradients = member_gradients(ensemble, self.noisy(x, generator), cross_entropy_of(y))
        return {
            "cross_entropy": torch.stack([cross_entropy(own, y) for own in logits]).sum(),
            "gradient_alignment": self.c * torch.logsumexp(pairwise_cosines(gradients), dim=0).mean(),
        }
