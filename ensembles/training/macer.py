"""MACER: maximise the certified radius directly."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeFloat, PositiveFloat, PositiveInt
from ensembles.training.objective import Objective, register


@register("macer")
@dataclass(frozen=True, kw_only=True)
class MACER(Objective):
    """Classification and robustness of the smoothed member (Zhai et al., ICLR 2020, Eq. 10 and Alg. 1).

    With `draws` noisy copies, q = mean softmax, and p = mean beta-softmax `softmax(beta f)`:

        CE = -log q_y
        R  = lambda (sigma / 2) (Phi^-1(p_2) - Phi^-1(p_1) + gamma), where the top class of p is y and
             Phi^-1(p_1) - Phi^-1(p_2) <= gamma; else 0

    summed over members, mean over the batch. p_1 and p_2 are the two largest of p. A sample whose probit is not
    finite (p has rounded to 0 or 1) adds nothing to R, as in the published code.

    Attributes:
        draws: k.
        weight: lambda; 16, 16, 6 at sigma .25, .5, 1 on MNIST.
        beta: inverse temperature.
        gamma: the gap above which a sample is robust enough.
    """

    name: ClassVar[str] = "macer"
    joint: ClassVar[bool] = False

    draws: PositiveInt = 16
    weight: NonNegativeFloat = 16.0
    beta: PositiveFloat = 16.0
    gamma: PositiveFloat = 8.0

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`classification` and `robustness`."""
        noisy = self.noisy_copies(x, self.draws, generator)
        parts = [self._of_member(member, noisy, y) for member in ensemble.members]
        return {
            "classification": torch.stack([classification for classification, _ in parts]).sum(),
            "robustness": self.weight * torch.stack([robustness for _, robustness in parts]).sum(),
        }

    def _of_member(
        self, member: nn.Module, noisy: Float[Tensor, "copies *shape"], y: Int[Tensor, "batch"]
    ) -> tuple[Tensor, Tensor]:
        logits = member(noisy).unflatten(0, (self.draws, len(y)))
        classification = nll_loss((logits.softmax(-1).mean(0) + 1e-10).log(), y)
        top = (self.beta * logits).softmax(-1).mean(0).topk(2, dim=-1)
        right = top.indices[:, 0] == y
        # The probit's slope is infinite at 0 and 1, and infinity times a mask of 0 is NaN: such samples are
        # taken out before the probit, not after.
        probits = torch.special.ndtri(top.values.detach())
        gap = probits[:, 0] - probits[:, 1]
        kept = right & torch.isfinite(gap) & (gap <= self.gamma)
        chosen = torch.special.ndtri(top.values[kept])
        missing = chosen[:, 1] - chosen[:, 0] + self.gamma
        return classification, self.sigma / 2 * missing.sum() / len(y)
