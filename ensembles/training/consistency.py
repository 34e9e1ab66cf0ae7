"""Consistency regularisation: the noisy copies of an input answer alike, and surely."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeFloat, PositiveInt
from ensembles.training.objective import Objective, register


@register("consistency")
@dataclass(frozen=True, kw_only=True)
class Consistency(Objective):
    """`CE + weight mean_k KL(avg || p_k) + eta H(avg)` a member (Jeong & Shin, NeurIPS 2020, Eq. 7).

    p_k are the confidences on `draws` noisy copies, avg their mean, CE the mean over the copies, all summed over
    members and averaged over the batch. Nothing couples the members, so they are trained one by one.

    Attributes:
        draws: m noisy copies.
        weight: lambda; 10, 5, 5 at sigma .25, .5, 1 on MNIST.
        eta: weight of the entropy.
    """

    name: ClassVar[str] = "consistency"
    joint: ClassVar[bool] = False

    draws: PositiveInt = 2
    weight: NonNegativeFloat = 5.0
    eta: NonNegativeFloat = 0.5

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`cross_entropy`, `consistency` and `entropy`."""
        noisy = self.noisy_copies(x, self.draws, generator)
        parts: dict[str, list[Tensor]] = {"cross_entropy": [], "consistency": [], "entropy": []}
        for member in ensemble.members:
            logits = member(noisy)
            parts["cross_entropy"].append(cross_entropy(logits, y.repeat(self.draws)))
            logs = logits.log_softmax(-1).unflatten(0, (self.draws, len(y)))
            # log mean_k p_k from the logs, finite however small a confidence is.
            average = torch.logsumexp(logs, dim=0) - torch.log(torch.tensor(self.draws, dtype=logs.dtype))
            weights = average.exp()
            parts["consistency"].append(self.weight * (weights * (average - logs)).sum(-1).mean())
            parts["entropy"].append(-self.eta * (weights * average).sum(-1).mean())
        return {name: torch.stack(values).sum() for name, values in parts.items()}
