"""Operator norms of the layers of a network, each a proved upper bound, in l1, l2 and linf.

    ||f(x) - f(x')||  <=  L ||x - x'||      in one and the same norm on both sides

Everything is rounded upward. Networks are not written to after they were read, so that norms are remembered as long
as a network lives.
"""

import functools
import math
import weakref
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

from certifiers.certificate import Norm, Unsupported
from certifiers.lipschitz.spectral_norm import gram_iteration, largest_singular_value
from certifiers.networks import Add, Network, Shift
from certifiers.relaxation.affine import magnitude, sides, transposed

#: Convolutions whose smaller side is at most this, and whose matrix has at most so many entries, are decomposed.
LARGEST_SIDE, LARGEST_MATRIX = 1024, 2**22

#: How many numbers the transform of a kernel may be; the norm of larger ones comes from those in l1 and linf.
LARGEST_TRANSFORM = 2**25

_UNIT = float(torch.finfo(torch.float64).eps)

Shape = tuple[int, ...]

_norms: "weakref.WeakKeyDictionary[Network, dict[Norm, tuple[float, ...]]]" = weakref.WeakKeyDictionary()


def operator_norms(network: Network, norm: Norm) -> tuple[float, ...]:
    """An upper bound on the operator norm of each layer of a network, 1 a branch of a sum.

    Raises:
        Unsupported: a layer has no known norm; says which.
    """
    known = _norms.setdefault(network, {})
    if norm not in known:
        known[norm] = tuple(
            operator_norm(layer, network.shapes[sources[0]], network.shapes[number + 1], norm, name)
            for number, (layer, sources, name) in enumerate(
                zip(network.layers, network.sources, network.names, strict=True)
            )
        )
    return known[norm]


def value_constants(network: Network, norm: Norm) -> tuple[float, ...]:
    """Upper bounds on the Lipschitz constants of all values of a network in its input; the first one is the input's, 1.

    Constants multiply along layers, and those of the two branches of a sum add (Gouk et al., Machine Learning 2021,
    section 3).

    Raises:
        Unsupported: a layer has no known norm.
    """
    found = [1.0]
    for own, sources in zip(operator_norms(network, norm), network.sources, strict=True):
        found.append(upward(own * upward(sum(found[source] for source in sources))))
    return tuple(found)


def upward(value: float) -> float:
    """The next larger number: above what was rounded."""
    return math.nextafter(value, math.inf)


def operator_norm(layer: nn.Module, shape: Shape, out: Shape, norm: Norm, name: str = "the layer") -> float:
    """An upper bound on the operator norm of one layer, between values of these shapes of one sample.

    Raises:
        Unsupported: it is of another kind.
    """
    if isinstance(layer, (nn.ReLU, nn.Flatten, Shift, Add)):
        return 1.0
    if isinstance(layer, nn.MaxPool2d):
        return _max_pool_norm(layer, shape, out, norm)
    if isinstance(layer, nn.AvgPool2d):
        return _average_pool_norm(layer, shape, out, norm)
    if isinstance(layer, nn.Linear):
        return _linear_norm(layer, norm)
    if isinstance(layer, nn.Conv2d):
        return _convolution_norm(layer, shape, out, norm)
    raise Unsupported(
        f"{name}: no Lipschitz constant is known for {type(layer).__name__}. Known are linear and convolution layers, "
        "ReLU, pooling, flattening and sums; smoothing certifies any classifier."
    )


def _linear_norm(layer: nn.Linear, norm: Norm) -> float:
    """The largest singular value, the largest column sum (l1) or row sum (linf) of absolute values."""
    weight = layer.weight.detach().double()
    if norm is Norm.L2:
        bound = largest_singular_value(weight)
        return min(bound, _interpolated(layer, (weight.shape[1],), (weight.shape[0],)))
    return _finite(weight.abs().sum(0 if norm is Norm.L1 else 1).max(), terms=max(weight.shape))


def _convolution_norm(layer: nn.Conv2d, shape: Shape, out: Shape, norm: Norm) -> float:
    """In l1 and linf the largest column or row sum of the layer's matrix, border included; in l2 see below.

    The matrix itself is decomposed if it is small. Otherwise it is part of a convolution on a torus, which the Fourier
    transform splits into one small matrix a frequency: see `_symbols`. Never above `sqrt(norm_1 norm_inf)`.
    """
    taps = layer.weight[0].numel() * layer.out_channels
    if norm is Norm.LINF:
        return _finite(magnitude(layer, layer.weight.new_ones(1, *shape)).max(), terms=taps)
    if norm is Norm.L1:
        absolute = deepcopy(layer)
        absolute.weight.data = layer.weight.abs()
        return _finite(transposed(absolute, layer.weight.new_ones(1, *out), shape).max(), terms=taps)
    bound = _interpolated(layer, shape, out)
    inputs, outputs = math.prod(shape), math.prod(out)
    if min(inputs, outputs) <= LARGEST_SIDE and inputs * outputs <= LARGEST_MATRIX:
        return min(bound, largest_singular_value(matrix_of(layer, shape, out)))
    symbols = _symbols(layer, out)
    if symbols is None:
        return bound
    # A transform of N numbers is off by about log2(N) units of its own size, sqrt(N) times that of one entry at most.
    size = float(symbols.numel())
    return min(bound, gram_iteration(symbols) * (1 + 64 * math.sqrt(size) * math.log2(size + 1) * _UNIT))


