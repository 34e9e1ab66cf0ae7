"""Networks in fewer bits: another classifier, with a name of its own."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

#: Number formats by name, as in keys and specs. `float32` is the network as it was trained.
Precision = Literal["float32", "bfloat16", "float16"]

_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class ReducedPrecision(nn.Module):
    """A network whose weights, inputs and activations are rounded to a shorter number format.

    `x -> network(round(x))`, logits returned in the type of x. It answers some inputs otherwise than the network it
    is made of, so that a certificate of one says nothing about the other; sampling it is what smoothing needs.
    Moving it to another device is possible, to another number format not: `.double()` leaves it what it is.

    Args:
        network: is copied.
        precision: `bfloat16` or `float16`.
    """

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        if precision not in _TYPES:
            raise ValueError(f"precision must be one of {', '.join(_TYPES)}, got {precision!r}.")
        self.precision = precision
        self.network = deepcopy(network).to(_TYPES[precision])

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch classes"]:
        """The logits."""
        return cast("Tensor", self.network(x.to(_TYPES[self.precision]))).to(x.dtype)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "ReducedPrecision":
        # What `.to(dtype)` calls. The shorter numbers come back unchanged from any longer format.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.network.to(_TYPES[self.precision])
        return self

    def extra_repr(self) -> str:
        """The number format, which takes part in the digest of the weights."""
        return f"precision={self.precision!r}"


def in_precision(network: nn.Module, precision: Precision) -> nn.Module:
    """The network itself for `float32`, and else a copy of it in that number format."""
    return network if precision == "float32" else ReducedPrecision(network, precision)
