"""From a module to a `Network`: `torch.export` records what it computes, and each operation becomes a known layer."""

import math
import operator
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from certifiers.certificate import Unsupported
from certifiers.networks.folding import Scale, folded
from certifiers.networks.network import Add, Network

aten = torch.ops.aten


def read(module: nn.Module, example: Float[Tensor, "1 *shape"]) -> Network:
    """The network that a module computes in eval mode, in float64 on the CPU; the module is left as it is.

    Normalisation and batch norm are folded into a neighbouring layer, dropout is the identity, and what depends
    on constants alone is computed here.

    Args:
        module: a map from inputs [batch, *shape] to logits [batch, classes].
        example: an input, for its shape.

    Raises:
        Unsupported: the module has a layer that no bounds are known for, or what it computes depends on the values of
            its input by other means than layers; says where.
    """
    copy = deepcopy(module).to("cpu", torch.float64).eval().requires_grad_(requires_grad=False)
    # Two samples: with one, an operation that mixes samples could not be told from one that does not.
    batch = torch.zeros(2, *example.shape[1:], dtype=torch.float64)
    try:
        # One network is read at a time, and no forward pass runs beside it: the mode of the copy alone is concerned.
        program = torch.export.export(copy, (batch,))
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Unsupported(
            f"the layers of {type(module).__name__} cannot be recorded ({type(error).__name__}: {first[:200]}). "
            "Bounds need a forward that does not branch on values; smoothing certifies any classifier."
        ) from error
    return _Reader(program).network()


@dataclass
class _Value:
    """What a recorded operation stands for: a value of the network, or a constant."""

    number: int = -1
    constant: Any = None


