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

    def sums(
        self,
        networks: Sequence[Network],
        specification: Float[Tensor, "batch rows outputs"],
        couples: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "couple batch rows rows"]:
        """Lower bounds on `specification[l] . networks[i](x) + specification[j] . networks[k](x)`.

        For each couple (i, k) of networks, and all rows l and j: by one question of many rows, unless a relaxation
        knows better.
        """
        count = specification.shape[1]
        first, second = specification.repeat_interleave(count, dim=1), specification.repeat(1, count, 1)
        blocks: list[list[Tensor]] = [[] for _ in networks]
        for leader, other in couples:
            for member, block in enumerate(blocks):
                block.append(first if member == leader else second if member == other else torch.zeros_like(first))
        lower = self.lower(networks, [torch.cat(block, dim=1) for block in blocks])
        return lower.reshape(len(specification), len(couples), count, count).transpose(0, 1)


class MemberwiseBounds(Bounds):
    """Bounds that are computed of each network alone, and added."""

    @abstractmethod
    def alone(
        self, network: Network, specification: Float[Tensor, "batch rows outputs"]
    ) -> Float[Tensor, "batch rows"]:
        """Lower bounds on `specification . network(x)`."""

    def lower(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float[Tensor, "batch rows"]:
        """The sum of the networks' own lower bounds."""
        parts = [self.alone(*own) for own in zip(networks, specifications, strict=True)]
        return torch.stack(parts).sum(0)

    def sums(
        self,
        networks: Sequence[Network],
        specification: Float[Tensor, "batch rows outputs"],
        couples: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "couple batch rows rows"]:
        """Sums of the networks' own lower bounds."""
        own = [self.alone(network, specification) for network in networks]
        return torch.stack([own[i][:, :, None] + own[k][:, None, :] for i, k in couples])


class IntervalBounds(MemberwiseBounds):
    """Interval bound propagation; the intervals of several networks add."""

    def __init__(self, ball: Ball) -> None:
        self.ball = ball

    def alone(
        self, network: Network, specification: Float[Tensor, "batch rows outputs"]
    ) -> Float[Tensor, "batch rows"]:
        """Bounds from the network's intervals."""
        return interval_lower(network, self.ball, specification)


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

    def sums(
        self,
        networks: Sequence[Network],
        specification: Float[Tensor, "batch rows outputs"],
        couples: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "couple batch rows rows"]:
        """The least values of sums of linear functions: each network is gone through once, for its own rows."""
        batch, count = specification.shape[:2]
        own = [planes(self.relaxed(network), specification) for network in networks]
        shape = own[0].rows.shape
        owner = torch.arange(batch, device=specification.device).repeat_interleave(count * count)
        found = []
        for i, k in couples:
            slope = _each_with_each(own[i].rows.values, own[k].rows.values, batch).reshape(-1, *shape)
            offset = _each_with_each(own[i].offset, own[k].offset, batch).flatten()
            size = _each_with_each(own[i].size, own[k].size, batch).flatten()
            found.append(self.ball.least(Rows(slope, owner, shape), offset, size).reshape(batch, count, count))
        return torch.stack(found)


class SeparateBounds(MemberwiseBounds):
    """Backward linear bounds of which each is the least of its own network's linear function."""

    def __init__(self, bounds: BackwardBounds) -> None:
        self.bounds = bounds

    def alone(
        self, network: Network, specification: Float[Tensor, "batch rows outputs"]
    ) -> Float[Tensor, "batch rows"]:
        """The backward bounds of the one network."""
        return self.bounds.lower([network], [specification])


def _each_with_each(first: Tensor, second: Tensor, batch: int) -> Tensor:
    """`first[l] + second[j]` for all rows l and j of each sample."""
    first, second = (part.reshape(batch, -1, *part.shape[1:]) for part in (first, second))
    return first[:, :, None] + second[:, None, :]