def matrix_of(layer: nn.Linear | nn.Conv2d, shape: Shape, out: Shape) -> Tensor:
    """The matrix of a layer between flattened values, exactly."""
    rows = torch.eye(math.prod(out), dtype=layer.weight.dtype).reshape(-1, *out)
    return transposed(layer, rows, shape).flatten(1).detach()


def _symbols(layer: nn.Conv2d, out: Shape) -> Tensor | None:
    """The matrices, one a group and frequency, of a convolution on a torus of which this layer is a part.

    A stride of s becomes one of 1 by taking the s^2 pixels of a cell for channels, and zeros fill a dilated kernel. The
    torus is so large that no output of the layer reads around it; the layer is its restriction to inputs that are zero
    outside the image, and to some outputs, so that its norm is not larger (Sedghi et al., ICLR 2019, for the torus).

    Returns:
        [count, outputs, inputs] of one group, complex; None if that were too large.
    """
    weight, stride, dilation = layer.weight.detach().double(), sides(layer.stride), sides(layer.dilation)
    kernel = [(weight.shape[2 + axis] - 1) * dilation[axis] + 1 for axis in (0, 1)]
    cells = [-(-kernel[axis] // stride[axis]) for axis in (0, 1)]
    filled = weight.new_zeros(*weight.shape[:2], cells[0] * stride[0], cells[1] * stride[1])
    filled[:, :, : kernel[0] : dilation[0], : kernel[1] : dilation[1]] = weight
    split = filled.reshape(*weight.shape[:2], cells[0], stride[0], cells[1], stride[1])
    folded = split.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)  # [outputs, inputs of a group * s^2, cells, cells]
    torus = (out[1] + cells[0] - 1, out[2] + cells[1] - 1)
    if folded.shape[0] * folded.shape[1] * torus[0] * (torus[1] // 2 + 1) > LARGEST_TRANSFORM:
        return None
    transform = torch.fft.rfft2(folded, s=torus)  # the kernel is real: half of the frequencies suffice
    grouped: Tensor = transform.reshape(layer.groups, -1, *transform.shape[1:])
    return grouped.permute(0, 3, 4, 1, 2).flatten(0, 2)


def _interpolated(layer: nn.Module, shape: Shape, out: Shape) -> float:
    """`||A||_2 <= sqrt(||A||_1 ||A||_inf)`."""
    one, infinity = (operator_norm(layer, shape, out, norm) for norm in (Norm.L1, Norm.LINF))
    return upward(math.sqrt(one) * upward(math.sqrt(infinity)))


def _average_pool_norm(layer: nn.AvgPool2d, shape: Shape, out: Shape, norm: Norm) -> float:
    """The product of the norms of both axes, whose Kronecker product the layer's matrix is, channel by channel."""
    found = 1.0
    kernel, stride, padding = (sides(size) for size in (layer.kernel_size, layer.stride, layer.padding))
    for axis in (0, 1):
        matrix = _windows(shape[1 + axis], out[1 + axis], kernel[axis], stride[axis], padding[axis]) / kernel[axis]
        if norm is Norm.L2:
            own = largest_singular_value(matrix)
        else:
            own = _finite(matrix.sum(0 if norm is Norm.L1 else 1).max(), terms=max(matrix.shape))
        found = upward(found * own)
    return found


def _max_pool_norm(layer: nn.MaxPool2d, shape: Shape, out: Shape, norm: Norm) -> float:
    """With each input in at most k windows: k in l1, sqrt(k) in l2, 1 in linf.

    |max a - max b| <= max |a - b|,   so   sum_windows max |d|^p  <=  sum_windows sum |d|^p  <=  k sum |d|^p
    """
    kernel, stride, padding = (sides(size) for size in (layer.kernel_size, layer.stride, layer.padding))
    overlap = 1.0
    for axis in (0, 1):
        overlap *= float(
            _windows(shape[1 + axis], out[1 + axis], kernel[axis], stride[axis], padding[axis]).sum(0).max()
        )
    root = math.sqrt(overlap)
    return {Norm.L1: overlap, Norm.L2: root if root == int(root) else upward(root), Norm.LINF: 1.0}[norm]


@functools.lru_cache(maxsize=64)
def _windows(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> Tensor:
    """Which inputs of an axis lie in which windows: ones and zeros [outputs, inputs]."""
    rows = torch.eye(outputs, dtype=torch.float64)[:, None]
    grown = functional.conv_transpose1d(rows, rows.new_ones(1, 1, kernel), stride=stride)[:, 0]
    return functional.pad(grown, (0, max(0, padding + inputs - grown.shape[1])))[:, padding : padding + inputs]


def _finite(total: Tensor, terms: int) -> float:
    """A sum of so many absolute values, rounded upward; infinite if it is NaN."""
    value = float(total.detach())
    return math.inf if math.isnan(value) else value * (1 + (terms + 2) * _UNIT)
