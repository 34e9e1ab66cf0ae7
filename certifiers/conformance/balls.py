"""Balls in l1, l2 and linf, cut to the box of images: starts, steps, projections, and what lies inside."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from certifiers.certificate import Norm


def distance(
    x: Float[Tensor, "batch *shape"], other: Float[Tensor, "batch *shape"], norm: Norm
) -> Float64[Tensor, "batch"]:
    """`||x - other||` of each image, in float64."""
    order = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: float("inf")}[norm]
    return torch.linalg.vector_norm((x.double() - other.double()).flatten(1), ord=order, dim=1)  # type: ignore[no-any-return]


class Ball:
    """The balls of some images in one norm, cut to [0, 1]."""

    def __init__(self, center: Tensor, radius: Tensor, norm: Norm) -> None:
        self.center, self.radius, self.norm = center, radius, norm
        self.each = radius.to(center).reshape(-1, *(1 for _ in center.shape[1:]))

    def start(self, direction: Tensor) -> Tensor:
        """Points on the way to the border, along a random direction."""
        flat = direction.flatten()
        if self.norm is Norm.LINF:
            unit = direction.clamp(-2, 2) / 2
        else:
            unit = direction / torch.linalg.vector_norm(flat, ord=1 if self.norm is Norm.L1 else 2).clamp(min=1e-12)
        return self.project(self.center + self.each * unit)

    def move(self, point: Tensor, gradient: Tensor, step: float | Tensor, share: float = 0.01) -> Tensor:
        """A step of `step` radii up a gradient; what the box stops is left out.

        Signed in linf, of unit length in l2; in l1 along the `share` of the inputs with the steepest gradients, at
        least one (Tramer & Boneh, NeurIPS 2019).
        """
        stopped = ((point <= 0) & (gradient < 0)) | ((point >= 1) & (gradient > 0))
        gradient = torch.nan_to_num(gradient.masked_fill(stopped, 0.0), posinf=0.0, neginf=0.0)
        if self.norm is Norm.LINF:
            direction = gradient.sign()
        else:
            # Scaled by the largest entry first: the squares of small gradients would vanish.
            largest = gradient.flatten(1).abs().amax(1).clamp(min=torch.finfo(gradient.dtype).tiny)
            direction = gradient / largest.reshape(self.each.shape)
            if self.norm is Norm.L1:
                flat = direction.flatten(1).abs()
                count = max(1, int(flat.shape[1] * share))
                least = flat.topk(count, dim=1).values[:, -1].reshape(self.each.shape)
                direction = direction.sign() * (direction.abs() >= least) * (direction != 0) / count
            else:
                length = torch.linalg.vector_norm(direction.flatten(1), dim=1).clamp(min=1e-12)
                direction = direction / length.reshape(self.each.shape)
        return self.project(point + step * self.each * direction)

    def project(self, point: Tensor) -> Tensor:
        """Into the box and then into the ball, which leaves no pixel farther from the center, nor so the box."""
        delta = point.clamp(0, 1) - self.center
        if self.norm is Norm.LINF:
            delta = torch.minimum(torch.maximum(delta, -self.each), self.each)
        elif self.norm is Norm.L2:
            length = torch.linalg.vector_norm(delta.flatten(1), dim=1).reshape(self.each.shape)
            delta = delta * (self.each / length.clamp(min=1e-30)).clamp(max=1)
        else:
            delta = delta.sign() * _onto_l1(delta.flatten(1).abs(), self.each.flatten()).reshape(delta.shape)
        return (self.center + delta).clamp(0, 1)

    def inside(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """The points drawn in by a few roundings, and whether they lie in ball and box when measured in float64."""
        for _ in range(2):
            far = distance(self.center, point, self.norm) > self.radius
            if not bool(far.any()):
                break
            delta, unit = point - self.center, torch.finfo(point.dtype).eps
            drawn = self.center + delta.sign() * (delta.abs() * (1 - 16 * unit) - unit).clamp(min=0)
            point = torch.where(far.reshape(self.each.shape), drawn.clamp(0, 1), point)
        near = distance(self.center, point, self.norm) <= self.radius
        return point, near & (point >= 0).flatten(1).all(1) & (point <= 1).flatten(1).all(1)


def _onto_l1(sizes: Float[Tensor, "batch inputs"], radius: Float[Tensor, "batch"]) -> Float[Tensor, "batch inputs"]:
    """Sizes lowered by one number each row, not below zero, until they sum to the radius (Duchi et al., ICML 2008)."""
    ordered = sizes.sort(dim=1, descending=True).values
    excess = ordered.cumsum(1) - radius[:, None]
    counts = torch.arange(1, sizes.shape[1] + 1, device=sizes.device, dtype=sizes.dtype)
    last = (ordered * counts > excess).sum(1).clamp(min=1)[:, None] - 1
    threshold = (excess.gather(1, last) / (last + 1).to(sizes)).clamp(min=0)
    return (sizes - threshold).clamp(min=0)
