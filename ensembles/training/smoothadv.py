"""SmoothAdv: adversarial training of the smoothed classifier."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeInt, PositiveFloat, PositiveInt
from ensembles.training.objective import Objective, register


@dataclass(frozen=True, kw_only=True)
class NoisyAttack(Objective):
    """The attack of Salman et al. (NeurIPS 2019, section 3.1, SmoothAdv-PGD) and the loss at what it finds.

    For one member, `steps` steps of l2 PGD from x, of size `2 epsilon / steps` along the l2-normalised gradient
    of `-log mean_k softmax f(x' + e_k)_y` over `draws` noise draws, projected to the l2 ball of radius `epsilon` around
    x and to [0, 1]. The loss is the mean cross-entropy at `x' + e_k`, *the same draws*.

    Attributes:
        steps: T; 10 in the papers.
        epsilon: radius in input units; 1.0 for MNIST (Yang et al., ICLR 2022, appendix F.1).
        draws: m noise draws a sample.
        warmup_epochs: epochs over which epsilon rises linearly from 0.
    """

    steps: PositiveInt = 10
    epsilon: PositiveFloat = 1.0
    draws: PositiveInt = 2
    warmup_epochs: NonNegativeInt = 0

    def at_epoch(self, epoch: int) -> "NoisyAttack":
        """With the epsilon of that epoch, counted from 1: `epsilon * min(1, epoch / warmup_epochs)`."""
        if not self.warmup_epochs or epoch >= self.warmup_epochs:
            return self
        return replace(self, epsilon=self.epsilon * epoch / self.warmup_epochs)

    def adversarial_loss(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """The sum over members of the mean cross-entropy at inputs adversarial to that member's smoothing."""
        shape = (self.draws, *x.shape)
        drawn = torch.randn(shape, generator=generator, dtype=x.dtype, device=generator.device)
        noise = self.sigma * drawn.to(x.device)
        losses = []
        for member in ensemble.members:
            found = self.attack(member, x, y, noise)
            logits = member((found + noise).flatten(0, 1))
            losses.append(cross_entropy(logits, y.repeat(self.draws)))
        return torch.stack(losses).sum()

    def attack(
        self,
        member: nn.Module,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        noise: Float[Tensor, "draws batch *shape"],
    ) -> Float[Tensor, "batch *shape"]:
        """The inputs found, within `epsilon` of x in l2 and within [0, 1]; the weights get no gradient."""
        delta = torch.zeros_like(x)
        step = 2 * self.epsilon / self.steps
        for _ in range(self.steps):
            delta.requires_grad_()
            logits = member((x + delta + noise).flatten(0, 1)).unflatten(0, noise.shape[:2])
            loss = -(logits.softmax(-1).mean(0).gather(1, y[:, None]) + 1e-10).log().sum()
            (gradient,) = torch.autograd.grad(loss, delta)
            with torch.no_grad():
                moved = delta + step * _unit(gradient)
                length = moved.flatten(1).norm(dim=1).clamp(min=1e-12)
                moved *= (self.epsilon / length).clamp(max=1.0).reshape(-1, *[1] * (x.ndim - 1))
                # Clipping to [0, 1] moves every pixel towards x, which lies there: the ball is not left.
                delta = (x + moved).clamp(0, 1) - x
        return x + delta.detach()


def _unit(gradient: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *shape"]:
    length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
    unit: Tensor = gradient / length.reshape(-1, *[1] * (gradient.ndim - 1))
    return unit


@register("smoothadv")
@dataclass(frozen=True, kw_only=True)
class SmoothAdv(NoisyAttack):
    """`sum_i mean_k CE(f_i(x'_i + e_k), y)`: each member learns at inputs adversarial to its own smoothing.

    Salman et al., NeurIPS 2019, section 3.1; the attack and its defaults are those of `NoisyAttack`. Nothing
    couples the members, so they are trained one by one.
    """

    name: ClassVar[str] = "smoothadv"
    joint: ClassVar[bool] = False

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """One term, `smoothadv`."""
        return {"smoothadv": self.adversarial_loss(ensemble, x, y, generator)}
