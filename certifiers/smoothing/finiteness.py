"""A proof that a network's outputs are finite numbers on all inputs of a size, by the sizes of its layers."""

import math

import torch
from torch import Tensor, nn

from ensembles.architectures import Classifier, Normalize
from ensembles.resnets import PaddedShortcut, ResidualBlock

#: What is proved stays this far below the largest number of its type: for sums within a layer, which are added in an
#: unknown order and by transforms (Winograd's grow by less than a hundred), and for pooling windows.
_ROOM = 2.0**-16

_SAME_SIZE = (nn.ReLU, nn.Identity, nn.Dropout, nn.Flatten, nn.AdaptiveAvgPool2d)


@torch.no_grad()
def surely_finite(network: nn.Module, largest_input: float) -> bool:
    """Whether the logits are finite for all inputs with `max |x_i| <= largest_input`, with all rounding.

    In the maximum norm `|W x + b| <= max_i sum_j |W_ij| |x| + |b_i|`, and ReLU, pooling and flattening do not enlarge:
    what bounds the input so bounds every value of the network. If all of that stays below the largest number of the
    type, nothing overflows, and NaN comes from nowhere else. False says only that it is not proved: for a layer that is
    not known, a weight that is not finite, train mode, hooks, and very deep networks, whose bound is astronomic.
    """
    if any(
        each.training or each._forward_hooks or each._forward_pre_hooks or "forward" in vars(each)
        for each in network.modules()
    ):
        return False
    kinds = {
        parameter.dtype for parameter in [*network.parameters(), *network.buffers()] if parameter.is_floating_point()
    }
    if len(kinds) != 1:
        return False
    return _size_after(network, largest_input) <= torch.finfo(kinds.pop()).max * _ROOM  # False for NaN


def _size_after(layer: nn.Module, size: float) -> float:
    """A bound on `max |value|` after a layer, and of what it passes through; infinite or NaN where there is none."""
    kind = type(layer)
    if kind is Classifier:
        for part in (layer.normalize, layer.body, layer.head):
            size = _size_after(part, size)  # type: ignore[arg-type]
        return size
    if kind is nn.Sequential:
        for part in layer.children():
            size = _size_after(part, size)
        return size
    if kind is ResidualBlock:
        return _size_after(layer.branch, size) + _size_after(layer.shortcut, size)  # type: ignore[arg-type]
    if isinstance(layer, nn.Conv2d) and kind is nn.Conv2d and layer.padding_mode == "zeros":
        return _affine(layer.weight, layer.bias, size)
    if isinstance(layer, nn.Linear) and kind is nn.Linear:
        return _affine(layer.weight, layer.bias, size)
    if isinstance(layer, nn.BatchNorm2d) and kind is nn.BatchNorm2d:
        return _batch_norm(layer, size)
    if isinstance(layer, Normalize) and kind is Normalize:
        scaled = (size + layer.mean.double().abs()) / layer.std.double()
        return _largest(size + float(layer.mean.abs().max()), scaled.flatten()) * _rounding(layer.mean, 2)
    if kind is nn.MaxPool2d:
        # A window that lay in the padding alone would answer with -inf.
        return math.inf if layer.ceil_mode or layer.dilation not in (1, (1, 1)) else size
    if kind is nn.AvgPool2d:
        return math.inf if layer.divisor_override is not None else size
    return size if kind in _SAME_SIZE or kind is PaddedShortcut else math.inf


def _affine(weight: Tensor, bias: Tensor | None, size: float) -> float:
    rows = weight.double().abs().flatten(1).sum(1) * size
    if bias is not None:
        rows = rows + bias.double().abs()
    # A layer that shrinks its input still holds it: the bound never falls.
    return _largest(size, rows) * _rounding(weight, weight[0].numel())


def _batch_norm(layer: nn.BatchNorm2d, size: float) -> float:
    if layer.running_mean is None or layer.running_var is None:
        return math.inf
    mean, variance = layer.running_mean.double().abs(), layer.running_var.double() + layer.eps
    factor = variance.rsqrt()  # NaN below zero
    if layer.weight is not None:
        factor = factor * layer.weight.double().abs()
    shift = 0.0 if layer.bias is None else layer.bias.double().abs()
    # Computed as it is written, or as one product and one sum.
    return _largest(size + float(mean.max()), (size + mean) * factor + shift) * _rounding(layer.running_mean, 4)


def _rounding(values: Tensor, terms: int) -> float:
    """How much larger a rounded sum of products may be: less than `1 + 2 (n + 2) u`, for n so much smaller than 1/u."""
    return 1 + (terms + 8) * torch.finfo(values.dtype).eps


def _largest(size: float, rows: Tensor) -> float:
    """The largest of all; NaN if one is."""
    return float(torch.cat([rows, rows.new_tensor([size])]).max())
