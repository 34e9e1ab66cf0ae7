"""Members of one architecture as one network: fewer and wider layers, for evaluation."""

import functools
from collections.abc import Callable, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ensembles.architectures import Classifier, Normalize

#: A network of several members: from inputs [batch, *shape] to the logits [member, batch, classes].
Fused = Callable[[Tensor], Tensor]

#: Convolutions with more output channels fill the vector units by themselves; fused they were as fast or slower.
WIDEST = 16

#: Layers that treat each channel, or each unit, alone.
_EACH = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Identity, nn.Dropout)


def fused(members: Sequence[nn.Module]) -> Fused | None:
    """`fused_network` of the members where that is faster than they are one by one, and else None.

    It is where there are convolutions, and none with more than `WIDEST` outputs: a rule by sizes, and no measurement,
    because the two may add in different orders and a run that is resumed has to find the same votes. `bench/perf`
    measures that the rule is right. Networks without convolutions gain less, and lose bits: the logits of an `mlp` of
    256 units in batches of 100 were others when fused, where those of convolutional networks were the same.
    """
    for member in members[:1]:
        widths = [layer.out_channels for layer in _layers(member) if isinstance(layer, nn.Conv2d)]
        if widths and max(widths) <= WIDEST:
            return fused_network(members)
    return None


def fused_network(members: Sequence[nn.Module]) -> Fused | None:
    """One network with the members' logits, or None where there is none.

    First convolutions, which read the same input, become one with all their filters; later ones become one in groups,
    linear layers one product of stacked matrices, and 2x2 max pooling three maxima without the indices that only
    training needs. The logits equal the members' own up to the order of summation, and were the same bits where both
    use the same kernels. The weights are copied: a network that is fused and then changed has to be fused again.

    It is for members of `architectures.create` in eval mode, with equal layers and normalisation, without hooks. With
    gradients on, use the members.
    """
    if len(members) < 2:
        return None
    chains = [_layers(member) for member in members]
    steps: list[Callable[[Tensor], Tensor]] = []
    where = "shared"
    for alike in zip(*chains, strict=True) if len({len(chain) for chain in chains}) == 1 else ():
        found = _step(alike, where)
        if found is None:
            return None
        step, where = found
        steps.append(step)
    if where != "apart":
        return None
    return functools.partial(_chained, steps)


def _chained(
    steps: Sequence[Callable[[Tensor], Tensor]], x: Float[Tensor, "batch *shape"]
) -> Float[Tensor, "member batch classes"]:
    for step in steps:
        x = step(x)
    return x


def _layers(member: nn.Module) -> list[nn.Module]:
    """The layers of a member in their order; none of one that is not read so simply."""
    if (
        type(member) is not Classifier
        or "forward" in vars(member)
        or any(each.training or each._forward_hooks or each._forward_pre_hooks for each in member.modules())
        or type(member.body) is not nn.Sequential
    ):
        return []
    return [member.normalize, *member.body, member.head]


def _step(alike: Sequence[nn.Module], where: str) -> tuple[Callable[[Tensor], Tensor], str] | None:
    """One layer of all members, and how its outputs lie; None if the layers differ or are not known.

    Outputs are `shared` by all members [batch, *shape], or `stacked` [batch, member x channels, height, width], or
    `apart` [member, batch, units].
    """
    first, count = alike[0], len(alike)
    kinds = {type(layer) for layer in alike}
    if len(kinds) != 1 or len({repr(layer) for layer in alike}) != 1:
        return None
    if isinstance(first, Normalize):
        statistics = [(cast("Normalize", layer).mean, cast("Normalize", layer).std) for layer in alike]
        same = all(torch.equal(mean, first.mean) and torch.equal(std, first.std) for mean, std in statistics)
        return (first, where) if same and where == "shared" else None
    if kinds == {nn.Conv2d}:
        return _convolution([cast("nn.Conv2d", layer) for layer in alike], where)
    if kinds == {nn.Linear}:
        return _linear([cast("nn.Linear", layer) for layer in alike], where)
    if isinstance(first, nn.Flatten) and type(first) is nn.Flatten and (first.start_dim, first.end_dim) == (1, -1):
        if where == "stacked":
            return lambda x: x.reshape(len(x), count, -1).transpose(0, 1), "apart"
        return (first, where) if where == "shared" else None
    if kinds == {nn.MaxPool2d} and where != "apart":
        return (_halved if _is_halving(cast("nn.MaxPool2d", first)) else first), where
    # In place it would overwrite the input that all members share.
    if kinds == {nn.ReLU}:
        return (torch.relu if where == "shared" else torch.relu_), where
    return (first, where) if type(first) in _EACH else None


def _convolution(layers: list[nn.Conv2d], where: str) -> tuple[Callable[[Tensor], Tensor], str] | None:
    first = layers[0]
    if where == "apart" or first.padding_mode != "zeros" or (where == "shared" and first.groups != 1):
        return None
    # A memory layout in which convolutions of small images run faster.
    weight = torch.cat([layer.weight for layer in layers]).contiguous(memory_format=torch.channels_last)
    bias = None if first.bias is None else torch.cat([cast("Tensor", layer.bias) for layer in layers])
    groups = 1 if where == "shared" else first.groups * len(layers)
    settings = {"stride": first.stride, "padding": first.padding, "dilation": first.dilation, "groups": groups}
    return functools.partial(functional.conv2d, weight=weight, bias=bias, **settings), "stacked"


def _linear(layers: list[nn.Linear], where: str) -> tuple[Callable[[Tensor], Tensor], str] | None:
    if where == "stacked":
        return None
    weight = torch.stack([layer.weight for layer in layers]).transpose(1, 2).contiguous()
    bias = weight.new_zeros(1) if layers[0].bias is None else torch.stack([layer.bias for layer in layers])[:, None]
    return functools.partial(_multiplied, weight, bias), "apart"


def _multiplied(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return torch.baddbmm(bias, x if x.ndim == 3 else x.expand(len(weight), *x.shape), weight)


def _is_halving(pool: nn.MaxPool2d) -> bool:
    two = ((2, 2), 2)
    plain = pool.padding in (0, (0, 0)) and pool.dilation in (1, (1, 1))
    return pool.kernel_size in two and pool.stride in two and plain and not (pool.ceil_mode or pool.return_indices)


def _halved(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels half_height half_width"]:
    """`max_pool2d(x, 2)`; NaN wins, as there."""
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    rows = torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])
