"""The affine layers of a network: their transposes, and how they carry intervals."""

import functools
import weakref
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from certifiers.networks import Network, Shift

#: Layers `x -> W x + b`, whose matrix W the functions here apply, transposed or in absolute value.
AFFINE = (nn.Linear, nn.Conv2d, nn.AvgPool2d, nn.Flatten, Shift)

_casts: "weakref.WeakKeyDictionary[Network, dict[torch.dtype, Network]]" = weakref.WeakKeyDictionary()


def cast(network: Network, like: Tensor) -> Network:
    """The network in the precision and on the device of a tensor; remembered as long as the network lives."""
    own = next(network.parameters(), None)
    if own is None or (own.dtype == like.dtype and own.device == like.device):
        return network
    known = _casts.setdefault(network, {})
    if like.dtype not in known or next(known[like.dtype].parameters()).device != like.device:
        copies = [deepcopy(layer).to(like) for layer in network.layers]
        known[like.dtype] = Network(copies, network.sources, network.names, network.shapes)
    return known[like.dtype]


def linear_part(layer: nn.Module, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *out"]:
    """`W x`."""
    if isinstance(layer, nn.Linear):
        return functional.linear(x, layer.weight)
    if isinstance(layer, nn.Conv2d):
        return _convolved(layer, x, layer.weight)
    return x if isinstance(layer, Shift) else torch.as_tensor(layer(x))


def magnitude(layer: nn.Module, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *out"]:
    """`|W| x`: how far the outputs can move when the inputs move by x."""
    if isinstance(layer, nn.Linear):
        return functional.linear(x, layer.weight.abs())
    if isinstance(layer, nn.Conv2d):
        return _convolved(layer, x, layer.weight.abs())
    return x if isinstance(layer, Shift) else torch.as_tensor(layer(x))


def _convolved(layer: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def transposed(
    layer: nn.Module, rows: Float[Tensor, "rows *out"], shape: tuple[int, ...]
) -> Float[Tensor, "rows *shape"]:
    """`rows W`: coefficients of the layer's outputs become those of its inputs, of the given shape."""
    if isinstance(layer, nn.Linear):
        return rows @ layer.weight
    if isinstance(layer, nn.Flatten):
        return rows.reshape(len(rows), *shape)
    if isinstance(layer, Shift):
        return rows
    if isinstance(layer, nn.AvgPool2d):
        kernel, stride, padding = (sides(size) for size in (layer.kernel_size, layer.stride, layer.padding))
        weight = rows.new_full((shape[0], 1, *kernel), 1 / (kernel[0] * kernel[1]))
        dilation, groups = (1, 1), shape[0]
    else:
        assert isinstance(layer, nn.Conv2d)  # noqa: S101
        weight, groups = layer.weight, layer.groups
        kernel, stride, padding, dilation = (
            sides(size) for size in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        )
    # What the strides leave over at the far border belongs to no output.
    rest = [
        shape[1 + axis]
        - ((rows.shape[2 + axis] - 1) * stride[axis] - 2 * padding[axis] + dilation[axis] * (kernel[axis] - 1) + 1)
        for axis in (0, 1)
    ]
    return functional.conv_transpose2d(rows, weight, None, stride, padding, rest, groups, dilation)


@functools.singledispatch
def row_norms(layer: nn.Module, shape: tuple[int, ...], order: float) -> Tensor:
    """The dual norms of the rows of W, of order 2 or infinity, or a little more, for inputs of this shape."""
    raise TypeError(type(layer).__name__)


@row_norms.register
def _(layer: nn.Linear, shape: tuple[int, ...], order: float) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(layer.weight, ord=order, dim=1)
    return norms


@row_norms.register
def _(layer: nn.Conv2d, shape: tuple[int, ...], order: float) -> Tensor:
    if order == 2:
        ones = layer.weight.new_ones(1, *shape)
        return _convolved(layer, ones, layer.weight.square())[0].clamp(min=0).sqrt()
    return layer.weight.flatten(1).abs().amax(1)[:, None, None]


def sides(size: int | tuple[int, ...] | str) -> tuple[int, int]:
    """A size of both axes, however it is written."""
    if isinstance(size, int):
        return size, size
    return int(size[0]), int(size[1])
