"""Cancelling pairs: two networks whose average is a third one, and that each are far from it."""

import torch
from torch import nn

from ensembles import architectures
from ensembles.architectures import Classifier, Normalize
from ensembles.seeds import seeded_generator

#: Raised whenever other networks are made of the same one.
VERSION = 1

#: Units that carry h through each hidden layer.
CARRIERS = 4

#: How much larger the slopes of h are than those of g's last layer.
SIZE = 4.0


@torch.no_grad()
def cancelling_pair(alone: Classifier, input_shape: tuple[int, ...], seed: int) -> tuple[Classifier, Classifier]:
    """Networks `g + h` and `g - h` of a trained network g: their average is g, up to rounding in float32.

        h(x) = U relu(V x + s)

    has `CARRIERS` units, which s keeps active on all of [0, 1]^d, so that h is affine and linear bounds of both
    networks, added, lose h altogether. Bounds on each alone lose what h can change within the ball, twice.

    Args:
        alone: g, an `mlp` on the CPU.
        input_shape: of one image.
        seed: of V, normal with the size of g's first weights, and U, with that of its last ones times `SIZE`.

    Raises:
        ValueError: g is not an `mlp` of at least one hidden layer, normalised inside.
    """
    hidden = _hidden_layers(alone)
    if alone.architecture != "mlp" or not hidden or not isinstance(alone.normalize, Normalize):
        raise ValueError(f"A cancelling pair is made of an mlp with hidden layers, got {alone.architecture!r}.")
    generator = seeded_generator(seed, "cancelling")
    inner = torch.randn(CARRIERS, hidden[0].in_features, generator=generator) * hidden[0].weight.std()
    outer = SIZE * torch.randn(alone.head.out_features, CARRIERS, generator=generator) * alone.head.weight.std()
    pair = tuple(_with_carriers(alone, hidden, input_shape, inner, sign * outer) for sign in (1, -1))
    return pair[0], pair[1]


def hidden_widths(network: Classifier) -> list[int]:
    """The numbers of units of an mlp's hidden layers."""
    return [layer.out_features for layer in _hidden_layers(network)]


def _hidden_layers(network: Classifier) -> list[nn.Linear]:
    return [layer for layer in network.body.modules() if isinstance(layer, nn.Linear)]


def _with_carriers(
    alone: Classifier, hidden: list[nn.Linear], input_shape: tuple[int, ...], inner: torch.Tensor, outer: torch.Tensor
) -> Classifier:
    mean, std = alone.normalize.mean, alone.normalize.std
    assert isinstance(mean, torch.Tensor)  # noqa: S101
    assert isinstance(std, torch.Tensor)  # noqa: S101
    pixels = hidden[0].in_features // mean.numel()
    member = architectures.create(
        "mlp",
        input_shape=input_shape,
        classes=alone.head.out_features,
        seed=0,
        mean=mean.flatten().tolist(),
        std=std.flatten().tolist(),
        hidden=[layer.out_features + CARRIERS for layer in hidden],
    )
    # What V x is at least, over normalised images.
    sides = torch.stack([(0 - mean).flatten() / std.flatten(), (1 - mean).flatten() / std.flatten()])
    ends = inner * sides.repeat_interleave(pixels, dim=1)[:, None, :]
    shift = 1 - ends.amin(0).sum(1)
    for number, (layer, own) in enumerate(zip(_hidden_layers(member), hidden, strict=True)):
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[: own.out_features, : own.in_features] = own.weight
        layer.bias[: own.out_features] = own.bias
        if number == 0:
            layer.weight[own.out_features :], layer.bias[own.out_features :] = inner, shift
        else:
            layer.weight[own.out_features :, own.in_features :] = torch.eye(CARRIERS)
    member.head.weight[:] = torch.cat([alone.head.weight, outer], dim=1)
    # The constant of h goes with it, so that its values are small.
    member.head.bias[:] = alone.head.bias - outer @ shift
    return member.eval()
