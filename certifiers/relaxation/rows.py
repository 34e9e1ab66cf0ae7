"""Coefficients of one value of a network, a row each: of all its entries, or of a window where the rest are zero.

An entry of a convolution depends on a window of the layers before it, so that rows which ask for single entries stay
small until the windows have grown to the whole image.
"""

import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from certifiers.networks import Shift
from certifiers.relaxation.affine import sides, transposed

#: Windows of up to this many entries are multiplied by a matrix.
LARGEST_WINDOW = 512

_matrices: "weakref.WeakKeyDictionary[nn.Module, dict[Any, Tensor]]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Rows:
    """Linear functions of a value, one a row.

    Attributes:
        values: the coefficients; of a window [rows, channels, height, width] where `top` is given, else of all entries.
        owner: the sample of each row.
        shape: the shape of the value.
        top: for each row the first line of its window; it may lie outside the value, where coefficients are zero.
        left: for each row the first column of its window.
    """

    values: Float[Tensor, "rows *shape"]
    owner: Int64[Tensor, "rows"]
    shape: tuple[int, ...]
    top: Int64[Tensor, "rows"] | None = None
    left: Int64[Tensor, "rows"] | None = None

    @classmethod
    def entries(
        cls, entry: Int64[Tensor, "rows"], owner: Int64[Tensor, "rows"], shape: tuple[int, ...], like: Tensor
    ) -> "Rows":
        """`+1` times one entry each, and then `-1` times the same entries."""
        sign = torch.cat([torch.ones(len(entry)), -torch.ones(len(entry))]).to(like)
        entry, owner = entry.repeat(2), owner.repeat(2)
        if len(shape) != 3:
            size = int(torch.Size(shape).numel())
            values = functional.one_hot(entry, size).to(like) * sign[:, None]
            return cls(values.reshape(-1, *shape), owner, shape)
        pixels = shape[1] * shape[2]
        channels = functional.one_hot(entry // pixels, shape[0]).to(like) * sign[:, None]
        pixel = entry % pixels
        return cls(channels[:, :, None, None], owner, shape, pixel // shape[2], pixel % shape[2])

    def _places(self) -> Int64[Tensor, "rows height_width"]:
        """The pixel of each window entry; outside the value the number of pixels, one too many."""
        assert self.top is not None and self.left is not None  # noqa: S101, PT018
        height, width = self.shape[1:]
        line = self.top[:, None] + torch.arange(self.values.shape[2], device=self.values.device)
        column = self.left[:, None] + torch.arange(self.values.shape[3], device=self.values.device)
        inside = ((line >= 0) & (line < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
        return torch.where(inside, line[:, :, None] * width + column[:, None, :], height * width).flatten(1)

    def of(self, quantities: Float[Tensor, "batch *shape"]) -> Tensor:
        """For each row its sample's quantities, at the entries of its window; zero outside."""
        if self.top is None:
            return quantities if len(quantities) == 1 else quantities.index_select(0, self.owner)
        pixels = self.shape[1] * self.shape[2]
        table = functional.pad(quantities.expand(-1, *self.shape).flatten(2), (0, 1)).transpose(1, 2)
        owner = self.owner if len(quantities) > 1 else torch.zeros_like(self.owner)
        index = owner[:, None] * (pixels + 1) + self._places()
        found = table.reshape(-1, self.shape[0]).index_select(0, index.flatten())
        return found.reshape(len(self.values), -1, self.shape[0]).transpose(1, 2).reshape(self.values.shape)

    def whole(self) -> "Rows":
        """The same rows with the coefficients of all entries."""
        if self.top is None:
            return self
        pixels = self.shape[1] * self.shape[2]
        full = self.values.new_zeros(len(self.values), self.shape[0], pixels + 1)
        places = self._places()[:, None].expand(-1, self.shape[0], -1)
        full.scatter_(2, places, self.values.flatten(2))
        return Rows(full[:, :, :pixels].reshape(-1, *self.shape), self.owner, self.shape)

    def plus(self, other: "Rows") -> "Rows":
        """The sum of two rows of the same value and samples."""
        if self.top is None or other.top is None or self.left is None or other.left is None:
            return replace(self.whole(), values=self.whole().values + other.whole().values)
        # Windows grow alike for all rows, so that two of them lie equally in every row.
        top, left = int((other.top - self.top)[0]), int((other.left - self.left)[0])
        first, second = (min(top, 0), min(left, 0)), (max(top, 0), max(left, 0))
        height = max(self.values.shape[2], top + other.values.shape[2]) - first[0]
        width = max(self.values.shape[3], left + other.values.shape[3]) - first[1]
        total = self.values.new_zeros(*self.values.shape[:2], height, width)
        total[:, :, -first[0] : -first[0] + self.values.shape[2], -first[1] : -first[1] + self.values.shape[3]] += (
            self.values
        )
        total[:, :, second[0] : second[0] + other.values.shape[2], second[1] : second[1] + other.values.shape[3]] += (
            other.values
        )
        return replace(self, values=total, top=self.top + first[0], left=self.left + first[1])

    def through(self, layer: nn.Module, shape: tuple[int, ...]) -> "Rows":
        """Coefficients of an affine layer's outputs as coefficients of its inputs, of the given shape."""
        if self.top is None or self.left is None or isinstance(layer, Shift):
            return (
                replace(self, values=transposed(layer, self.values, shape), shape=shape) if self.top is None else self
            )
        if not isinstance(layer, (nn.Conv2d, nn.AvgPool2d)):
            return self.whole().through(layer, shape)
        stride, padding = sides(layer.stride), sides(layer.padding)
        grown = _grown(layer, self.values, shape[0])
        top, left = self.top * stride[0] - padding[0], self.left * stride[1] - padding[1]
        return Rows(grown, self.owner, shape, top, left)._settled()

    def _settled(self) -> "Rows":
        """Zeros outside the value; all entries, once the windows are about as large."""
        if self.values.shape[2] * self.values.shape[3] * 2 >= self.shape[1] * self.shape[2]:
            return self.whole()
        inside = (self._places() < self.shape[1] * self.shape[2]).reshape(len(self.values), 1, *self.values.shape[2:])
        return replace(self, values=self.values * inside)

    def spread(self, factor: tuple[int, int], shape: tuple[int, ...]) -> "Rows":
        """Each coefficient repeated over its own pooling window."""
        grown = self.values.repeat_interleave(factor[0], 2).repeat_interleave(factor[1], 3)
        if self.top is None or self.left is None:
            rest = [shape[1 + axis] - grown.shape[2 + axis] for axis in (0, 1)]
            return Rows(functional.pad(grown, (0, rest[1], 0, rest[0])), self.owner, shape)
        return Rows(grown, self.owner, shape, self.top * factor[0], self.left * factor[1])._settled()

    def dot(self, quantities: Float[Tensor, "batch *shape"]) -> Float[Tensor, "rows"]:
        """`sum_i values_i quantities_i` for the quantities of each row's sample."""
        return (self.values * self.of(quantities)).flatten(1).sum(1)


def _grown(layer: nn.Conv2d | nn.AvgPool2d, values: Float[Tensor, "rows *out"], channels: int) -> Tensor:
    """Coefficients of windows of a layer's outputs as those of the windows of inputs that they read.

    Small windows are multiplied by a matrix, which is faster than a convolution of thousands of small images.
    """
    if values[0].numel() > LARGEST_WINDOW:
        return _transposed_windows(layer, values, channels)
    known = _matrices.setdefault(layer, {})
    key = (tuple(values.shape[1:]), values.dtype, values.device)
    if key not in known:
        units = torch.eye(values[0].numel(), dtype=values.dtype, device=values.device)
        known[key] = _transposed_windows(layer, units.reshape(-1, *values.shape[1:]), channels)
    matrix = known[key]
    return (values.flatten(1) @ matrix.flatten(1)).reshape(-1, *matrix.shape[1:])


def _transposed_windows(layer: nn.Conv2d | nn.AvgPool2d, values: Tensor, channels: int) -> Tensor:
    if isinstance(layer, nn.AvgPool2d):
        kernel = sides(layer.kernel_size)
        weight = values.new_full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
        return functional.conv_transpose2d(values, weight, stride=sides(layer.stride), groups=channels)
    return functional.conv_transpose2d(
        values, layer.weight, stride=sides(layer.stride), groups=layer.groups, dilation=sides(layer.dilation)
    )
