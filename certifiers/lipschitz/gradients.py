"""Gradients of linear functions of a network's outputs, bounded backward: intervals of Jacobian rows.

A network of these layers is piecewise linear. Over a convex set of inputs, a difference of values is bounded by the
distance times the largest dual norm of a generalised gradient in between (Lebourg's mean value theorem; Clarke,
Optimization and Nonsmooth Analysis, 1983, theorem 2.3.7).
"""

import math
import weakref
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn
from torch.nn import functional

from certifiers.certificate import Norm
from certifiers.exact.closed_form import DUAL_ORDER
from certifiers.networks import Add, Network
from certifiers.relaxation.affine import AFFINE, sides, transposed
from certifiers.relaxation.backward import Relaxed
from certifiers.relaxation.intervals import Interval
from certifiers.relaxation.rounding import roundings, terms_of

_UNIT = float(torch.finfo(torch.float64).eps)

_absolute: "weakref.WeakKeyDictionary[Network, tuple[nn.Module, ...]]" = weakref.WeakKeyDictionary()


def absolute_layers(network: Network) -> tuple[nn.Module, ...]:
    """The layers of a network with the absolute values of their weights, remembered as long as the network lives."""
    if network not in _absolute:
        copies = tuple(deepcopy(layer) for layer in network.layers)
        for layer in copies:
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                layer.weight.data = layer.weight.abs()
        _absolute[network] = copies
    return _absolute[network]


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of some functions, a row each, in one value of a network: `middle - width <= row <= middle + width`.

    Attributes:
        middle: the middle of the intervals of the entries.
        width: half their width, not negative; it holds the errors of rounding, too.
        owner: the sample of each row.
    """

    middle: Float64[Tensor, "rows *shape"]
    width: Float64[Tensor, "rows *shape"]
    owner: Int64[Tensor, "rows"]

    def dual_norms(self, norm: Norm) -> Float64[Tensor, "rows"]:
        """The largest dual norm that a row can have, rounded upward."""
        largest = (self.middle.abs() + self.width).flatten(1)
        norms: Tensor = torch.linalg.vector_norm(largest, ord=DUAL_ORDER[norm], dim=1)
        return norms * (1 + (largest.shape[1] + 8) * _UNIT)

    def plus(self, other: "Gradients") -> "Gradients":
        """The sum of two."""
        middle, width = self.middle + other.middle, self.width + other.width
        return Gradients(middle, width + 2 * _UNIT * (self.middle.abs() + other.middle.abs() + width), self.owner)

    def through_affine(self, layer: nn.Module, absolute: nn.Module, shape: tuple[int, ...]) -> "Gradients":
        """The chain rule for an affine layer: `row W`, in intervals `middle W` and `width |W|`."""
        if not isinstance(layer, (nn.Linear, nn.Conv2d, nn.AvgPool2d)):
            return Gradients(transposed(layer, self.middle, shape), transposed(layer, self.width, shape), self.owner)
        rounded = self.width + roundings(terms_of(layer)) * _UNIT * (self.middle.abs() + self.width)
        return Gradients(transposed(layer, self.middle, shape), transposed(absolute, rounded, shape), self.owner)

    def through_relu(self, interval: Interval) -> "Gradients":
        """The chain rule for ReLUs whose inputs lie in an interval: times 1, times 0, or times something in [0, 1]."""
        low, high = (side.index_select(0, self.owner) for side in interval)
        possible, certain = ~(high <= 0), low >= 0  # NaN counts as unstable
        return self._times(possible, certain)

    def through_max_pool(self, layer: nn.MaxPool2d, interval: Interval) -> "Gradients":
        """The same for maxima over windows side by side: an entry that cannot be the largest has derivative 0.

        One that is above all others has derivative 1, and the rest something in [0, 1].
        """
        low, high = interval
        kernel, size = sides(layer.kernel_size), low.shape[2:]
        lowest, index = functional.max_pool2d(low, kernel, return_indices=True)
        chosen = torch.zeros_like(low).flatten(2).scatter_(2, index.flatten(2), 1.0).reshape(low.shape) > 0
        rivals = functional.max_pool2d(high.masked_fill(chosen, -math.inf), kernel)
        alone = _spread(lowest >= rivals, kernel, size, fill=False)
        # What lies in no window has no part in the outputs.
        possible = _spread(torch.ones_like(lowest, dtype=torch.bool), kernel, size, fill=False) & (
            chosen | (~alone & ~(high < _spread(lowest, kernel, size, fill=math.inf)))
        )
        grown = Gradients(
            _spread(self.middle, kernel, size, fill=0.0), _spread(self.width, kernel, size, fill=0.0), self.owner
        )
        return grown._times(
            possible.index_select(0, self.owner), (chosen & alone & possible).index_select(0, self.owner)
        )

    def _times(self, possible: Tensor, certain: Tensor) -> "Gradients":
        """Entries times 1 where `certain`, times 0 where not `possible`, else times something in [0, 1]."""
        lower, upper = (self.middle - self.width).clamp(max=0), (self.middle + self.width).clamp(min=0)
        middle, width = (lower + upper) / 2, (upper - lower) / 2
        width = width + 4 * _UNIT * (self.middle.abs() + self.width)
        middle = torch.where(certain, self.middle, torch.where(possible, middle, 0.0))
        return Gradients(middle, torch.where(certain, self.width, torch.where(possible, width, 0.0)), self.owner)


def _spread(values: Tensor, kernel: tuple[int, int], size: torch.Size, fill: float | bool) -> Tensor:
    """Each entry repeated over its own window."""
    grown = values.repeat_interleave(kernel[0], 2).repeat_interleave(kernel[1], 3)
    return functional.pad(grown, (0, size[1] - grown.shape[3], 0, size[0] - grown.shape[2]), value=fill)


def cuts(network: Network, rows: Gradients, relaxed: Relaxed | None = None) -> Iterator[tuple[int, Gradients]]:
    """The values through which everything passes, from the output on, with the gradients of the rows in each.

    Args:
        network: the network.
        rows: gradients in its output.
        relaxed: bounds on the inputs of its nonlinear layers; None: stop before the first of these.
    """
    waiting = {len(network.layers): rows}
    absolute = absolute_layers(network)
    for number in range(len(network.layers) - 1, -1, -1):
        if len(waiting) == 1 and number + 1 in waiting:
            yield number + 1, waiting[number + 1]
        if (own := waiting.pop(number + 1, None)) is None:
            continue
        layer, sources = network.layers[number], network.sources[number]
        if isinstance(layer, AFFINE):
            own = own.through_affine(layer, absolute[number], network.shapes[sources[0]])
        elif not isinstance(layer, Add):
            if relaxed is None:
                return
            interval = relaxed.bounds[number]
            own = (
                own.through_max_pool(layer, interval) if isinstance(layer, nn.MaxPool2d) else own.through_relu(interval)
            )
        for source in sources:
            waiting[source] = waiting[source].plus(own) if source in waiting else own
    yield 0, waiting[0]
