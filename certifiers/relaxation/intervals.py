"""Interval bound propagation in plain torch: an interval for every value of a network."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from certifiers.certificate import Norm, Unsupported
from certifiers.networks import Add, Network
from certifiers.relaxation.affine import AFFINE, cast, magnitude, row_norms
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.rounding import roundings, terms_of
from certifiers.relaxation.rows import Rows

#: Layers that are not affine.
NONLINEAR = (nn.ReLU, nn.MaxPool2d)

#: A lower and an upper bound of a value, a sample at a time.
Interval = tuple[Float[Tensor, "batch *shape"], Float[Tensor, "batch *shape"]]

#: Asked before a nonlinear layer reads an interval, by the number of the layer: what it reads instead.
Tighten = Callable[[int, Interval], Interval]


def intervals(network: Network, ball: Ball, until: int | None = None, tighten: Tighten | None = None) -> list[Interval]:
    """Intervals that hold all values of a network over the ball, a value each (Gowal et al., ICCV 2019, section 3).

    An affine layer maps center m and half width d to `W m + b` and `|W| d`. The first one is bounded over the l1 or l2
    ball itself, `W x + b -+ radius ||W_k||_dual` (Wong & Kolter, ICML 2018), and over its box.

    Args:
        network: the network, in any precision; the ball's is used.
        ball: the inputs.
        until: bound the values up to this one only.
        tighten: gives the nonlinear layers tighter intervals than these, from which what follows is bounded.

    Raises:
        Unsupported: a layer has no interval arithmetic here.
    """
    network = cast(network, ball.center)
    found: list[Interval] = [(ball.lower, ball.upper)]
    inputs = {0}  # values that are the input, perhaps flattened
    for number, (layer, sources, name) in enumerate(zip(network.layers, network.sources, network.names, strict=True)):
        if until is not None and number >= until:
            break
        if tighten is not None and isinstance(layer, NONLINEAR):
            found[sources[0]] = tighten(number, found[sources[0]])
        lower, upper = found[sources[0]]
        if isinstance(layer, nn.ReLU):
            found.append((lower.clamp(min=0), upper.clamp(min=0)))
        elif isinstance(layer, nn.MaxPool2d):
            found.append((layer(lower), layer(upper)))
        elif isinstance(layer, Add):
            others = found[sources[1]]
            found.append((lower + others[0], upper + others[1]))
        elif isinstance(layer, AFFINE):
            center, half = (lower + upper) / 2, (upper - lower) / 2
            middle, width = layer(center), magnitude(layer, half)
            # Rounding grows with the terms of the sums, not with what is left of them.
            size = magnitude(layer, torch.maximum(lower.abs(), upper.abs())) + layer(torch.zeros_like(center[:1])).abs()
            unit = roundings(terms_of(layer)) * ball.unit(middle.dtype)
            slack = unit * (width + size)
            lower, upper = middle - width - slack, middle + width + slack
            if sources[0] in inputs and ball.norm is not Norm.LINF and isinstance(layer, (nn.Linear, nn.Conv2d)):
                order = 2.0 if ball.norm is Norm.L2 else torch.inf
                own = ball.center.reshape(len(ball), *network.shapes[sources[0]])
                radius = ball.radius.reshape(-1, *(1 for _ in lower.shape[1:]))
                value, reach = layer(own), radius * row_norms(layer, network.shapes[sources[0]], order)
                slack = unit * (size + reach)
                lower, upper = torch.maximum(lower, value - reach - slack), torch.minimum(upper, value + reach + slack)
            found.append((lower, upper))
            if sources[0] in inputs and isinstance(layer, nn.Flatten):
                inputs.add(number + 1)
        else:
            raise Unsupported(f"{name}: no interval arithmetic is known for {type(layer).__name__}.")
    return found


def unstable(interval: Interval) -> Bool[Tensor, "batch *shape"]:
    """Where an interval has numbers of both signs inside."""
    low, high = interval
    return (low < 0) & (high > 0)


def tightest(interval: Interval, other: Interval | None) -> Interval:
    """The numbers that are in both; NaN in either stays."""
    if other is None:
        return interval
    return torch.maximum(interval[0], other[0]), torch.minimum(interval[1], other[1])


def interval_lower(
    network: Network, ball: Ball, specification: Float[Tensor, "batch rows outputs"]
) -> Float[Tensor, "batch rows"]:
    """Lower bounds on `specification . output`: the last layer, where it is linear, is multiplied in first.

    A linear layer of the input itself is bounded over the ball, not only over its box.
    """
    network = cast(network, ball.center)
    specification = specification.to(ball.center)
    last = network.layers[-1]
    found = intervals(network, ball, until=len(network.layers) - isinstance(last, nn.Linear))
    if not isinstance(last, nn.Linear):
        nothing = specification.new_zeros(specification.shape[:2])
        return _rounded(ball, specification, specification.abs(), nothing, found[-1])
    source = network.sources[-1][0]
    weight, bias = specification @ last.weight, specification @ last.bias
    # Rows that cancel in the product round by what they were.
    terms, constant = specification.abs() @ last.weight.abs(), specification.abs() @ last.bias.abs()
    lower = _rounded(ball, weight, terms, bias, found[source], constant)
    if ball.norm is Norm.LINF or not _is_input(network, source):
        return lower
    owner = torch.arange(len(ball), device=weight.device).repeat_interleave(weight.shape[1])
    rows = Rows(weight.reshape(-1, *network.shapes[0]), owner, network.shapes[0])
    size = terms.sum(-1) + constant
    return torch.maximum(lower, ball.least(rows, bias.flatten(), size.flatten()).reshape(lower.shape))


def _is_input(network: Network, value: int) -> bool:
    """Whether a value is the input, perhaps flattened."""
    while value and isinstance(network.layers[value - 1], nn.Flatten):
        (value,) = network.sources[value - 1]
    return value == 0


def _rounded(
    ball: Ball,
    weight: Float[Tensor, "batch rows features"],
    terms: Float[Tensor, "batch rows features"],
    bias: Float[Tensor, "batch rows"],
    interval: Interval,
    constant: Float[Tensor, "batch rows"] | None = None,
) -> Float[Tensor, "batch rows"]:
    """The least of `weight . value + bias` over an interval; `terms` and `constant` are what they were summed from."""
    lower, upper = interval
    center, half = (lower + upper) / 2, (upper - lower) / 2
    value = torch.einsum("brf,bf->br", weight, center) - torch.einsum("brf,bf->br", weight.abs(), half) + bias
    largest = torch.maximum(lower.abs(), upper.abs())
    size = torch.einsum("brf,bf->br", terms, largest) + (bias.abs() if constant is None else constant)
    return value - roundings(weight.shape[2]) * ball.unit(value.dtype) * size
