"""Backward linear bounds (CROWN) in plain torch, a row at a time, so that samples of a batch share nothing."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from certifiers.certificate import Norm, Unsupported
from certifiers.networks import Add, Network, Shift
from certifiers.relaxation.affine import AFFINE, cast, sides
from certifiers.relaxation.ball import ROUNDINGS, Ball
from certifiers.relaxation.intervals import NONLINEAR, Interval, intervals, tightest, unstable
from certifiers.relaxation.rounding import Sizes, roundings
from certifiers.relaxation.rows import Rows
from certifiers.relaxation.zonotopes import Zonotopes

#: Where the bounds on the inputs of the ReLUs come from: intervals alone (CROWN-IBP), or CROWN itself.
Intermediate = Literal["ibp", "crown"]

#: Nonlinear layers in front of one that zonotopes are worth their price for: they are carried through all of them.
DEEP = 5

#: How many numbers the coefficients of one pass may be; rows beyond are done in another.
LARGEST_PASS = 2**22


class Planes(NamedTuple):
    """Linear functions `rows . x + offset` of a value, below something over the ball of each row's sample.

    `size` is the size of the terms that coefficients and offset were summed from, by which rounding is bounded: of each
    layer `|A| (|W| |x| + |b|)`, for the coefficients A of its outputs; see `rounding`.
    """

    rows: Rows
    offset: Float[Tensor, "rows"]
    size: Float[Tensor, "rows"]


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Linear bounds on the nonlinear layers of a network over a ball.

    Attributes:
        network: the network, in the ball's precision.
        ball: the inputs.
        bounds: by number of a nonlinear layer, the interval of what it reads.
        relaxations: by number of a layer, its linear bounds.
        sizes: of the terms of the affine layers.
    """

    network: Network
    ball: Ball
    bounds: Mapping[int, Interval]
    relaxations: "Mapping[int, ReLUBounds | MaxPoolBounds]"
    sizes: Sizes


@dataclass(frozen=True, eq=False)
class ReLUBounds:
    """`lower z <= relu(z) <= upper z + offset` for z in [l, u] (Zhang et al., NeurIPS 2018, section 3.3).

    Where l < 0 < u: `upper = u / (u - l)`, `offset = -upper l`, and `lower` is 1 where u >= -l, else 0, which has the
    smaller area. Elsewhere both are the ReLU itself.
    """

    lower: Float[Tensor, "batch *shape"]
    upper: Float[Tensor, "batch *shape"]
    offset: Float[Tensor, "batch *shape"]

    @classmethod
    def of(cls, interval: Interval) -> "ReLUBounds":
        """The bounds for an interval."""
        low, high = interval
        opens = unstable(interval)
        upper = torch.where(opens, high / (high - low), (low >= 0).to(low))
        offset = torch.where(opens, -upper * low, 0.0)
        lower = torch.where(opens, (high >= -low).to(low), upper)
        # An interval that is not one poisons what follows, and NaN is never certified.
        broken = ~(low <= high)
        return cls(*(part.masked_fill(broken, torch.nan) for part in (lower, upper, offset)))

    def backward(self, rows: Rows) -> Planes:
        """Coefficients of the outputs, for a lower bound, become those of the inputs, and a constant."""
        constant = torch.linalg.vecdot(
            rows.values.clamp(max=0).flatten(1), rows.of(self.offset).expand_as(rows.values).flatten(1)
        )
        slope = torch.where(rows.values >= 0, rows.of(self.lower), rows.of(self.upper))
        return Planes(replace(rows, values=rows.values * slope), constant, -constant * _share(rows))


@dataclass(frozen=True, eq=False)
class MaxPoolBounds:
    """A maximum lies above the entry that has the largest lower bound, and below the largest upper bound.

    Where that entry's lower bound is not below the upper bounds of all others, it is the maximum itself.
    """

    chosen: Float[Tensor, "batch channels height width"]
    sure: Float[Tensor, "batch channels lower narrower"]
    highest: Float[Tensor, "batch channels lower narrower"]
    size: tuple[int, int]

    @classmethod
    def of(cls, layer: nn.MaxPool2d, interval: Interval, name: str) -> "MaxPoolBounds":
        """The bounds for an interval.

        Raises:
            Unsupported: windows overlap or are padded.
        """
        low, high = interval
        size, stride, padding = sides(layer.kernel_size), sides(layer.stride), sides(layer.padding)
        if size != stride or padding != (0, 0):
            raise Unsupported(f"{name}: linear bounds need pooling windows side by side and without padding.")
        lowest, index = functional.max_pool2d(low, size, return_indices=True)
        chosen = torch.zeros_like(low).flatten(2).scatter_(2, index.flatten(2), 1.0).reshape(low.shape)
        others = functional.max_pool2d(high.masked_fill(chosen > 0, -math.inf), size)
        highest = functional.max_pool2d(high, size)
        # NaN compares as false and stays in `highest`, where negative coefficients meet it.
        return cls(chosen, (lowest >= others).to(low), highest, size)

    def backward(self, rows: Rows) -> Planes:
        """Coefficients of the outputs, for a lower bound, become those of the inputs, and a constant."""
        negative = rows.values.clamp(max=0) * (1 - rows.of(self.sure))
        terms = (negative * rows.of(self.highest)).flatten(1)
        routed = replace(rows, values=rows.values - negative).spread(self.size, tuple(self.chosen.shape[1:]))
        passed = replace(routed, values=routed.values * routed.of(self.chosen))
        return Planes(passed, terms.sum(1), terms.abs().sum(1) * _share(rows))


