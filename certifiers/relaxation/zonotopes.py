"""Zonotopes: affine forms of the input that every value of a network is carried through, forward, all at once.

Where few ReLUs are unstable a network is nearly affine, and one forward pass of its Jacobian bounds all neurons about
as tightly as a backward pass for each of them.
"""

import functools
import math
import warnings
import weakref
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from scipy import sparse
from torch import Tensor, nn

from certifiers.certificate import Norm
from certifiers.networks import Add, Network
from certifiers.relaxation.affine import AFFINE, cast
from certifiers.relaxation.ball import ROUNDINGS, Ball
from certifiers.relaxation.intervals import Interval, unstable
from certifiers.relaxation.matrices import Matrices
from certifiers.relaxation.rounding import roundings, terms_of

#: How many numbers the terms of the inputs may be in one value of one sample; those of the ReLUs come to them, up to
#: `MOST_TERMS` times as many. A handful of values is kept at once.
LARGEST_FORM = 2**24

#: A layer's unstable ReLUs add a term each while there are at most this many for an input; else they widen the error.
MOST_TERMS = 2

#: Matrices with more of their entries than this are multiplied as dense ones, which is faster then.
DENSE = 0.1

_SLACK = ROUNDINGS * torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class AffineMap:
    """An affine layer `x -> matrix x + offset` of flattened samples; `magnitude` has the matrix's absolute values.

    `slack`, times the size of its terms, is what an output may be rounded by.
    """

    matrix: Tensor
    magnitude: Tensor
    offset: Float64[Tensor, "outputs 1"]
    slack: float


_maps: "weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, ...], AffineMap]]" = weakref.WeakKeyDictionary()


def affine_map(layer: nn.Module, shape: tuple[int, ...]) -> AffineMap:
    """An affine layer in float64 for inputs of a shape; remembered as long as the layer lives."""
    known = _maps.setdefault(layer, {})
    if shape not in known:
        device = next((parameter.device for parameter in layer.parameters()), torch.device("cpu"))
        found = Matrices().of(deepcopy(layer).cpu(), shape)
        known[shape] = AffineMap(
            _as_tensor(found.matrix).to(device),
            _as_tensor(abs(found.matrix)).to(device),
            torch.from_numpy(found.offset)[:, None].to(device),
            _slack(terms_of(layer)),
        )
    return known[shape]


def _slack(terms: int) -> float:
    return roundings(terms) * torch.finfo(torch.float64).eps


def _as_tensor(matrix: sparse.csr_array) -> Tensor:
    if matrix.nnz > DENSE * math.prod(matrix.shape):
        return torch.from_numpy(matrix.toarray())
    starts, columns, values = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        rows = torch.sparse_csr_tensor(starts, columns, values, matrix.shape, check_invariants=True)
    # Without that library rows cannot be multiplied.
    return rows if torch.backends.mkl.is_available() else rows.to_sparse_coo()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class Zonotope:
    """Values `middle + sum_i terms_i d_i + e` with `|e| <= error`, of flattened samples, in float64.

    The first of the d are the deviations of the inputs, scaled to the unit ball of their norm; the others lie in
    [-1, 1], one for each unstable ReLU passed (Singh et al., NeurIPS 2018, section 4). All forms of a network number
    them alike; a form that has fewer terms does not depend on the rest.
    """

    middle: Float64[Tensor, "features batch"]
    terms: Float64[Tensor, "features batch terms"]
    error: Float64[Tensor, "features batch"]

    @functools.cached_property
    def size(self) -> Float64[Tensor, "features batch"]:
        """How large the numbers are that a value is summed from."""
        spread: Tensor = torch.linalg.vector_norm(self.terms, ord=1, dim=2)
        return self.middle.abs() + spread + self.error

    def through(self, layer: AffineMap) -> "Zonotope":
        """The form of an affine layer's outputs; what is rounded off becomes error."""
        middle = layer.matrix @ self.middle + layer.offset
        terms = (layer.matrix @ self.terms.flatten(1)).reshape(len(middle), *self.terms.shape[1:])
        error = layer.magnitude @ self.error + layer.slack * (layer.magnitude @ self.size + layer.offset.abs())
        return Zonotope(middle, terms, error)

    def plus(self, other: "Zonotope") -> "Zonotope":
        """The sum of two forms."""
        fewer, more = sorted((self.terms, other.terms), key=lambda terms: terms.shape[2])
        terms = more.clone()
        terms[:, :, : fewer.shape[2]] += fewer
        error = self.error + other.error + _SLACK * (self.size + other.size)
        return Zonotope(self.middle + other.middle, terms, error)

    def rectified(
        self,
        low: Float64[Tensor, "features batch"],
        high: Float64[Tensor, "features batch"],
        first: int,
        own: Bool[Tensor, "batch"],
    ) -> "Zonotope":
        """The form of `relu(z)` for z between `low` and `high`.

        relu(z) = s z + m + m d,   |d| <= 1,   s = u / (u - l),   m = -s l / 2         where l < 0 < u

        Args:
            low: l.
            high: u.
            first: the number of the first new term.
            own: the samples whose unstable ReLUs get terms; those of the others become error.
        """
        opens = unstable((low, high))
        slope = torch.where(opens, high / (high - low), (low >= 0).to(low))
        half = torch.where(opens, -slope * low / 2, 0.0)
        rounded = _SLACK * torch.where(opens, self.size + high - low, 0.0)
        # An interval that is not one poisons what follows.
        error = (slope * self.error + rounded + half * ~own).masked_fill(~(low <= high), torch.nan)
        place, sample = (opens & own).nonzero(as_tuple=True)
        number = (opens & own).cumsum(0)[place, sample] - 1
        count, known = int(number.max()) + 1 if len(number) else 0, self.terms.shape[2]
        terms = half.new_zeros(*half.shape, first + count if count else known)
        torch.mul(slope[:, :, None], self.terms, out=terms[:, :, :known])
        terms[place, sample, first + number] = half[place, sample]
        return Zonotope(slope * self.middle + half, terms, error)

    def interval(
        self, norm: Norm, inputs: int
    ) -> tuple[Float64[Tensor, "features batch"], Float64[Tensor, "features batch"]]:
        """The least and the largest value, rounded outward.

        The deviations of the input reach `||terms||_dual`, those of the ReLUs the sum of their absolute values.
        """
        own, others = self.terms[:, :, :inputs], self.terms[:, :, inputs:]
        order = {Norm.LINF: 1.0, Norm.L2: 2.0, Norm.L1: math.inf}[norm]
        reach = torch.linalg.vector_norm(own, ord=order, dim=2) + others.abs().sum(2) + self.error
        reach = reach + _slack(self.terms.shape[2]) * self.size
        return self.middle - reach, self.middle + reach


