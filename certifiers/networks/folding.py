"""Scales and shifts folded into neighbouring layers: normalisation, batch norm, and arithmetic with constants."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from certifiers.certificate import Unsupported
from certifiers.networks.network import Network, Shift


class Scale(nn.Module):
    """`scale * x + shift`, broadcast over one sample: on its way into a neighbouring layer."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale.detach().double().clone(), requires_grad=False)
        self.shift = nn.Parameter(shift.detach().double().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """The scaled and shifted value."""
        return self.scale * x + self.shift


@dataclass
class _Step:
    """A layer while the network is rearranged; values are named by the step that makes them, None is the input."""

    layer: nn.Module
    sources: list["_Step | None"]
    name: str
    shape: tuple[int, ...]


def folded(network: Network) -> Network:
    """The same function without `Scale`.

    A scale goes into the linear or convolution layer before it, if nothing else reads that layer, or into the one
    after it, and otherwise becomes a 1x1 convolution a channel or a diagonal linear layer. The shift before a padded
    convolution is different at the border, and becomes a `Shift` after it.

    Raises:
        Unsupported: a scale differs between the pixels of a channel.
    """
    steps: list[_Step] = []
    made: list[_Step | None] = [None]
    for number, (layer, sources, name) in enumerate(zip(network.layers, network.sources, network.names, strict=True)):
        steps.append(_Step(layer, [made[source] for source in sources], name, network.shapes[number + 1]))
        made.append(steps[-1])
    input_shape = network.shapes[0]
    while (step := next((one for one in steps if isinstance(one.layer, Scale)), None)) is not None:
        source = step.sources[0]
        readers = _readers(steps, source)
        if source is not None and len(readers) == 1 and _into_previous(step, source, steps):
            continue
        if _into_next(step, steps, source.shape if source is not None else input_shape):
            continue
        step.layer = _as_layer(step, source.shape if source is not None else input_shape)
    numbers: dict[int, int] = {id(step): number + 1 for number, step in enumerate(steps)}
    return Network(
        [step.layer for step in steps],
        [tuple(0 if source is None else numbers[id(source)] for source in step.sources) for step in steps],
        [step.name for step in steps],
        [input_shape, *(step.shape for step in steps)],
    )


def _readers(steps: Iterable[_Step], value: _Step | None) -> list[_Step]:
    return [step for step in steps for source in step.sources if source is value]


def _remove(step: _Step, steps: list[_Step]) -> None:
    """Let what read a step read what it read."""
    for reader in _readers(steps, step):
        reader.sources = [step.sources[0] if source is step else source for source in reader.sources]
    steps.remove(step)


def _into_previous(step: _Step, source: _Step, steps: list[_Step]) -> bool:
    """Fold a scale into the affine layer that it reads, if that is one."""
    layer, scale = source.layer, step.layer
    assert isinstance(scale, Scale)  # noqa: S101
    if isinstance(layer, Scale):
        layer.shift.data = scale.scale * layer.shift + scale.shift
        layer.scale.data = scale.scale * layer.scale
    elif isinstance(layer, (nn.Linear, nn.Conv2d)):
        channels = _per_channel(scale, source.shape)
        if channels is None:
            return False
        factor, offset = channels
        layer.weight.data = layer.weight * factor.reshape(-1, *(1 for _ in layer.weight.shape[1:]))
        bias_of(layer).data = bias_of(layer) * factor + offset
    elif isinstance(layer, Shift):
        # scale * (x + offset) + shift: the scale goes on to what is shifted, if it can.
        before = source.sources[0]
        unshifted = _Step(Scale(scale.scale, torch.zeros_like(scale.shift)), [before], step.name, step.shape)
        if before is None or len(_readers(steps, before)) != 1 or not _into_previous(unshifted, before, [unshifted]):
            return False
        layer.offset.data = scale.scale * layer.offset + scale.shift
    else:
        return False
    _remove(step, steps)
    return True


def _into_next(step: _Step, steps: list[_Step], shape: tuple[int, ...]) -> bool:
    """Fold a scale into the affine layer that alone reads it, past a flattening, if that is one."""
    scale = step.layer
    assert isinstance(scale, Scale)  # noqa: S101
    readers = _readers(steps, step)
    if len(readers) != 1:
        return False
    (reader,) = readers
    flatten = None
    if isinstance(reader.layer, nn.Flatten):
        flatten, after = reader, _readers(steps, reader)
        if len(after) != 1:
            return False
        (reader,) = after
    layer = reader.layer
    if isinstance(layer, Scale) and flatten is None:
        layer.shift.data = layer.scale * scale.shift + layer.shift
        layer.scale.data = layer.scale * scale.scale
    elif isinstance(layer, nn.Linear):
        factor, offset = (part.expand(shape).reshape(-1) for part in (scale.scale, scale.shift))
        layer.bias.data = layer.bias + layer.weight @ offset
        layer.weight.data = layer.weight * factor
    elif isinstance(layer, nn.Conv2d) and flatten is None:
        channels = _per_channel(scale, shape)
        if channels is None:
            return False
        factor, offset = channels
        everywhere = offset[:, None, None].expand(shape)[None]
        border = layer(everywhere)[0] - bias_of(layer)[:, None, None]
        groups = factor.reshape(layer.groups, -1)
        per_output = groups.repeat_interleave(len(layer.weight) // layer.groups, dim=0)
        layer.weight.data = layer.weight * per_output[:, :, None, None]
        if any(layer.padding) and bool(offset.any()):
            shifted = _Step(Shift(border), [reader], f"{step.name} at the border", reader.shape)
            for other in _readers(steps, reader):
                other.sources = [shifted if source is reader else source for source in other.sources]
            steps.insert(steps.index(reader) + 1, shifted)
        else:
            bias_of(layer).data = bias_of(layer) + border[:, 0, 0]
    else:
        return False
    _remove(step, steps)
    return True


def _as_layer(step: _Step, shape: tuple[int, ...]) -> nn.Module:
    """A scale that stays, as a layer of its own."""
    scale = step.layer
    assert isinstance(scale, Scale)  # noqa: S101
    channels = _per_channel(scale, shape)
    if channels is None or len(shape) not in (1, 3):
        raise Unsupported(
            f"{step.name}: it scales values of shape {list(shape)} differently within a channel, and no linear or "
            "convolution layer is next to it to take that up. Smoothing certifies any classifier."
        )
    factor, offset = channels
    layer: nn.Linear | nn.Conv2d
    if len(shape) == 1:
        layer = nn.Linear(shape[0], shape[0], dtype=torch.float64, device="meta").to_empty(device="cpu")
        layer.weight.data = torch.diag(factor)
    else:
        layer = nn.Conv2d(shape[0], shape[0], 1, groups=shape[0], dtype=torch.float64, device="meta")
        layer = layer.to_empty(device="cpu")
        layer.weight.data = factor.reshape(-1, 1, 1, 1).clone()
    bias_of(layer).data = offset.clone()
    return layer.requires_grad_(requires_grad=False)


def bias_of(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """The bias, which the layers of a network always have."""
    assert layer.bias is not None  # noqa: S101
    return layer.bias


def _per_channel(scale: Scale, shape: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
    """Factor and offset a channel (the first dimension of a sample), or None where they differ within one."""
    parts = []
    for part in (scale.scale, scale.shift):
        full = part.expand(shape).reshape(shape[0], -1)
        if bool((full != full[:, :1]).any()):
            return None
        parts.append(full[:, 0].clone())
    return parts[0], parts[1]