class _Reader:
    """Translates the operations of an exported program one after the other."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.layers: list[nn.Module] = []
        self.sources: list[tuple[int, ...]] = []
        self.names: list[str] = []
        self.shapes: list[tuple[int, ...]] = []

    def network(self) -> Network:
        signature, known = self.program.graph_signature, {}
        tensors = {**self.program.state_dict, **self.program.constants}
        lifted = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name in lifted:
                known[node] = _Value(constant=tensors[lifted[node.name]].detach())
            elif node.op == "placeholder":
                self.shapes.append(tuple(node.meta["val"].shape[1:]))
                known[node] = _Value(0)
            elif node.op == "call_function":
                known[node] = self._operation(node, known)
            elif node.op == "output":
                (results,) = node.args
                if not isinstance(results, (tuple, list)) or len(results) != 1:
                    raise Unsupported("the classifier returns more than its logits; return one tensor.")
                output = known[results[0]]
                if output.constant is not None or len(self.shapes[output.number]) != 1:
                    raise Unsupported("the classifier's output is not one row of logits a sample.")
                return folded(self._until(output.number))
        raise Unsupported("the classifier returns nothing.")

    def _until(self, output: int) -> Network:
        return Network(self.layers[:output], self.sources[:output], self.names[:output], self.shapes[: output + 1])

    def _operation(self, node: fx.Node, known: dict[fx.Node, _Value]) -> _Value:
        """The value of one operation.

        Raises:
            Unsupported: no layer computes it.
        """

        def value(argument: Any) -> Any:
            return known[argument] if isinstance(argument, fx.Node) else _Value(constant=argument)

        arguments = [value(argument) for argument in node.args]
        named = {key: value(argument) for key, argument in node.kwargs.items()}
        everything = [*arguments, *named.values()]
        if all(item.number < 0 for item in everything) and not any(
            isinstance(part, fx.Node)
            for argument in node.args
            if isinstance(argument, (list, tuple))
            for part in argument
        ):
            # Of constants alone: the weights of a parametrized layer, for instance.
            compute = cast("Callable[..., Any]", node.target)
            return _Value(
                constant=compute(
                    *(item.constant for item in arguments), **{key: item.constant for key, item in named.items()}
                )
            )
        translate = _TRANSLATIONS.get(node.target)
        layer_name = _name_of(node)
        if translate is None:
            raise Unsupported(
                f"{layer_name}: the operation {node.target} has no bounds here. Known are linear and convolution "
                "layers, ReLU, average and max pooling, batch norm, flattening and sums; smoothing certifies any "
                "classifier."
            )
        try:
            layer, *inputs = translate(self, *arguments, **named)
        except _NoLayerError as reason:
            raise Unsupported(f"{layer_name}: {reason}") from None
        shape = node.meta["val"].shape
        if shape[0] != 2:
            raise Unsupported(f"{layer_name}: the samples of a batch are mixed.")
        if layer is None:
            result: _Value = inputs[0]
        else:
            result = self._append(layer, [item.number for item in inputs], layer_name, tuple(shape[1:]))
        if str(node.target).split(".")[1].endswith("_"):
            known[node.all_input_nodes[0]] = result  # an operation in place: later readers of its input see the result
        return result

    def _append(self, layer: nn.Module, sources: list[int], name: str, shape: tuple[int, ...]) -> _Value:
        self.layers.append(layer)
        self.sources.append(tuple(sources))
        self.names.append(name)
        self.shapes.append(shape)
        return _Value(len(self.layers))

    def shape(self, value: _Value) -> tuple[int, ...]:
        """The shape of a sample of a value."""
        return self.shapes[value.number]


class _NoLayerError(Exception):
    """A known operation in a form that no layer computes."""


def _name_of(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return f"operation {node.name}"
    path, kind = stack[-1]
    return f"layer {path or '(the model)'} ({str(kind).rpartition('.')[2].rstrip(chr(39) + '>')})"


def _constant(value: _Value | None, default: Any = None) -> Any:
    return default if value is None else value.constant


def _linear(reader: _Reader, x: _Value, weight: _Value, bias: _Value | None = None) -> tuple[Any, ...]:
    if x.number < 0 or weight.number >= 0:
        raise _NoLayerError("the weights of a linear layer depend on the input.")
    return (_linear_layer(weight.constant, _constant(bias)), x)


def _linear_layer(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=True, device="meta").to_empty(device="cpu").double()
    layer.weight.data = weight.detach().double().clone()
    layer.bias.data = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.detach().double().clone()
    return layer


def _conv2d(
    reader: _Reader,
    x: _Value,
    weight: _Value,
    bias: _Value | None = None,
    stride: _Value | None = None,
    padding: _Value | None = None,
    dilation: _Value | None = None,
    groups: _Value | None = None,
) -> tuple[Any, ...]:
    if x.number < 0 or weight.number >= 0:
        raise _NoLayerError("the weights of a convolution depend on the input.")
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
        raise _NoLayerError(f"{written} is not a size in two dimensions.")
    return values[0], values[1]


def _batch_norm(
    reader: _Reader,
    x: _Value,
    weight: _Value,
    bias: _Value,
    mean: _Value,
    variance: _Value,
    training: _Value,
    momentum: _Value,
    epsilon: _Value,
    *_: _Value,
) -> tuple[Any, ...]:
    if training.constant or mean.constant is None:
        raise _NoLayerError("a batch norm without running statistics couples the samples of a batch.")
    scale = (variance.constant.double() + epsilon.constant).rsqrt()
    if weight.constant is not None:
        scale = scale * weight.constant
    shift = -mean.constant * scale
    if bias.constant is not None:
        shift = shift + bias.constant
    shape = (-1, *(1 for _ in reader.shape(x)[1:]))
    return (Scale(scale.reshape(shape), shift.reshape(shape)), x)


def _relu(reader: _Reader, x: _Value) -> tuple[Any, ...]:
    return (nn.ReLU(), x)


def _max_pool(
    reader: _Reader,
    x: _Value,
    size: _Value,
    stride: _Value | None = None,
    padding: _Value | None = None,
    dilation: _Value | None = None,
    ceil_mode: _Value | None = None,
) -> tuple[Any, ...]:
    if _pair(_constant(dilation, 1)) != (1, 1) or _constant(ceil_mode, False):
        raise _NoLayerError("max pooling with dilation or ceil_mode has no bounds here.")
    kernel = _pair(size.constant)
    return (nn.MaxPool2d(kernel, _pair(_constant(stride) or kernel), _pair(_constant(padding, 0))), x)


def _average_pool(
    reader: _Reader,
    x: _Value,
    size: _Value,
    stride: _Value | None = None,
    padding: _Value | None = None,
    ceil_mode: _Value | None = None,
    count_include_pad: _Value | None = None,
    divisor: _Value | None = None,
) -> tuple[Any, ...]:
    around = _pair(_constant(padding, 0))
    partial = around != (0, 0) and not _constant(count_include_pad, True)
    if _constant(ceil_mode, False) or _constant(divisor) is not None or partial:
        raise _NoLayerError("average pooling with ceil_mode, a divisor or uncounted padding has no bounds here.")
    kernel = _pair(size.constant)
    return (nn.AvgPool2d(kernel, _pair(_constant(stride) or kernel), around), x)


def _adaptive_average_pool(reader: _Reader, x: _Value, size: _Value) -> tuple[Any, ...]:
    given, wanted = reader.shape(x)[-2:], _pair(size.constant)
    if any(side % parts for side, parts in zip(given, wanted, strict=True)):
        raise _NoLayerError(f"adaptive pooling from {given} to {wanted} has windows of different sizes.")
    kernel = (given[0] // wanted[0], given[1] // wanted[1])
    return (nn.AvgPool2d(kernel, kernel), x)


def _mean(reader: _Reader, x: _Value, dims: _Value, keepdim: _Value | None = None) -> tuple[Any, ...]:
    shape = reader.shape(x)
    if len(shape) != 3 or sorted(dim % 4 for dim in dims.constant) != [2, 3]:
        raise _NoLayerError("a mean over other dimensions than height and width has no bounds here.")
    pooled = reader._append(nn.AvgPool2d(shape[1:], shape[1:]), [x.number], "mean", (shape[0], 1, 1))
    return (None, pooled) if _constant(keepdim, False) else (nn.Flatten(), pooled)


def _flatten(reader: _Reader, x: _Value, start: _Value | None = None, end: _Value | None = None) -> tuple[Any, ...]:
    dimensions = len(reader.shape(x)) + 1
    if _constant(start, 0) % dimensions != 1 or _constant(end, -1) % dimensions != dimensions - 1:
        raise _NoLayerError("flattening other dimensions than all but the first has no bounds here.")
    return (None, x) if dimensions == 2 else (nn.Flatten(), x)


def _view(reader: _Reader, x: _Value, shape: _Value) -> tuple[Any, ...]:
    own, wanted = reader.shape(x), [int(side) for side in shape.constant]
    size = math.prod(own)
    if wanted in ([2, -1], [2, size], [-1, size]):
        return (None, x) if len(own) == 1 else (nn.Flatten(), x)
    if wanted[1:] == list(own):
        return (None, x)
    raise _NoLayerError(f"reshaping [batch, {', '.join(map(str, own))}] to {wanted} has no bounds here.")


def _same(reader: _Reader, x: _Value, *_: _Value, **__: _Value) -> tuple[Any, ...]:
    return (None, x)


def _dropout(reader: _Reader, x: _Value, share: _Value, train: _Value) -> tuple[Any, ...]:
    if train.constant:
        raise _NoLayerError("dropout stays on in eval mode; a random classifier has no bounds.")
    return (None, x)


def _elementwise(operation: Callable[[Any, Any], Any]) -> Callable[..., tuple[Any, ...]]:
    """Sum, difference, product or quotient: of two values only the sum is a layer, with a constant a `Scale`."""

    def translate(reader: _Reader, left: _Value, right: _Value, alpha: _Value | None = None) -> tuple[Any, ...]:
        if _constant(alpha, 1) != 1:
            raise _NoLayerError("a sum with a factor has no bounds here.")
        if left.number >= 0 and right.number >= 0:
            if operation is operator.sub and reader.shape(left) == reader.shape(right):
                shape = reader.shape(right)
                ones = torch.ones((shape[0], *(1 for _ in shape[1:])), dtype=torch.float64)
                right = reader._append(Scale(-ones, 0 * ones), [right.number], "difference", shape)
            elif operation is not operator.add or reader.shape(left) != reader.shape(right):
                raise _NoLayerError(f"the {operation.__name__} of two values of the network has no bounds here.")
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
            raise _NoLayerError("a constant divided by a value of the network has no bounds here.")
        shape = reader.shape(x)
        if constant.ndim > len(shape) + 1 or (constant.ndim == len(shape) + 1 and len(constant) != 1):
            raise _NoLayerError(f"a constant of shape {tuple(constant.shape)} changes the shape of the value.")
        without_batch = [part[0] if part.ndim == len(shape) + 1 else part for part in (scale, shift)]
        if any(not _fits(part.shape, shape) for part in without_batch):
            raise _NoLayerError(f"a constant of shape {tuple(constant.shape)} changes the shape of the value.")
        return (Scale(*without_batch), x)

    return translate


def _fits(own: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a constant of one shape broadcasts to the other without changing it."""
    return len(own) <= len(shape) and all(
        side in (1, wanted) for side, wanted in zip(reversed(own), reversed(shape), strict=False)
    )


def _reversed_difference(reader: _Reader, x: _Value, other: _Value, alpha: _Value | None = None) -> tuple[Any, ...]:
    return _elementwise(operator.sub)(reader, other, x, alpha)


def _negative(reader: _Reader, x: _Value) -> tuple[Any, ...]:
    return _elementwise(operator.mul)(reader, x, _Value(constant=-1.0))


_TRANSLATIONS: dict[Any, Callable[..., tuple[Any, ...]]] = {
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
