"""What bounds give away for rounding: an absolute error of every layer, by the size of the terms that it sums.

With unit roundoff u, a sum of n products errs, in whatever order it is taken, by at most

    gamma_n sum_i |w_i| |x_i|,     gamma_n = n u / (1 - n u),

so that an affine layer errs by at most `gamma_n (|W| |x| + |b|)` in each output, and not in proportion to the output
itself, of which cancellation may leave little (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002,
lemma 3.1 and sections 3.1 and 3.5). Forward bounds lose it in the interval of each layer, and carry it on. A backward
bound `A . value` loses `gamma_n |A| (|W| |x| + |b|)` at each layer that its coefficients A pass, for the largest |x| in
the ball: that is what an error of the coefficients and constants found there can make of it.

`roundings(n)` machine epsilons of `2 u` are given away, at least twice gamma_n and never less than 256: the rest is for
the few roundings around each sum, and for those of the slack itself.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certifiers.networks import Add, Network
from certifiers.relaxation.affine import AFFINE, magnitude, sides
from certifiers.relaxation.ball import ROUNDINGS, Ball


def roundings(terms: int) -> int:
    """Machine epsilons, times the size of its terms, that a sum of so many terms loses."""
    return max(ROUNDINGS, terms)


def terms_of(layer: nn.Module) -> int:
    """The largest number of products that an entry of `W x` or of `rows W` is the sum of."""
    if isinstance(layer, nn.Linear):
        return max(layer.in_features, layer.out_features)
    if isinstance(layer, nn.Conv2d):
        height, width = sides(layer.kernel_size)
        return max(layer.in_channels, layer.out_channels) // layer.groups * height * width
    if isinstance(layer, nn.AvgPool2d):
        height, width = sides(layer.kernel_size)
        return height * width
    return 1


class Sizes:
    """How large the terms of a network's layers are over a ball, as far as asked for, in the order of the layers.

    Args:
        network: the network, in the ball's precision.
        ball: the inputs.
        bounds: by number of a nonlinear layer, the interval of what it reads; filled in before what follows is asked.
    """

    def __init__(
        self, network: Network, ball: Ball, bounds: Mapping[int, tuple[Float[Tensor, "batch *shape"], Tensor]]
    ) -> None:
        self.network, self.bounds = network, bounds
        self._values: list[Tensor] = [torch.maximum(ball.lower.abs(), ball.upper.abs())]
        self._terms: list[Tensor | None] = []

    def of(self, number: int) -> Float[Tensor, "batch *out"]:
        """`|W| |x| + |b|` of an affine layer, for the largest |x| in the ball, in shares of `ROUNDINGS` epsilons.

        The sums over its own terms, and over all outputs, of which the constants of backward bounds are sums, count
        by their numbers of terms.
        """
        for layer in range(len(self._terms), number + 1):
            self._step(layer)
        found = self._terms[number]
        assert found is not None, "an affine layer"  # noqa: S101
        return found

    def _step(self, number: int) -> None:
        layer, sources = self.network.layers[number], self.network.sources[number]
        value, terms = self._values[sources[0]], None
        if isinstance(layer, AFFINE):
            products = magnitude(layer, value)
            bias = layer(torch.zeros_like(value[:1])).abs()
            outputs = products[0].numel()
            value = products + bias
            terms = products * (roundings(terms_of(layer)) / ROUNDINGS) + bias * (roundings(outputs) / ROUNDINGS)
        elif isinstance(layer, Add):
            value = value + self._values[sources[1]]
        else:
            low, high = self.bounds[number]
            value = torch.maximum(low.abs(), high.abs())
            value = layer(value) if isinstance(layer, nn.MaxPool2d) else high.clamp(min=0)
        self._values.append(value)
        self._terms.append(terms)
