"""Networks in a form that auto_LiRPA bounds correctly: layers that it gets wrong are rewritten, or refused."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from certifiers.certificate import Norm, Unsupported
from certifiers.networks import Add, Network, Shift
from certifiers.relaxation.affine import linear_part, sides


class Joint(nn.Module):
    """Several networks on one input, their outputs side by side."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.eval()

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch outputs"]:
        """All outputs."""
        found = [network(x) for network in self.networks]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def boundable(network: Network, norm: Norm, *, linear: bool, moved: bool = False) -> Network:
    """A copy of a network in float64 that computes the same, of layers that auto_LiRPA bounds correctly.

    Each was tried in 0.3, beside the bounds of this package and beside samples:

    - Backward bounds through grouped convolutions fail or are wrong; through dilated ones, and average pooling whose
      windows overlap or are padded, they are wrong: all become plain convolutions, with zeros in the kernel.
    - Patches (see `is_square`) are misplaced where height and width differ: whole matrices are used there.
    - Backward bounds fail at the sum with a constant image: a `Shift` is computed by convolutions, see `_shift_kernel`.
    - Over l1 and l2 balls anything but a linear or convolution layer at the input is wrong: an identity comes first.

    Args:
        network: the network.
        norm: of the balls.
        linear: for backward linear bounds, not just intervals.
        moved: the input comes with `input_shift` added, so that the shifts which it replaces are left out.

    Raises:
        Unsupported: a layer has no form that works; names it.
    """
    made = _Layers(network.shapes[0])
    numbers = [0]
    if norm is not Norm.LINF and not _starts_affine(network):
        numbers = [made.append(_identity(network.shapes[0]), (0,), "the input", network.shapes[0])]
    for number, (layer, sources, name) in enumerate(zip(network.layers, network.sources, network.names, strict=True)):
        own, shape = tuple(numbers[source] for source in sources), network.shapes[number + 1]
        if linear:
            _check(layer, network.shapes[sources[0]], name)
        if moved and isinstance(layer, Shift) and network.sources[sources[0] - 1] == (0,):
            numbers.append(own[0])
        elif linear and isinstance(layer, Shift):
            before = own[0] - 1  # values are one ahead of the layers that make them
            kernel = (
                None if before < 0 else _shift_kernel(made.layers[before], layer, made.shapes[made.sources[before][0]])
            )
            if kernel is None:
                raise Unsupported(
                    f"{name}: auto_LiRPA has no backward bounds for adding an image; native-crown does it."
                )
            height, width = made.shapes[made.sources[before][0]][1:]
            ones = made.append(
                _ones(made.shapes[made.sources[before][0]][0]), made.sources[before], name, (1, height, width)
            )
            own = (own[0], made.append(kernel, (ones,), name, shape))
            numbers.append(made.append(Add(), own, name, shape))
        else:
            plain = _plain(layer, network.shapes[sources[0]]) if linear else deepcopy(layer)
            numbers.append(made.append(plain, own, name, shape))
    return Network([layer.double() for layer in made.layers], made.sources, made.names, made.shapes)


def input_shift(networks: Sequence[Network]) -> Float[Tensor, "channels 1 1"] | None:
    """What can be added to the input of all the networks, in place of their shifts after the layers that read it.

    Normalisation before padded convolutions leaves such shifts: `W (x + t) = W x + W t`, where `W t` differs at the
    border. Adding t to the ball instead costs nothing. None where a layer has no shift, or no t makes them all.
    """
    designs, wanted = [], []
    for network in networks:
        readers = network.consumers()
        shape = network.shapes[0]
        for number in readers[0]:
            layer, after = network.layers[number], readers[number + 1]
            if not isinstance(layer, nn.Conv2d) or len(after) != 1 or not isinstance(network.layers[after[0]], Shift):
                return None
            each = torch.eye(shape[0], dtype=torch.float64)[:, :, None, None].expand(-1, *shape)
            designs.append(linear_part(layer, each).flatten(1).T)
            wanted.append(network.layers[after[0]].offset.flatten())  # type: ignore[operator]
    found = _solved(torch.cat(designs), torch.cat(wanted)[:, None]) if designs else None
    return None if found is None else found[:, :, None]


def _solved(design: Tensor, wanted: Tensor) -> Tensor | None:
    """The solution of linear equations; None where there is none."""
    if not bool(torch.isfinite(design).all() and torch.isfinite(wanted).all()):
        return None
    found = torch.linalg.lstsq(design, wanted, driver="gelsd").solution
    return found if bool(((design @ found - wanted).abs() <= 1e-9 * (1 + wanted.abs())).all()) else None