class Zonotopes:
    """The forms of a network's values over a ball, as far as they are asked for, in the order of the values.

    Args:
        network: the network as it is, in no other precision than its own.
        ball: the inputs.
        bounds: by number of a nonlinear layer, the interval of what it reads; filled in before what follows is asked.
    """

    def __init__(self, network: Network, ball: Ball, bounds: Mapping[int, Interval]) -> None:
        self.network, self.ball, self.bounds = network, ball, bounds
        self.inputs = ball.center[0].numel()
        self.fits = self.inputs * max(math.prod(shape) for shape in network.shapes) <= LARGEST_FORM
        self._forms: dict[int, Zonotope] = {}
        self._last_use = {source: number for number, own in enumerate(network.sources) for source in own}
        self._done, self._taken = 0, self.inputs
        self._used = torch.zeros(len(ball), dtype=torch.int64, device=ball.center.device)

    def _start(self) -> None:
        """The form of the input."""
        self.network = cast(self.network, self.ball.center.double())
        middle, reach = _features(self.ball.center), self.ball.radius.double().expand(self.inputs, -1)
        if self.ball.norm is Norm.LINF:
            low, high = _features(self.ball.lower), _features(self.ball.upper)
            middle, reach = (low + high) / 2, (high - low) / 2
        terms = middle.new_zeros(*middle.shape, self.inputs)
        terms.diagonal(dim1=0, dim2=2).copy_(reach.T)
        self._forms[0] = Zonotope(middle, terms, _SLACK * middle.abs())

    def interval(self, value: int) -> Interval | None:
        """Bounds on a value, in the ball's precision; None where forms would be too large.

        Raises:
            KeyError: the value was asked before and all that reads it has been passed.
        """
        if not self.fits:
            return None
        if not self._done and not self._forms:
            self._start()
        for number in range(self._done, value):
            self._step(number)
        self._done = max(self._done, value)
        low, high = (
            side.T.reshape(len(self.ball), *self.network.shapes[value])
            for side in self._forms[value].interval(self.ball.norm, self.inputs)
        )
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
            low, high = (_features(side) for side in self.bounds[number])
            count = unstable((low, high)).sum(0)
            own = self._used + count <= MOST_TERMS * self.inputs
            self._used += count * own
            found = form.rectified(low, high, self._taken, own)
            self._taken = max(self._taken, found.terms.shape[2])
        elif isinstance(layer, Add):
            found = form.plus(self._forms[sources[1]])
        elif isinstance(layer, nn.Flatten):
            found = form
        elif isinstance(layer, AFFINE):
            found = form.through(affine_map(layer, self.network.shapes[sources[0]]))
        else:
            # Of a maximum only its interval is known.
            assert isinstance(layer, nn.MaxPool2d)  # noqa: S101
            low, high = (_features(layer(side)) for side in self.bounds[number])
            middle, half = (low + high) / 2, (high - low) / 2
            error = (half + _SLACK * (middle.abs() + half)).masked_fill(~(low <= high), torch.nan)
            found = Zonotope(middle, middle.new_zeros(*middle.shape, self.inputs), error)
        self._forms[number + 1] = found
        for source in set(sources):
            if self._last_use[source] == number:
                del self._forms[source]


def _features(quantities: Tensor) -> Float64[Tensor, "features batch"]:
    """A value of each sample with its entries as rows, in float64."""
    return quantities.flatten(1).T.double()
