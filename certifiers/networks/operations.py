"""The operations that `torch.export` records, and the layers that compute them."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from certifiers.networks.folding import Scale
from certifiers.networks.network import Add

aten = torch.ops.aten


@dataclass
class Value:
    """What a recorded operation stands for: a value of the network, or a constant."""

    number: int = -1
    constant: Any = None


class NoLayerError(Exception):
    """A known operation in a form that no layer computes."""


@runtime_checkable
class Reader(Protocol):
    """What a translation may ask of the reader."""

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape of a sample of a value."""
        ...

    def append(self, layer: nn.Module, sources: list[int], name: str, shape: tuple[int, ...]) -> Value:
        """One more layer, and its value."""
        ...


def _constant(value: Value | None, default: Any = None) -> Any:
    return default if value is None else value.constant


def _depends_on_input(*parameters: Value | None) -> bool:
    return any(value is not None and value.number >= 0 for value in parameters)


def _linear(reader: Reader, x: Value, weight: Value, bias: Value | None = None) -> tuple[Any, ...]:
    if x.number < 0 or _depends_on_input(weight, bias):
        raise NoLayerError("the weights of a linear layer depend on the input.")
    return (_linear_layer(weight.constant, _constant(bias)), x)


def _linear_layer(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=True, device="meta").to_empty(device="cpu").double()
    layer.weight.data = weight.detach().double().clone()
    layer.bias.data = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.detach().double().clone()
    return layer


def _conv2d(
    reader: Reader,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Value | None = None,
    padding: Value | None = None,
    dilation: Value | None = None,
    groups: Value | None = None,
) -> tuple[Any, ...]:
    if x.number < 0 or _depends_on_input(weight, bias):
        raise NoLayerError("the weights of a convolution depend on the input.")
    kernel = weight.constant
    layer = nn.Conv2d(
        kernel.shape[1] * _constant(groups, 1),
        kernel.shape[0],
        kernel.shape[2:],
        stride=_pair(_constant(stride, 1)),
        padding=_pair(_constant(padding, 0)),
        dilation=_pair(_constant(dilation, 1)),
        groups=_constant(groups, 1),
        dtype=torch.float64,
        device="meta",  # random weights would be drawn otherwise
    ).to_empty(device="cpu")
    layer.weight.data = kernel.detach().double().clone()
    given = _constant(bias)
    layer.bias.data = (  # type: ignore[union-attr]
        torch.zeros(len(kernel), dtype=torch.float64) if given is None else given.detach().double().clone()
    )
    return (layer, x)


def _pair(written: Any) -> tuple[int, int]:
    values = [written] if isinstance(written, int) else list(written)
    values = values * 2 if len(values) == 1 else values
    if len(values) != 2 or not all(isinstance(value, int) for value in values):
        raise NoLayerError(f"{written} is not a size in two dimensions.")
    return values[0], values[1]


def _batch_norm(
    reader: Reader,
    x: Value,
    weight: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    training: Value,
    momentum: Value,
    epsilon: Value,
    *_: Value,
) -> tuple[Any, ...]:
    if x.number < 0 or _depends_on_input(weight, bias, mean, variance):
        raise NoLayerError("the weights of a batch norm depend on the input.")
    if training.constant or mean.constant is None:
        raise NoLayerError("a batch norm without running statistics couples the samples of a batch.")
    scale = (variance.constant.double() + epsilon.constant).rsqrt()
    if weight.constant is not None:
        scale = scale * weight.constant
    shift = -mean.constant * scale
    if bias.constant is not None:
        shift = shift + bias.constant
    shape = (-1, *(1 for _ in reader.shape(x)[1:]))
    return (Scale(scale.reshape(shape), shift.reshape(shape)), x)


def _relu(reader: Reader, x: Value) -> tuple[Any, ...]:
    return (nn.ReLU(), x)


def _max_pool(
    reader: Reader,
    x: Value,
    size: Value,
    stride: Value | None = None,
    padding: Value | None = None,
    dilation: Value | None = None,
    ceil_mode: Value | None = None,
) -> tuple[Any, ...]:
    if _pair(_constant(dilation, 1)) != (1, 1) or _constant(ceil_mode, False):
        raise NoLayerError("max pooling with dilation or ceil_mode has no bounds here.")
    kernel = _pair(size.constant)
    return (nn.MaxPool2d(kernel, _pair(_constant(stride) or kernel), _pair(_constant(padding, 0))), x)


def _average_pool(
    reader: Reader,
    x: Value,
    size: Value,
    stride: Value | None = None,
    padding: Value | None = None,
    ceil_mode: Value | None = None,
    count_include_pad: Value | None = None,
    divisor: Value | None = None,
) -> tuple[Any, ...]:
    around = _pair(_constant(padding, 0))
    partial = around != (0, 0) and not _constant(count_include_pad, True)
    if _constant(ceil_mode, False) or _constant(divisor) is not None or partial:
        raise NoLayerError("average pooling with ceil_mode, a divisor or uncounted padding has no bounds here.")
    kernel = _pair(size.constant)
    return (nn.AvgPool2d(kernel, _pair(_constant(stride) or kernel), around), x)


