"""Stability training: noisy outputs close to the clean ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeFloat
from ensembles.training.objective import Objective, register


@register("stability")
@dataclass(frozen=True, kw_only=True)
class Stability(Objective):
    """`sum_i CE(f_i(x), y) + weight CE(softmax f_i(x) -> f_i(x + e))` (Li et al., NeurIPS 2019, section 4).

    The second is the cross-entropy of the noisy output against the clean confidences. Nothing couples the
    members, so they are trained one by one.

    Attributes:
        weight: 2 in the comparisons of the certified-ensemble papers.
        detach_target: whether the clean confidences are held fixed; the published code lets gradients through.
    """

    name: ClassVar[str] = "stability"
    joint: ClassVar[bool] = False

    weight: NonNegativeFloat = 2.0
    detach_target: bool = False

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`cross_entropy` and `stability`."""
        noisy = self.noisy(x, generator)
        clean, stable = [], []
        for member in ensemble.members:
            logits = member(x)
            clean.append(cross_entropy(logits, y))
            target = logits.detach() if self.detach_target else logits
            stable.append(cross_entropy(member(noisy), target.softmax(-1)))
        return {"cross_entropy": torch.stack(clean).sum(), "stability": self.weight * torch.stack(stable).sum()}
