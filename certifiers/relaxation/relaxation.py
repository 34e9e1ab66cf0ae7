"""What a relaxation is: a way to bound linear functions of the outputs of networks from below, over a ball."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from certifiers.networks import Network
from certifiers.relaxation.backward import Intermediate, Planes, Relaxed, planes, relaxed
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.intervals import interval_lower
from certifiers.relaxation.rows import Rows


class Bounds(ABC):
    """Bounds of one relaxation over one ball; what several questions share is computed once."""

    @abstractmethod
    def lower(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float[Tensor, "batch rows"]:
        """Lower bounds on `sum_i specifications[i] . networks[i](x)` over the ball of each sample.

        Raises:
            Unsupported: a layer has no bounds in this relaxation.
        """


class IntervalBounds(Bounds):
    """Interval bound propagation; the intervals of several networks add."""

    def __init__(self, ball: Ball) -> None:
        self.ball = ball

    def lower(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float[Tensor, "batch rows"]:
        """The sum of the networks' own lower bounds."""
        parts = [
            interval_lower(network, self.ball, specification)
            for network, specification in zip(networks, specifications, strict=True)
        ]
        return torch.stack(parts).sum(0)


class BackwardBounds(Bounds):
    """Backward linear bounds; linear functions of several networks add before they are bounded over the ball.

    `min (a_1 + a_2) . x >= min a_1 . x + min a_2 . x`: what the members disagree on cancels.
    """

    def __init__(self, ball: Ball, intermediate: Intermediate, around: "BackwardBounds | None" = None) -> None:
        self.ball = ball
        self.intermediate = intermediate
        self._around = around
        self._relaxed: dict[Network, Relaxed] = {}

    def relaxed(self, network: Network) -> Relaxed:
        """The bounds on the nonlinear layers of a network, computed once."""
        if self._around is not None:
            return self._around.relaxed(network)
        if network not in self._relaxed:
            self._relaxed[network] = relaxed(network, self.ball, self.intermediate)
        return self._relaxed[network]

    def within(self, ball: Ball) -> "BackwardBounds":
        """Bounds over balls within these, of the same centers, with the same bounds on the nonlinear layers.

        Looser than bounds of their own, and far cheaper: what holds on a ball holds on its parts.
        """
        if not bool((ball.radius <= self.ball.radius).all()):
            raise ValueError(f"A ball of radius {ball.radius.tolist()} is not within {self.ball.radius.tolist()}.")
        return BackwardBounds(ball, self.intermediate, around=self)

    def planes(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Planes:
        """Linear functions of the input below `sum_i specifications[i] . networks[i](x)`."""
        parts = [
            planes(self.relaxed(network), specification)
            for network, specification in zip(networks, specifications, strict=True)
        ]
        slope = torch.stack([part.rows.values for part in parts]).sum(0)
        offset = torch.stack([part.offset for part in parts]).sum(0)
        size = torch.stack([part.size for part in parts]).sum(0)
        return Planes(Rows(slope, parts[0].rows.owner, parts[0].rows.shape), offset, size)

    def lower(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float[Tensor, "batch rows"]:
        """The least values of the summed linear functions."""
        return self.ball.least(*self.planes(networks, specifications)).reshape(specifications[0].shape[:2])
