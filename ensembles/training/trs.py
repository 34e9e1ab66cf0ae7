"""Transferability Reduced Smooth ensembles (TRS): gradients that are small and not aligned."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeFloat
from ensembles.training.input_gradients import cross_entropy_of, member_gradients, pairwise_cosines
from ensembles.training.objective import Objective, register


@register("trs")
@dataclass(frozen=True, kw_only=True)
class TRS(Objective):
    """`sum_i CE_i + scale (a mean |cos(g_i, g_j)| + b mean ||g_i||_2^2)` (Yang et al., NeurIPS 2021, section 4).

    g_i is the input gradient of member i's cross-entropy at the noisy input; the first mean is over pairs i < j and
    the batch, the second over members and the batch. The paper tunes the three weights for each data set; the
    defaults of 1 are ours.

    Attributes:
        scale: weight of both.
        a: weight of the alignment.
        b: weight of the magnitude.
        gradient_of: `sample`: g_i is the gradient of the sample's own loss; `batch-mean`: of the mean over the batch,
            as in the public code, which divides the magnitude term by the squared batch size.
    """

    name: ClassVar[str] = "trs"
    pairwise: ClassVar[bool] = True

    scale: NonNegativeFloat = 1.0
    a: NonNegativeFloat = 1.0
    b: NonNegativeFloat = 1.0
    gradient_of: Literal["sample", "batch-mean"] = "sample"

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`cross_entropy`, `gradient_alignment` and `gradient_magnitude`."""
        logits, gradients = member_gradients(ensemble, self.noisy(x, generator), cross_entropy_of(y))
        magnitude = gradients.square().sum(-1).mean()
        if self.gradient_of == "batch-mean":
            magnitude = magnitude / len(y) ** 2
        return {
            "cross_entropy": torch.stack([cross_entropy(own, y) for own in logits]).sum(),
            "gradient_alignment": self.scale * self.a * pairwise_cosines(gradients).abs().mean(),
            "gradient_magnitude": self.scale * self.b * magnitude,
        }