def _adaptive_average_pool(reader: Reader, x: Value, size: Value) -> tuple[Any, ...]:
    given, wanted = reader.shape(x)[-2:], _pair(size.constant)
    if any(side % parts for side, parts in zip(given, wanted, strict=True)):
        raise NoLayerError(f"adaptive pooling from {given} to {wanted} has windows of different sizes.")
    kernel = (given[0] // wanted[0], given[1] // wanted[1])
    return (nn.AvgPool2d(kernel, kernel), x)


def _mean(reader: Reader, x: Value, dims: Value, keepdim: Value | None = None) -> tuple[Any, ...]:
    shape = reader.shape(x)
    if len(shape) != 3 or sorted(dim % 4 for dim in dims.constant) != [2, 3]:
        raise NoLayerError("a mean over other dimensions than height and width has no bounds here.")
    pooled = reader.append(nn.AvgPool2d(shape[1:], shape[1:]), [x.number], "mean", (shape[0], 1, 1))
    return (None, pooled) if _constant(keepdim, False) else (nn.Flatten(), pooled)


def _flatten(reader: Reader, x: Value, start: Value | None = None, end: Value | None = None) -> tuple[Any, ...]:
    dimensions = len(reader.shape(x)) + 1
    if _constant(start, 0) % dimensions != 1 or _constant(end, -1) % dimensions != dimensions - 1:
        raise NoLayerError("flattening other dimensions than all but the first has no bounds here.")
    return (None, x) if dimensions == 2 else (nn.Flatten(), x)


def _view(reader: Reader, x: Value, shape: Value) -> tuple[Any, ...]:
    own, wanted = reader.shape(x), [int(side) for side in shape.constant]
    size = math.prod(own)
    if wanted in ([2, -1], [2, size], [-1, size]):
        return (None, x) if len(own) == 1 else (nn.Flatten(), x)
    if wanted[1:] == list(own):
        return (None, x)
    raise NoLayerError(f"reshaping [batch, {', '.join(map(str, own))}] to {wanted} has no bounds here.")


def _same(reader: Reader, x: Value, *_: Value, **__: Value) -> tuple[Any, ...]:
    return (None, x)


def _dropout(reader: Reader, x: Value, share: Value, train: Value) -> tuple[Any, ...]:
    if train.constant:
        raise NoLayerError("dropout stays on in eval mode; a random classifier has no bounds.")
    return (None, x)


def _elementwise(operation: Callable[[Any, Any], Any]) -> Callable[..., tuple[Any, ...]]:
    """Sum, difference, product or quotient: of two values only the sum is a layer, with a constant a `Scale`."""

    def translate(reader: Reader, left: Value, right: Value, alpha: Value | None = None) -> tuple[Any, ...]:
        if _constant(alpha, 1) != 1:
            raise NoLayerError("a sum with a factor has no bounds here.")
        if left.number >= 0 and right.number >= 0:
            if operation is operator.sub and reader.shape(left) == reader.shape(right):
                shape = reader.shape(right)
                ones = torch.ones((shape[0], *(1 for _ in shape[1:])), dtype=torch.float64)
                right = reader.append(Scale(-ones, 0 * ones), [right.number], "difference", shape)
            elif operation is not operator.add or reader.shape(left) != reader.shape(right):
                raise NoLayerError(f"the {operation.__name__} of two values of the network has no bounds here.")
            return (Add(), left, right)
        x, constant = (left, right.constant) if left.number >= 0 else (right, left.constant)
        constant = torch.as_tensor(constant, dtype=torch.float64)
        zero, one = torch.zeros(()).double(), torch.ones(()).double()
        if operation is operator.add:
            scale, shift = one, constant
        elif operation is operator.sub:
            scale, shift = (one, -constant) if x is left else (-one, constant)
        elif operation is operator.mul:
            scale, shift = constant, zero
        elif x is left:
            scale, shift = one / constant, zero
        else:
            raise NoLayerError("a constant divided by a value of the network has no bounds here.")
        shape = reader.shape(x)
        if constant.ndim > len(shape) + 1 or (constant.ndim == len(shape) + 1 and len(constant) != 1):
            raise NoLayerError(f"a constant of shape {tuple(constant.shape)} changes the shape of the value.")
        without_batch = [part[0] if part.ndim == len(shape) + 1 else part for part in (scale, shift)]
        if any(not _fits(part.shape, shape) for part in without_batch):
            raise NoLayerError(f"a constant of shape {tuple(constant.shape)} changes the shape of the value.")
        return (Scale(*without_batch), x)

    return translate


def _fits(own: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a constant of one shape broadcasts to the other without changing it."""
    return len(own) <= len(shape) and all(
        side in (1, wanted) for side, wanted in zip(reversed(own), reversed(shape), strict=False)
    )


def _reversed_difference(reader: Reader, x: Value, other: Value, alpha: Value | None = None) -> tuple[Any, ...]:
    return _elementwise(operator.sub)(reader, other, x, alpha)


def _negative(reader: Reader, x: Value) -> tuple[Any, ...]:
    return _elementwise(operator.mul)(reader, x, Value(constant=-1.0))


#: By operation: from the reader and the arguments to a layer and the values it reads; None: the value itself.
TRANSLATIONS: dict[Any, Callable[..., tuple[Any, ...]]] = {
    aten.linear.default: _linear,
    aten.conv2d.default: _conv2d,
    aten.batch_norm.default: _batch_norm,
    aten.relu.default: _relu,
    aten.relu_.default: _relu,
    aten.max_pool2d.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten.adaptive_avg_pool2d.default: _adaptive_average_pool,
    aten.mean.dim: _mean,
    aten.flatten.using_ints: _flatten,
    aten.view.default: _view,
    aten.reshape.default: _view,
    aten.dropout.default: _dropout,
    aten.feature_dropout.default: _dropout,
    aten.contiguous.default: _same,
    aten.clone.default: _same,
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.to.dtype: _same,
    aten.add.Tensor: _elementwise(operator.add),
    aten.add_.Tensor: _elementwise(operator.add),
    aten.sub.Tensor: _elementwise(operator.sub),
    aten.rsub.Scalar: _reversed_difference,
    aten.neg.default: _negative,
    aten.mul.Tensor: _elementwise(operator.mul),
    aten.div.Tensor: _elementwise(operator.truediv),
}