class _Layers:
    """Layers while they are put together; arguments as of a `Network`."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.layers: list[nn.Module] = []
        self.sources: list[tuple[int, ...]] = []
        self.names: list[str] = []
        self.shapes: list[tuple[int, ...]] = [shape]

    def append(self, layer: nn.Module, sources: tuple[int, ...], name: str, shape: tuple[int, ...]) -> int:
        """The number of the new value."""
        self.layers.append(layer)
        self.sources.append(sources)
        self.names.append(name)
        self.shapes.append(shape)
        return len(self.layers)


def _shift_kernel(before: nn.Module, shift: Shift, shape: tuple[int, ...]) -> nn.Conv2d | None:
    """The convolution that makes the offset of a shift from an image of ones; None where there is none.

    A constant c that is added to the image before a padded convolution W is an offset that differs at the border: what
    W makes of an image of c. So there is a kernel K with `K * ones = offset`, found by least squares and checked.
    """
    if not isinstance(before, nn.Conv2d):
        return None
    kernel, stride, padding = sides(before.kernel_size), sides(before.stride), sides(before.padding)
    taps = kernel[0] * kernel[1]
    each = torch.eye(taps, dtype=torch.float64).reshape(taps, 1, *kernel)
    seen = functional.conv2d(torch.ones(1, 1, *shape[1:], dtype=torch.float64), each, None, stride, padding)
    design, wanted = seen[0].flatten(1).T, shift.offset[0].double().flatten(1).T
    found = _solved(design, wanted)
    if found is None:
        return None
    weight = found.T.reshape(-1, 1, *kernel)
    return _convolution(weight, weight.new_zeros(len(weight)), before)


def _ones(channels: int) -> nn.Conv2d:
    """An image of ones, whatever the input."""
    weight = torch.zeros(1, channels, 1, 1, dtype=torch.float64)
    layer = nn.Conv2d(channels, 1, 1, dtype=torch.float64)
    layer.weight.data, layer.bias.data = weight, weight.new_ones(1)  # type: ignore[union-attr]
    return layer


def is_square(network: Network) -> bool:
    """Whether height and width are alike in all values and layers; patches of other convolutions are misplaced."""
    if any(len(shape) == 3 and shape[1] != shape[2] for shape in network.shapes):
        return False
    return all(
        len(set(sides(size))) == 1
        for layer in network.layers
        if isinstance(layer, nn.Conv2d)
        for size in (layer.kernel_size, layer.stride, layer.padding)
    )


def _check(layer: nn.Module, shape: tuple[int, ...], name: str) -> None:
    if isinstance(layer, nn.MaxPool2d):
        size, stride, padding = sides(layer.kernel_size), sides(layer.stride), sides(layer.padding)
        if size != stride or padding != (0, 0) or size[0] != size[1] or shape[1] % size[0] or shape[2] % size[1]:
            raise Unsupported(
                f"{name}: auto_LiRPA has backward bounds for max pooling only where square windows lie side by side "
                f"and cover the image without padding, not for windows of {size}, stride {stride}, padding {padding} "
                f"on {shape[1]}x{shape[2]}; ibp does it."
            )


def _plain(layer: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """A convolution without groups and dilation in place of those with, and of average pooling; else a copy."""
    if isinstance(layer, nn.AvgPool2d):
        kernel = sides(layer.kernel_size)
        weight = torch.eye(shape[0], dtype=torch.float64)[:, :, None, None].expand(-1, -1, *kernel)
        weight = weight / (kernel[0] * kernel[1])
        return _convolution(weight, torch.zeros(shape[0], dtype=torch.float64), layer)
    if not isinstance(layer, nn.Conv2d) or (layer.groups == 1 and sides(layer.dilation) == (1, 1)):
        return deepcopy(layer)
    dilation, (outputs, inputs, *size) = sides(layer.dilation), layer.weight.shape
    spread = [dilation[axis] * (size[axis] - 1) + 1 for axis in (0, 1)]
    weight = layer.weight.new_zeros(outputs, inputs * layer.groups, *spread)
    for group in range(layer.groups):
        rows = slice(group * (outputs // layer.groups), (group + 1) * (outputs // layer.groups))
        columns = slice(group * inputs, (group + 1) * inputs)
        weight[rows, columns, :: dilation[0], :: dilation[1]] = layer.weight[rows]
    assert layer.bias is not None  # noqa: S101  (of every convolution of a Network)
    return _convolution(weight, layer.bias, layer)


def _convolution(weight: Tensor, bias: Tensor, like: nn.Conv2d | nn.AvgPool2d) -> nn.Conv2d:
    stride, padding = sides(like.stride), sides(like.padding)
    kernel = (weight.shape[2], weight.shape[3])
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], kernel, stride, padding, dtype=weight.dtype)
    layer.weight.data, layer.bias.data = weight.detach().clone(), bias.detach().clone()  # type: ignore[union-attr]
    return layer


def _starts_affine(network: Network) -> bool:
    """Whether all that reads the input, or the flattened input, is linear or convolution layers."""
    inputs = {0}
    for number, (layer, sources) in enumerate(zip(network.layers, network.sources, strict=True)):
        if not inputs.isdisjoint(sources):
            if isinstance(layer, nn.Flatten):
                inputs.add(number + 1)
            elif not isinstance(layer, (nn.Linear, nn.Conv2d)):
                return False
    return len(network.layers) not in inputs


def _identity(shape: tuple[int, ...]) -> nn.Module:
    if len(shape) == 1:
        linear = nn.Linear(shape[0], shape[0])
        linear.weight.data, linear.bias.data = torch.eye(shape[0]), torch.zeros(shape[0])
        return linear
    if len(shape) == 3:
        weight = torch.eye(shape[0])[:, :, None, None].clone()
        return _convolution(weight, torch.zeros(shape[0]), nn.AvgPool2d(1))
    raise Unsupported(
        f"auto_LiRPA bounds inputs of shape {list(shape)} in l1 and l2 only where a linear layer comes first; "
        "native-crown does it."
    )