def relaxed(network: Network, ball: Ball, intermediate: Intermediate = "crown") -> Relaxed:
    """Bounds on every nonlinear layer of a network, from the input on.

    Intervals come first. With `crown`, those ReLU inputs that they leave unstable are bounded backward, each sample's
    own; the tightest on either side is kept, and what follows starts from it. From the layer `DEEP` on zonotopes come
    before: intervals would leave nearly all neurons to backward passes, which cost the more the deeper they start.

    Raises:
        Unsupported: a layer has no linear bounds here.
    """
    exact, network = network, cast(network, ball.center)
    nonlinear = [number for number, layer in enumerate(network.layers) if isinstance(layer, NONLINEAR)]
    if intermediate == "crown" and len(nonlinear) > DEEP and len(ball) > 1:
        # One by one, because zonotopes are large.
        parts = [relaxed(exact, ball.part(slice(i, i + 1)), intermediate).bounds for i in range(len(ball))]
        sides = {n: zip(*(part[n] for part in parts), strict=True) for n in nonlinear}
        joined = {n: (torch.cat(lows), torch.cat(highs)) for n, (lows, highs) in sides.items()}
        own = {number: _relaxation(network, number, joined[number]) for number in joined}
        return Relaxed(network, ball, joined, own, Sizes(network, ball, joined))
    bounds: dict[int, Interval] = {}
    relaxations: dict[int, ReLUBounds | MaxPoolBounds] = {}
    sizes = Sizes(network, ball, bounds)
    direct = _directly_bounded(network) if ball.norm is Norm.LINF else {0}
    # Of the network as it is: the rounding of its weights to another precision is not in their error.
    zonotopes = Zonotopes(exact, ball, bounds)

    so_far = Relaxed(network, ball, bounds, relaxations, sizes)
    used = zonotopes if intermediate == "crown" else None
    intervals(network, ball, tighten=functools.partial(_tighten, so_far, bounds, relaxations, used, direct))
    return so_far


def _tighten(
    so_far: Relaxed,
    bounds: dict[int, Any],  # intervals, each of the shape of its layer
    relaxations: dict[int, ReLUBounds | MaxPoolBounds],
    zonotopes: Zonotopes | None,
    direct: set[int],
    number: int,
    interval: Interval,
) -> Interval:
    """The bounds of one nonlinear layer, written into those so far; intervals alone where zonotopes are None."""
    layer, source = so_far.network.layers[number], so_far.network.sources[number][0]
    if zonotopes is not None and source not in direct:
        everywhere = isinstance(layer, nn.MaxPool2d)
        if len(bounds) >= DEEP and (everywhere or bool(unstable(interval).any())):
            interval = tightest(interval, zonotopes.interval(source))
        interval = _tightened(so_far, source, interval, everywhere=everywhere)
    bounds[number] = interval
    relaxations[number] = _relaxation(so_far.network, number, interval)
    return interval


def _relaxation(network: Network, number: int, interval: Interval) -> ReLUBounds | MaxPoolBounds:
    layer = network.layers[number]
    if isinstance(layer, nn.MaxPool2d):
        return MaxPoolBounds.of(layer, interval, network.names[number])
    return ReLUBounds.of(interval)


def _directly_bounded(network: Network) -> set[int]:
    """Values whose intervals over a box are as tight as backward bounds: at most one affine map of the input."""
    inputs, found = {0}, {0}
    for number, (layer, sources) in enumerate(zip(network.layers, network.sources, strict=True)):
        if isinstance(layer, nn.Flatten) and sources[0] in inputs:
            inputs.add(number + 1)
        if (isinstance(layer, (nn.Linear, nn.Conv2d, nn.Flatten)) and sources[0] in inputs) or (
            isinstance(layer, Shift) and sources[0] in found
        ):
            found.add(number + 1)
    return found


