"""Zonotopes: affine forms of the input that every value of a network is carried through, forward, all at once.

Where few ReLUs are unstable a network is nearly affine, and one forward pass of its Jacobian bounds all neurons about
as tightly as a backward pass for each of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from certifiers.certificate import Norm
from certifiers.networks import Add, Network
from certifiers.relaxation.affine import AFFINE, cast, linear_part, magnitude
from certifiers.relaxation.ball import ROUNDINGS, Ball
from certifiers.relaxation.intervals import Interval, unstable

#: How many numbers the terms of one value may be, for one sample.
LARGEST_FORM = 2**24

#: A layer's unstable ReLUs add a term each while there are at most this many for an input; else they widen the error.
MOST_TERMS = 2

_SLACK = ROUNDINGS * torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class Zonotope:
    """The values `middle + sum_i d_i terms_i + e` for `|e| <= error`, in float64.

    The first of the d are the deviations of the inputs, scaled to the unit ball of their norm; the others lie in
    [-1, 1], one for each unstable ReLU passed (Singh et al., NeurIPS 2018, section 4). All forms of a network number
    them alike; a form that has fewer terms does not depend on the rest.
    """

    middle: Float[Tensor, "batch *shape"]
    terms: Float[Tensor, "batch terms *shape"]
    error: Float[Tensor, "batch *shape"]

    def size(self) -> Float[Tensor, "batch *shape"]:
        """How large the numbers are that a value is summed from."""
        return self.middle.abs() + self.terms.abs().sum(1) + self.error

    def through(self, layer: nn.Module) -> "Zonotope":
        """The form of an affine layer's outputs; what is rounded off becomes error."""
        batch, count = self.terms.shape[:2]
        middle = layer(self.middle)
        terms = linear_part(layer, self.terms.flatten(0, 1)).reshape(batch, count, *middle.shape[1:])
        constant = layer(torch.zeros_like(self.middle[:1])).abs()
        error = magnitude(layer, self.error) + _SLACK * (magnitude(layer, self.size()) + constant)
        return Zonotope(middle, terms, error)

    def plus(self, other: "Zonotope") -> "Zonotope":
        """The sum of two forms."""
        count = max(self.terms.shape[1], other.terms.shape[1])
        first, second = self.padded(count), other.padded(count)
        error = self.error + other.error + _SLACK * (self.size() + other.size())
        return Zonotope(self.middle + other.middle, first + second, error)

    def padded(self, count: int) -> Float[Tensor, "batch terms *shape"]:
        """The terms, as so many."""
        return functional.pad(self.terms, (0, 0) * (self.terms.ndim - 2) + (0, count - self.terms.shape[1]))

    def rectified(self, interval: Interval, first: int, own: Bool[Tensor, "batch"]) -> "Zonotope":
        """The form of `relu(z)` for z in an interval.

        relu(z) = s z + m + m d,   |d| <= 1,   s = u / (u - l),   m = -s l / 2         where l < 0 < u

        Args:
            interval: where z lies.
            first: the number of the first new term.
            own: the samples whose unstable ReLUs get terms; those of the others become error.
        """
        low, high = (side.to(self.middle) for side in interval)
        opens = unstable((low, high))
        slope = torch.where(opens, high / (high - low), (low >= 0).to(low))
        half = torch.where(opens, -slope * low / 2, 0.0)
        rounded = _SLACK * torch.where(opens, self.size() + high - low, 0.0)
        mine = own.reshape(-1, *(1 for _ in half.shape[1:]))
        # An interval that is not one poisons what follows.
        error = (slope * self.error + rounded + half * ~mine).masked_fill(~(low <= high), torch.nan)
        sample, place = (opens & mine).flatten(1).nonzero(as_tuple=True)
        number = (opens & mine).flatten(1).cumsum(1)[sample, place] - 1
        count = int(number.max()) + 1 if len(number) else 0
        new = half.new_zeros(len(half), count, half[0].numel())
        new[sample, number, place] = half.flatten(1)[sample, place]
        terms = slope[:, None] * (self.padded(first) if count else self.terms)
        terms = torch.cat([terms, new.reshape(len(half), count, *half.shape[1:])], dim=1) if count else terms
        return Zonotope(slope * self.middle + half, terms, error)

    def interval(self, norm: Norm, inputs: int) -> Interval:
        """The least and the largest value, rounded outward.

        The deviations of the input reach `||terms||_dual`, those of the ReLUs the sum of their absolute values.
        """
        own, others = self.terms[:, :inputs], self.terms[:, inputs:]
        order = {Norm.LINF: 1.0, Norm.L2: 2.0, Norm.L1: math.inf}[norm]
        reach = torch.linalg.vector_norm(own, ord=order, dim=1) + others.abs().sum(1) + self.error
        reach = reach + _SLACK * self.size()
        return self.middle - reach, self.middle + reach


