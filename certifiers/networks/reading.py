"""From a module to a `Network`: `torch.export` records what it computes, and each operation becomes a known layer."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from certifiers.certificate import Unsupported
from certifiers.networks.folding import folded
from certifiers.networks.network import Network
from certifiers.networks.operations import TRANSLATIONS, NoLayerError, Value


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


class _Reader:
    """Translates the operations of an exported program one after the other."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.layers: list[nn.Module] = []
        self.sources: list[tuple[int, ...]] = []
        self.names: list[str] = []
        self.shapes: list[tuple[int, ...]] = []
        self.memory: dict[fx.Node, fx.Node] = {}
        self.places = {node: place for place, node in enumerate(program.graph.nodes)}

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
                known[node] = Value(constant=tensors[lifted[node.name]].detach())
            elif node.op == "placeholder":
                self.shapes.append(tuple(node.meta["val"].shape[1:]))
                known[node] = Value(0)
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

    def _operation(self, node: fx.Node, known: dict[fx.Node, Value]) -> Value:
        """The value of one operation.

        Raises:
            Unsupported: no layer computes it.
        """
        arguments = [_value(argument, known) for argument in node.args]
        named = {key: _value(argument, known) for key, argument in node.kwargs.items()}
        everything = [*arguments, *named.values()]
        if all(item.number < 0 for item in everything) and not any(
            isinstance(part, fx.Node)
            for argument in node.args
            if isinstance(argument, (list, tuple))
            for part in argument
        ):
            # Of constants alone: the weights of a parametrized layer, for instance.
            compute = cast("Callable[..., Any]", node.target)
            return Value(
                constant=compute(
                    *(item.constant for item in arguments), **{key: item.constant for key, item in named.items()}
                )
            )
        translate = TRANSLATIONS.get(node.target)
        layer_name = _name_of(node)
        if translate is None:
            raise Unsupported(
                f"{layer_name}: the operation {node.target} has no bounds here. Known are linear and convolution "
                "layers, ReLU, average and max pooling, batch norm, flattening and sums; smoothing certifies any "
                "classifier."
            )
        try:
            layer, *inputs = translate(self, *arguments, **named)
        except NoLayerError as reason:
            raise Unsupported(f"{layer_name}: {reason}") from None
        shape = node.meta["val"].shape
        if shape[0] != 2:
            raise Unsupported(f"{layer_name}: the samples of a batch are mixed.")
        if layer is None:
            result: Value = inputs[0]
        else:
            result = self.append(layer, [item.number for item in inputs], layer_name, tuple(shape[1:]))
        in_place = str(node.target).split(".")[1].endswith("_")
        if in_place:
            self._check_aliases(node, layer_name)
            known[node.all_input_nodes[0]] = result  # later readers of its input see the result
        # The same value, or in another shape, may lie in the memory of what it was made of; a clone does not.
        same = layer is None and any(item.number == result.number for item in everything)
        same &= node.target is not torch.ops.aten.clone.default
        if in_place or same or isinstance(layer, nn.Flatten):
            self.memory[node] = self._owner(node.all_input_nodes[0])
        return result

    def _owner(self, node: fx.Node) -> fx.Node:
        return self.memory.get(node, node)

    def _check_aliases(self, node: fx.Node, layer_name: str) -> None:
        """Refuse an operation in place if what it writes to is read later by another name.

        Raises:
            Unsupported: it is.
        """
        written = node.all_input_nodes[0]
        others = [
            other
            for other in (*self.memory, self._owner(written))
            if other not in (written, node) and self._owner(other) is self._owner(written)
        ]
        if any(self.places[user] > self.places[node] for other in others for user in other.users):
            raise Unsupported(
                f"{layer_name}: an operation in place writes to memory that is read later by another name (a view, or "
                "dropout, which returns its input). Use the operation that is not in place."
            )

    def append(self, layer: nn.Module, sources: list[int], name: str, shape: tuple[int, ...]) -> Value:
        self.layers.append(layer)
        self.sources.append(tuple(sources))
        self.names.append(name)
        self.shapes.append(shape)
        return Value(len(self.layers))

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape of a sample of a value."""
        return self.shapes[value.number]


def _value(argument: Any, known: dict[fx.Node, Value]) -> Any:
    return known[argument] if isinstance(argument, fx.Node) else Value(constant=argument)


def _name_of(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return f"operation {node.name}"
    path, kind = stack[-1]
    return f"layer {path or '(the model)'} ({str(kind).rpartition('.')[2].rstrip(chr(39) + '>')})"
