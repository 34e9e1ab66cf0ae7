"""Adaptive Diversity Promoting (ADP): members that disagree about the wrong classes."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeFloat, PositiveFloat
from ensembles.training.objective import Objective, register


@register("adp")
@dataclass(frozen=True, kw_only=True)
class ADP(Objective):
    """`CE - a H(mean_i f_i) - b log det(M M^T + ridge I)` (Pang et al., ICML 2019, Eq. 6 and 7).

    Row i of M is member i's confidences without the true class, l2-normalised; H is the entropy of the mean
    confidences; both are means over the batch and both are *subtracted* (Yang et al., 2022, print the sign of one
    of them wrongly).

    Attributes:
        a: weight of the entropy; 2.
        b: weight of the log-determinant; .5.
        ce: whether the members' cross-entropies are summed, as in the official code, or averaged.
        ridge: added to the diagonal; 1e-6 in the official code.
    """

    name: ClassVar[str] = "adp"
    pairwise: ClassVar[bool] = True

    a: NonNegativeFloat = 2.0
    b: NonNegativeFloat = 0.5
    ce: Literal["sum", "mean"] = "sum"
    ridge: PositiveFloat = 1e-6

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`cross_entropy`, `entropy` and `log_determinant`."""
        logits = ensemble.logits(self.noisy(x, generator))
        losses = torch.stack([cross_entropy(own, y) for own in logits])
        confidences = logits.softmax(-1)
        # log mean_i f_i from the logs: its gradient stays finite where all members rule a class out to the last bit.
        average = torch.logsumexp(logits.log_softmax(-1), dim=0) - math.log(len(logits))
        entropy = -(average.exp() * average).sum(-1).mean()
        true = torch.nn.functional.one_hot(y, logits.shape[-1]).bool()
        others = confidences[:, ~true].reshape(len(logits), len(y), logits.shape[-1] - 1)
        rows = normalize(others, dim=-1, eps=1e-12).transpose(0, 1)
        gram = rows @ rows.transpose(1, 2) + self.ridge * torch.eye(len(logits), dtype=rows.dtype, device=rows.device)
        return {
            "cross_entropy": losses.sum() if self.ce == "sum" else losses.mean(),
            "entropy": -self.a * entropy,
            "log_determinant": -self.b * torch.linalg.slogdet(gram).logabsdet.mean(),
        }
