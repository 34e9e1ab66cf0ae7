"""The inputs a bound speaks of: a ball around each image, cut to the box [0, 1] of all images."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from certifiers.certificate import Norm, ThreatModel
from certifiers.relaxation.rows import Rows

#: Units of rounding that a bound gives away, times the size of the terms it was summed from. Sums of thousands of terms
#: round by far less in practice: errors are random, and matrix products add blocks.
ROUNDINGS = 256


@dataclass(frozen=True, eq=False)
class Ball:
    """All images within `radius` of `center` in a norm, a radius a sample.

    Attributes:
        center: the images.
        radius: of each.
        norm: l1, l2 or linf.
        lower: the least value of each input in the ball and in [0, 1].
        upper: the largest.
    """

    center: Float[Tensor, "batch *shape"]
    radius: Float[Tensor, "batch"]
    norm: Norm
    lower: Float[Tensor, "batch *shape"]
    upper: Float[Tensor, "batch *shape"]

    @classmethod
    def around(
        cls, center: Float[Tensor, "batch *shape"], radius: Float[Tensor, "batch"], threat: ThreatModel
    ) -> "Ball":
        """The balls of these radii, in the precision of the centers; the box is rounded outward."""
        radius = radius.to(center)
        each = radius.reshape(-1, *(1 for _ in center.shape[1:]))
        infinity = torch.tensor(torch.inf, dtype=center.dtype, device=center.device)
        lower = torch.nextafter(center - each, -infinity).clamp(min=0)
        upper = torch.nextafter(center + each, infinity).clamp(max=1)
        return cls(center, radius, threat.norm, torch.minimum(lower, center), torch.maximum(upper, center))

    def __len__(self) -> int:
        return len(self.center)

    def part(self, samples: slice) -> "Ball":
        """The balls of some of the samples."""
        return Ball(self.center[samples], self.radius[samples], self.norm, self.lower[samples], self.upper[samples])

    def least(
        self, rows: Rows, offset: Float[Tensor, "rows"], size: Float[Tensor, "rows"] | None = None
    ) -> Float[Tensor, "rows"]:
        """Lower bounds on `rows . x + offset` over the ball of each row's sample, rounded down.

        Over the box: `sum_i min(a_i lower_i, a_i upper_i)`, exact for linf. In l1 and l2 the bound of Hoelder,
        `a . center - radius ||a||_dual`, too: the larger of both.

        Args:
            rows: coefficients of the input.
            offset: what is added.
            size: how large the numbers were that `offset` was summed from; None: as large as their sum.
        """
        values = rows.values
        rising, falling = (replace(rows, values=part) for part in (values.clamp(min=0), values.clamp(max=0)))
        least = rising.dot(self.lower) + falling.dot(self.upper)
        flat = values.flatten(1)
        if self.norm is not Norm.LINF:
            dual = flat.abs().amax(1) if self.norm is Norm.L1 else torch.linalg.vector_norm(flat, dim=1)
            least = torch.maximum(least, rows.dot(self.center) - self.radius.index_select(0, rows.owner) * dual)
        terms = flat.abs().sum(1) + (offset.abs() if size is None else size)  # inputs are at most 1
        return least + offset - ROUNDINGS * torch.finfo(values.dtype).eps * terms
