"""Exact minima of linear functions of outputs over a ball, by mixed-integer programming."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from certifiers.exact import highs
from certifiers.exact.encoding import Encoder
from certifiers.exact.escapes import linear_escape
from certifiers.networks import Network
from certifiers.relaxation.ball import Ball
from certifiers.relaxation.relaxation import Bounds


@dataclass(frozen=True)
class Minimum:
    """The least value of a linear function of outputs over a ball: at least `bound`, and `value` at the input `x`.

    They are as close as HiGHS is exact, unless time ran out; where no x was found, `value` is infinite and `x` None.
    """

    bound: float
    value: float
    x: Float64[Tensor, "inputs"] | None
    timeout: bool = False


def minimal_margin(
    networks: Sequence[Network],
    specifications: Sequence[Float[Tensor, "outputs"]],
    ball: Ball,
    seconds: float = math.inf,
) -> Minimum:
    """`min over x in ball and box of sum_i specifications[i] . networks[i](x)`, for networks that read the same input.

    Args:
        networks: in float64 on the CPU, as `prepare` returns them.
        specifications: a row of coefficients for each.
        ball: of one sample, in float64, of l1 or linf.
        seconds: when to stop.

    Raises:
        Unsupported: a layer is not linear or a ReLU; highspy is not installed.
        RuntimeError: HiGHS failed; in its own words.
    """
    return _minimum(Encoder(ball), networks, specifications, seconds)


def _minimum(
    encoder: Encoder, networks: Sequence[Network], specifications: Sequence[Tensor], seconds: float
) -> Minimum:
    escape = linear_escape(encoder, networks, specifications)
    found = highs.least(escape, seconds)
    x = None if found.point is None else torch.from_numpy(escape.input(found.point).copy())
    bound = found.bound if found.status != "doubtful" else -math.inf
    return Minimum(bound - escape.tolerance, found.value, x, found.status == "timeout")


class ExactBounds(Bounds):
    """Exact bounds over the ball of one image, as far as time allows; keeps the inputs at which they are attained.

    Args:
        encoder: of the ball.
        seconds: for all bounds together; later ones are those of CROWN.
    """

    def __init__(self, encoder: Encoder, seconds: float) -> None:
        self.encoder = encoder
        self.deadline = time.perf_counter() + seconds
        self.timeout = False
        self.inputs: list[Float64[np.ndarray, inputs]] = []

    def lower(
        self, networks: Sequence[Network], specifications: Sequence[Float[Tensor, "batch rows outputs"]]
    ) -> Float[Tensor, "batch rows"]:
        """The least values less a tolerance, and never below CROWN."""
        found = self.encoder.bounds.lower(networks, specifications).double().clone()
        for row in range(found.shape[1]):
            own = [part[0, row] for part in specifications]
            if not any(bool(part.any()) for part in own):
                continue
            least = _minimum(self.encoder, networks, own, self.deadline - time.perf_counter())
            found[0, row] = max(float(found[0, row]), least.bound)
            self.timeout |= least.timeout
            if least.x is not None:
                self.inputs.append(least.x.numpy())
        return found
