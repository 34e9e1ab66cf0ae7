"""Affine layers as sparse matrices."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from scipy import sparse
from torch import nn

from certifiers.relaxation.affine import transposed

#: Rows of a layer's matrix that are read off at once.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Expression:
    """Affine functions `matrix v + offset` of the variables v, one a row."""

    matrix: sparse.csr_array
    offset: Float64[np.ndarray, "rows"]

    def combined(self, coefficients: Float64[np.ndarray, "rows"]) -> tuple[Float64[np.ndarray, "variables"], float]:
        """`coefficients . expression` as the coefficients of the variables, and a constant."""
        return np.asarray(coefficients @ self.matrix), float(coefficients @ self.offset)


class Matrices:
    """The matrices of affine layers, each read off once: `layer(x) = W x + b` on flattened samples."""

    def __init__(self) -> None:
        self._known: dict[nn.Module, Expression] = {}

    def of(self, layer: nn.Module, shape: tuple[int, ...]) -> Expression:
        """W and b of a layer for inputs of this shape: the unit vectors of the outputs, brought back, and zero sent on.

        No entry of W is a sum of more than one number that is not zero, so that all are exact.
        """
        if layer not in self._known:
            zero = layer(torch.zeros(1, *shape, dtype=torch.float64))
            size, parts = zero.numel(), []
            for first in range(0, size, _ROWS_AT_ONCE):
                count = min(_ROWS_AT_ONCE, size - first)
                units = torch.zeros(count, size, dtype=torch.float64)
                units[torch.arange(count), first + torch.arange(count)] = 1.0
                rows = transposed(layer, units.reshape(count, *zero.shape[1:]), shape)
                parts.append(sparse.csr_array(rows.flatten(1).numpy()))
            self._known[layer] = Expression(sparse.csr_array(sparse.vstack(parts)), zero.flatten().numpy().copy())
        return self._known[layer]
