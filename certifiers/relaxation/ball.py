"""The inputs a bound speaks of: a ball around each image, cut to the box [0, 1] of all images."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from certifiers.certificate import Norm, ThreatModel
from certifiers.relaxation.rows import Rows

#: Machine epsilons that a bound gives away at least, times the size of the terms it was summed from; sums of more terms
#: than this give away one a term. See `rounding`.
ROUNDINGS = 256

#: Steps towards the best multiplier of an l2 ball; a handful is taken.
MOST_ROUNDS = 50


@dataclass(frozen=True, eq=False)
class Ball:
    """All images within `radius` of `center` in a norm, a radius a sample.

    Attributes:
        center: the images.
        radius: of each.
        norm: l1, l2 or linf.
        lower: the least value of each input in the ball and in [0, 1].
        upper: the largest.
        rounding: whether bounds give away what rounding may have added to them. If not they are no proof, and only show
            what it costs; zonotopes, in float64 always, keep what they give away.
    """

    center: Float[Tensor, "batch *shape"]
    radius: Float[Tensor, "batch"]
    norm: Norm
    lower: Float[Tensor, "batch *shape"]
    upper: Float[Tensor, "batch *shape"]
    rounding: bool = True

    @classmethod
    def around(
        cls,
        center: Float[Tensor, "batch *shape"],
        radius: Float[Tensor, "batch"],
        threat: ThreatModel,
        *,
        rounding: bool = True,
    ) -> "Ball":
        """The balls of these radii, in the precision of the centers; the box is rounded outward."""
        radius = radius.to(center)
        each = radius.reshape(-1, *(1 for _ in center.shape[1:]))
        infinity = torch.tensor(torch.inf, dtype=center.dtype, device=center.device)
        lower = torch.nextafter(center - each, -infinity).clamp(min=0)
        upper = torch.nextafter(center + each, infinity).clamp(max=1)
        lower, upper = torch.minimum(lower, center), torch.maximum(upper, center)
        return cls(center, radius, threat.norm, lower, upper, rounding)

    def __len__(self) -> int:
        return len(self.center)

    def part(self, samples: slice) -> "Ball":
        """The balls of some of the samples."""
        center, radius, lower, upper = (whole[samples] for whole in (self.center, self.radius, self.lower, self.upper))
        return replace(self, center=center, radius=radius, lower=lower, upper=upper)

    def unit(self, dtype: torch.dtype) -> float:
        """What each rounding to a precision gives away of a number of size 1: the machine epsilon, or nothing."""
        return torch.finfo(dtype).eps if self.rounding else 0.0

    def least(
        self, rows: Rows, offset: Float[Tensor, "rows"], size: Float[Tensor, "rows"] | None = None
    ) -> Float[Tensor, "rows"]:
        """Lower bounds on `rows . x + offset` over the ball of each row's sample and the box, rounded down.

        For linf the ball is a box, so that the least value is `sum_i min(a_i lower_i, a_i upper_i)`. In l1 and l2, with
        the room w_i that x_i has to move against its coefficient a_i, and any g between 0 and |a|:

            a . x  >=  a . center  -  radius ||g||_dual  -  sum_i (|a_i| - g_i) w_i.

        g = |a| is the bound of Hoelder, g = 0 that of the box. The best g, by which the bound is the least value, is
        `min(|a|, t)` in l1 and `min(|a|, t w)` in l2 for the best number t; whatever t is found, the bound holds.

        Args:
            rows: coefficients of the input.
            offset: what is added.
            size: how large the numbers were that `offset` was summed from; None: as large as their sum.
        """
        values = rows.values
        steep = values.abs().flatten(1)
        if self.norm is Norm.LINF:
            rising, falling = (replace(rows, values=part) for part in (values.clamp(min=0), values.clamp(max=0)))
            least = rising.dot(self.lower) + falling.dot(self.upper)
        else:
            room = torch.where(values > 0, rows.of(self.center - self.lower), rows.of(self.upper - self.center))
            room, radius = room.flatten(1), self.radius.index_select(0, rows.owner)
            if self.norm is Norm.L1:
                paid = torch.minimum(steep, _multiplier_l1(steep, room, radius)[:, None])
                dual = paid.amax(1)
            else:
                paid = torch.minimum(steep, _multiplier_l2(steep, room, radius)[:, None] * room)
                dual = torch.linalg.vector_norm(paid, dim=1)
            least = rows.dot(self.center) - radius * dual - torch.linalg.vecdot(steep - paid, room)
        # Inputs are at most 1.
        terms = steep.sum(1) * max(1.0, steep.shape[1] / ROUNDINGS) + (offset.abs() if size is None else size)
        return least + offset - ROUNDINGS * self.unit(values.dtype) * terms


def _multiplier_l1(
    steep: Float[Tensor, "rows inputs"], room: Float[Tensor, "rows inputs"], radius: Float[Tensor, "rows"]
) -> Float[Tensor, "rows"]:
    """The t at which the inputs steeper than t have as much room as the radius; 0 where all have less."""
    descending, order = steep.sort(dim=1, descending=True)
    enough = room.gather(1, order).cumsum(1) >= radius[:, None]
    first = enough.to(torch.int8).argmax(1, keepdim=True)
    return torch.where(enough.any(1), descending.gather(1, first)[:, 0], 0.0)


def _multiplier_l2(
    steep: Float[Tensor, "rows inputs"], room: Float[Tensor, "rows inputs"], radius: Float[Tensor, "rows"]
) -> Float[Tensor, "rows"]:
    """The t for which the move `min(|a| / t, w)` has length radius; 0 where the whole box lies in the ball.

    From `||a|| / radius`, where no room is too small, t falls: with the inputs C whose room is used up at one t, the
    next solves `sum_C w^2 + sum_rest a^2 / t^2 = radius^2`, and is not below the solution. C grows, until it stays.
    """
    squares, spaces = steep.square(), room.square()
    t = torch.where(radius > 0, squares.sum(1).sqrt() / radius.clamp(min=torch.finfo(radius.dtype).tiny), 0.0)
    used, count = torch.zeros_like(steep, dtype=torch.bool), -1
    for _ in range(MOST_ROUNDS):
        used |= steep > t[:, None] * room
        if count == (count := int(used.sum())):
            break
        left = (radius.square() - torch.where(used, spaces, 0.0).sum(1)).clamp(min=torch.finfo(radius.dtype).tiny)
        t = torch.minimum(t, (torch.where(used, 0.0, squares).sum(1) / left).sqrt())
    return t