class Zonotopes:
    """The forms of a network's values over a ball, as far as they are asked for, in the order of the values.

    Args:
        network: the network.
        ball: the inputs.
        bounds: by number of a nonlinear layer, the interval of what it reads; filled in before what follows is asked.
    """

    def __init__(self, network: Network, ball: Ball, bounds: Mapping[int, Interval]) -> None:
        center = ball.center.double()
        self.network, self.ball, self.bounds = cast(network, center), ball, bounds
        self.inputs = center[0].numel()
        self.fits = self.inputs * max(math.prod(shape) for shape in network.shapes) <= LARGEST_FORM
        self._forms: dict[int, Zonotope] = {}
        self._last_use = {source: number for number, own in enumerate(network.sources) for source in own}
        self._done, self._taken = 0, self.inputs
        self._used = torch.zeros(len(ball), dtype=torch.int64, device=center.device)
        if self.fits:
            lower, upper = ball.lower.double(), ball.upper.double()
            if ball.norm is Norm.LINF:
                center, reach = (lower + upper) / 2, (upper - lower) / 2
            else:
                reach = ball.radius.double().reshape(-1, *(1 for _ in center.shape[1:])).expand_as(center)
            terms = torch.diag_embed(reach.flatten(1)).reshape(len(ball), self.inputs, *center.shape[1:])
            self._forms[0] = Zonotope(center, terms, _SLACK * center.abs())

    def interval(self, value: int) -> Interval | None:
        """Bounds on a value, in the ball's precision; None where forms would be too large.

        Raises:
            KeyError: the value was asked before, or later ones were.
        """
        if not self.fits:
            return None
        for number in range(self._done, value):
            self._step(number)
        self._done = max(self._done, value)
        low, high = self._forms[value].interval(self.ball.norm, self.inputs)
        if self.ball.center.dtype == low.dtype:
            return low, high
        infinity = torch.tensor(torch.inf, dtype=self.ball.center.dtype, device=low.device)
        return (
            torch.nextafter(low.to(self.ball.center), -infinity),
            torch.nextafter(high.to(self.ball.center), infinity),
        )

    def _step(self, number: int) -> None:
        layer, sources = self.network.layers[number], self.network.sources[number]
        form = self._forms[sources[0]]
        if isinstance(layer, nn.ReLU):
            count = unstable(self.bounds[number]).flatten(1).sum(1)
            own = self._used + count <= MOST_TERMS * self.inputs
            self._used += count * own
            found = form.rectified(self.bounds[number], self._taken, own)
            self._taken = max(self._taken, found.terms.shape[1])
        elif isinstance(layer, Add):
            found = form.plus(self._forms[sources[1]])
        elif isinstance(layer, AFFINE):
            found = form.through(layer)
        else:
            # Of a maximum only its interval is known.
            assert isinstance(layer, nn.MaxPool2d)  # noqa: S101
            low, high = (layer(side.double()) for side in self.bounds[number])
            middle, half = (low + high) / 2, (high - low) / 2
            error = half + _SLACK * (middle.abs() + half)
            found = Zonotope(middle, middle.new_zeros(len(middle), self.inputs, *middle.shape[1:]), error)
        self._forms[number + 1] = found
        for source in set(sources):
            if self._last_use[source] == number:
                del self._forms[source]
