"""Adversarial training with FGSM or PGD in linf."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ensembles.ensemble import Ensemble
from ensembles.parameters import PositiveFloat, PositiveInt
from ensembles.training.objective import Objective, register


@register("adversarial")
@dataclass(frozen=True, kw_only=True)
class Adversarial(Objective):
    """`sum_i CE(f_i(x'), y)` at x' within `epsilon` of x in linf (Wu et al., Table 6).

    `fgsm` is one signed step of size epsilon (Goodfellow et al., 2015); `pgd` is `steps` signed steps of size
    `step` from a random start in the ball (Madry et al., 2018). Both climb the cross-entropy of the average
    logits, so all members meet the same adversarial input, and stay in [0, 1]; noise of `sigma` is added after
    the attack.

    Attributes:
        method: `fgsm` or `pgd`.
        epsilon: radius in input units.
        steps: of pgd.
        step: size of a step of pgd; a quarter of the default epsilon.
    """

    name: ClassVar[str] = "adversarial"

    method: Literal["fgsm", "pgd"] = "pgd"
    epsilon: PositiveFloat = 0.04
    steps: PositiveInt = 10
    step: PositiveFloat = 0.01

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """One term, `cross_entropy`: at the adversarial inputs."""
        noisy = self.noisy(self.attack(ensemble, x, y, generator), generator)
        return {"cross_entropy": torch.stack([cross_entropy(member(noisy), y) for member in ensemble.members]).sum()}

    def attack(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> Float[Tensor, "batch *shape"]:
        """The inputs found, within `epsilon` of x in linf and within [0, 1]; the weights get no gradient."""
        found = x.detach()
        steps, step = (1, self.epsilon) if self.method == "fgsm" else (self.steps, self.step)
        if self.method == "pgd":
            drawn = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)
            found = (found + self.epsilon * (2 * drawn - 1)).clamp(0, 1)
        for _ in range(steps):
            found = found.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(cross_entropy(ensemble.logits(found).mean(0), y, reduction="sum"), found)
            with torch.no_grad():
                moved = found + step * gradient.sign()
                found = torch.minimum(torch.maximum(moved, x - self.epsilon), x + self.epsilon).clamp(0, 1)
        return found.detach()
