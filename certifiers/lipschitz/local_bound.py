"""Margins over a ball from the gradients that are possible within it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from certifiers.lipschitz.gradients import Gradients, cuts
from certifiers.lipschitz.layer_norms import value_constants
from certifiers.lipschitz.lipschitz_bounds import LipschitzBounds, global_constants, start
from certifiers.networks import Network
from certifiers.registry import register
from certifiers.relaxation.backward import LARGEST_PASS, Intermediate, Relaxed, relaxed
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.certifiers import RelaxationCertifier

_UNIT = float(torch.finfo(torch.float64).eps)


class LocalBounds(LipschitzBounds):
    """Constants that hold within the balls (and the box [0, 1]), never above the global ones.

    With the ReLUs that are stable over a ball fixed, the gradient of a function is bounded backward in intervals. At
    every value v through which everything passes, `sup ||gradient in v||_dual` times the global constant of v is a
    constant of the function: v = the input gives the purely local one, v before the last affine layers the global one.
    Gradients of several networks add before their norm is taken, where that is better.

    Args:
        ball: the inputs.
        intermediate: where the bounds on the inputs of ReLUs come from.
    """

    def __init__(self, ball: Ball, intermediate: Intermediate) -> None:
        super().__init__(ball)
        self.intermediate = intermediate
        self._relaxed: dict[Network, Relaxed] = {}

    def relaxed(self, network: Network) -> Relaxed:
        """The bounds on the nonlinear layers of a network, computed once."""
        if network not in self._relaxed:
            self._relaxed[network] = relaxed(network, self.ball, self.intermediate)
        return self._relaxed[network]

    def constants(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float64[Tensor, "batch rows"]:
        """The least of the constants, in parts of as many rows as memory allows."""
        shape = specifications[0].shape[:2]
        rows = [start(specification) for specification in specifications]
        everywhere = [
            global_constants(network, specification, self.ball.norm).flatten()
            for network, specification in zip(networks, specifications, strict=True)
        ]
        largest = max(int(torch.Size(size).numel()) for network in networks for size in network.shapes)
        found = []
        at_once = max(1, LARGEST_PASS // largest)
        for first in range(0, shape.numel(), at_once):
            part = slice(first, first + at_once)
            own = [Gradients(row.middle[part], row.width[part], row.owner[part]) for row in rows]
            found.append(self._part(networks, own, [constant[part] for constant in everywhere]))
        return torch.cat(found).reshape(shape)

    def _part(
        self, networks: Sequence[Network], rows: Sequence[Gradients], everywhere: Sequence[Tensor]
    ) -> Float64[Tensor, "rows"]:
        norm = self.ball.norm
        total, alone = None, torch.zeros((), dtype=torch.float64)
        for network, own, known in zip(networks, rows, everywhere, strict=True):
            reach, least = value_constants(network, norm), known
            for value, gradients in cuts(network, own, self.relaxed(network)):
                least = torch.fmin(least, gradients.dual_norms(norm) * reach[value] * (1 + 4 * _UNIT))
            alone = alone + least
            total = gradients if total is None else total.plus(gradients)
        alone = alone * (1 + len(networks) * _UNIT)
        return alone if total is None or len(networks) == 1 else torch.fmin(alone, total.dual_norms(norm))


@register("local-lipschitz")
@dataclass(frozen=True, kw_only=True)
class LocalLipschitz(RelaxationCertifier):
    """Margin less radius times a Lipschitz constant of the ball: Fast-Lip, in l1, l2 and linf.

        min over the ball of z_y - z_j  >=  z_y(x) - z_j(x) - radius max over the ball of ||grad (z_y - z_j)||_dual

    ReLUs whose inputs keep their sign over the ball have derivative 0 or 1; the others something in [0, 1], and the
    gradient's entries are bounded as intervals, from the output to the input (Weng et al., Fast-Lip, ICML 2018, section
    3.3; with intervals of any bounds and residual blocks, as Zhang et al., RecurJac, AAAI 2019). Where all are stable
    it is exact for balls within the box, in all three norms. Where both apply, never worse than `lipschitz` at the
    same radius. The members of a weighted average of logits, and pairs of a max-margin ensemble of logits, are bounded
    jointly.

    Attributes:
        intermediate: the bounds that decide which ReLUs are stable: crown, or ibp, which is faster and weaker.
    """

    version: ClassVar[int] = 3

    intermediate: Intermediate = "crown"

    def bounds(self, ball: Ball) -> LocalBounds:
        """Constants of the balls."""
        return LocalBounds(ball, self.intermediate)

    def inputs(self, x: Float[Tensor, "batch *shape"]) -> Tensor:
        """The images in float64 on the CPU, where gradients are bounded."""
        return x.double().cpu()