def _tightened(so_far: Relaxed, value: int, interval: Interval, *, everywhere: bool) -> Interval:
    """Backward bounds on the entries of a value that an interval leaves open, or on all of them."""
    low, high = interval
    asked = torch.ones_like(low, dtype=torch.bool) if everywhere else unstable(interval)
    places = asked.flatten(1).nonzero()
    if not len(places):
        return interval
    owner, entry = places[:, 0], places[:, 1]
    lower, upper = low.flatten(1).clone(), high.flatten(1).clone()
    at_once = _rows_at_once(so_far.network)
    for first in range(0, len(owner), at_once):
        own, at = owner[first : first + at_once], entry[first : first + at_once]
        least = so_far.ball.least(*backward(so_far, value, Rows.entries(at, own, tuple(low.shape[1:]), low)))
        lower[own, at] = torch.maximum(lower[own, at], least[: len(at)])
        upper[own, at] = torch.minimum(upper[own, at], -least[len(at) :])
    return lower.reshape(low.shape), upper.reshape(high.shape)


def _rows_at_once(network: Network) -> int:
    return max(1, LARGEST_PASS // max(math.prod(shape) for shape in network.shapes))


def backward(relaxed: Relaxed, value: int, rows: Rows) -> Planes:
    """Linear functions of the input below `rows . value` over the ball of each row's sample.

    Raises:
        Unsupported: a layer has no linear bounds here.
    """
    network = relaxed.network
    waiting: dict[int, Rows] = {value: rows}
    offset, size = rows.values.new_zeros(len(rows.values)), rows.values.new_zeros(len(rows.values))
    for number in range(value - 1, -1, -1):
        if (own := waiting.pop(number + 1, None)) is None:
            continue
        layer, sources = network.layers[number], network.sources[number]
        if isinstance(layer, Add):
            parts = [own, own]
        elif isinstance(layer, AFFINE):
            offset, size = offset + constant_part(layer, own), size + _terms(layer, own, relaxed.sizes, number)
            parts = [own.through(layer, network.shapes[sources[0]])]
        elif number in relaxed.relaxations:
            part, constant, terms = relaxed.relaxations[number].backward(own)
            offset, size, parts = offset + constant, size + terms, [part]
        else:
            raise Unsupported(f"{network.names[number]}: no linear bounds are known for {type(layer).__name__}.")
        for source, part in zip(sources, parts, strict=True):
            waiting[source] = waiting[source].plus(part) if source in waiting else part
    found = waiting.get(0)
    if found is None:
        shape = network.shapes[0]
        found = Rows(rows.values.new_zeros(len(rows.values), *shape), rows.owner, shape)
    return Planes(found, offset, size)


def constant_part(layer: nn.Module, rows: Rows) -> Float[Tensor, "rows"]:
    """What a layer's bias adds to linear functions of its outputs."""
    if isinstance(layer, nn.Linear):
        return rows.values @ layer.bias
    if isinstance(layer, nn.Conv2d):
        assert layer.bias is not None  # noqa: S101
        return rows.values.sum((2, 3)) @ layer.bias
    if isinstance(layer, Shift):
        return rows.dot(layer.offset)
    return rows.values.new_zeros(len(rows.values))


def _terms(layer: nn.Module, rows: Rows, sizes: Sizes, number: int) -> Float[Tensor, "rows"]:
    """The size of the terms that coefficients of an affine layer's inputs, and what its bias adds, are summed from."""
    if isinstance(layer, nn.Flatten):
        return rows.values.new_zeros(len(rows.values))
    return replace(rows, values=rows.values.abs()).dot(sizes.of(number))


def _share(rows: Rows) -> float:
    """What a sum over all coefficients of a row loses, in shares of `ROUNDINGS` epsilons."""
    return roundings(rows.values[0].numel() if len(rows.values) else 1) / ROUNDINGS


def planes(relaxed: Relaxed, specification: Float[Tensor, "batch rows outputs"]) -> Planes:
    """Linear functions of the input below `specification . output`; rows of one sample follow each other."""
    batch, count = specification.shape[:2]
    values = specification.to(relaxed.ball.center).flatten(0, 1)
    owner = torch.arange(batch, device=values.device).repeat_interleave(count)
    at_once = _rows_at_once(relaxed.network)
    output, shape = len(relaxed.network.layers), relaxed.network.shapes[-1]
    slopes, constants = [], []
    for first in range(0, len(values), at_once):
        part = slice(first, first + at_once)
        rows, *constant = backward(relaxed, output, Rows(values[part], owner[part], shape))
        slopes.append(rows.whole().values)
        constants.append(constant)
    offset, size = (torch.cat(column) for column in zip(*constants, strict=True))
    return Planes(Rows(torch.cat(slopes), owner, relaxed.network.shapes[0]), offset, size)
