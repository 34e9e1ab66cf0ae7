"""Gaussian noise rounded to whole steps of a grid, from tabulated integers, with a bound on the error of the table."""

import decimal
import functools
import itertools
import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from certifiers.smoothing.noise import Noise

#: Random bits a number: probabilities are multiples of 2^-BITS.
BITS = 62

#: Digits of the decimal arithmetic.
_DIGITS = 40

#: pi, to more digits than are used.
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


@dataclass(frozen=True, eq=False)
class Table:
    """Rounded Gaussian noise from uniform integers, in columns of equal probability (Walker's alias method).

    The high bits of a number choose a column, and its low bits decide between the column's own value and another:
    every value has a whole number of the 2^62 integers, so that the probabilities are exact.

    Attributes:
        cuts: of each column: the low bits below it are for the column's own value.
        others: of each column: the other value's column.
        largest: column 0 stands for `-largest`, the last one in use for `largest`.
        variation: a bound, rounded up, on the total variation between k and `round(z s)`, z standard normal.
        edges: `2^62 P[k <= j]` for j from `-largest` to `largest - 1`: what the columns were made from.
    """

    cuts: Int64[Tensor, "columns"]
    others: Int64[Tensor, "columns"]
    largest: int
    variation: float
    edges: tuple[int, ...]

    def values(self, words: Int64[Tensor, "*any"]) -> Int64[Tensor, "*any"]:
        """The noise k that integers of 0 .. 2^62 - 1 stand for."""
        low = BITS - (len(self.cuts) - 1).bit_length()
        column = words >> low
        own = (words & ((1 << low) - 1)) < self.cuts[column]
        return torch.where(own, column, self.others[column]) - self.largest


@functools.lru_cache(maxsize=16)
def table(steps: Fraction) -> Table:
    """The table for `round(z s)`, z standard normal, s = `steps` the deviation in steps of the grid.

        2^62 P[k <= j] = floor(2^62 Phi(z_j))   for z_j = (j + 1/2) / s > 0, up to the first of 2^62 - 1,

    and mirrored below, so that k and -k are equally likely. The total variation is half the sum over k of
    `|P[k] - Q[k]|`, at most the sum over all edges of the error of the distribution function: 2^-62 and the error of
    computing, for each of the 2 J in the table, and beyond it the tails, on either side
    `sum_{j >= J} Phi(-z_j) <= Phi(-z_J) (1 + s / z_J)` with `Phi(-z_J) <= 2^-62` and the same error, z_J > 8.

    Args:
        steps: exact; the noise is drawn with no other deviation than is certified.
    """
    whole = 2**BITS
    upper: list[int] = []
    with decimal.localcontext(decimal.Context(prec=_DIGITS)):
        while True:
            edge = Fraction(2 * len(upper) + 1, 1) / (2 * steps)
            share = int((_upper_half(Decimal(edge.numerator) / Decimal(edge.denominator)) + Decimal("0.5")) * whole)
            if share >= whole - 1:
                break
            upper.append(share)
    # P[k <= -1 - j] = 1 - P[k <= j].
    edges = tuple([whole - share for share in reversed(upper)] + upper)
    # Twice what is counted: the errors of computing are below one unit of 2^-62, too.
    units = 2 * (len(edges) + 2 * (1 + math.ceil(steps)))
    cuts, others = _columns([high - low for low, high in itertools.pairwise((0, *edges, whole))])
    return Table(cuts, others, len(upper), units * 2.0**-BITS, edges)


def _upper_half(z: Decimal) -> Decimal:
    """`Phi(z) - 1/2 = phi(z) sum_n z^(2n+1) / (1 3 5 .. (2n+1))` for z >= 0, in the current context.

    All terms are positive and the result is at most 1/2. With 40 digits and a few hundred terms of three roundings each
    it errs by less than 1e-35, and by less than 1e-29 where the series ends: terms are then below 1e-30 of their sum
    and each at most half of the one before. Beyond z = 10 it is 1/2 up to 1e-23.
    """
    if z > 10:
        return Decimal("0.5")
    square, term, total, odd = z * z, z, z, 1
    while term * 10**30 > total or square * 2 > odd + 2:
        odd += 2
        term = term * square / odd
        total += term
    return (-square / 2).exp() / (2 * _PI).sqrt() * total


def _columns(weights: list[int]) -> tuple[Int64[Tensor, "columns"], Int64[Tensor, "columns"]]:
    """Cuts and other values of columns of equal weight, in whole numbers (Vose, 1991)."""
    columns = 1 << max(1, (len(weights) - 1).bit_length())
    room = 2**BITS // columns
    left = weights + [0] * (columns - len(weights))
    cuts, others = [room] * columns, list(range(columns))
    small = [column for column, weight in enumerate(left) if weight < room]
    large = [column for column, weight in enumerate(left) if weight > room]
    while small:
        column = small.pop()
        cuts[column], others[column] = left[column], large[-1]
        left[large[-1]] -= room - left[column]
        if left[large[-1]] <= room:
            other = large.pop()
            if left[other] < room:
                small.append(other)
    return torch.tensor(cuts, dtype=torch.int64), torch.tensor(others, dtype=torch.int64)


@dataclass(frozen=True)
class RoundedGaussianNoise(Noise):
    """`round(levels * N(0, sigma^2))` in each input: whole numbers, drawn exactly from a `Table`.

    Images are whole numbers of steps of 1 / levels too; noisy inputs are their sums, exact in float32 and float64,
    divided by `levels` once: the floating-point number of a level, the same for every way to reach it.
    """

    levels: int

    @property
    def steps(self) -> Fraction:
        """The deviation in steps of the grid, exactly."""
        return Fraction(self.sigma) * self.levels

    def draw(self, chunk: Float[Tensor, "samples *shape"], generator: torch.Generator) -> None:
        """Whole numbers."""
        known = table(self.steps)
        words = torch.empty(chunk.shape, dtype=torch.int64).random_(0, 2**BITS, generator=generator)
        chunk.copy_(known.values(words))

    def added(
        self, drawn: Float[Tensor, "samples *shape"], image: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "samples *shape"]:
        """`(image + drawn) / levels`, of an image in whole steps."""
        return super().added(drawn, image).div_(self.levels)
