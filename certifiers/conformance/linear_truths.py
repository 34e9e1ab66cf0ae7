"""Networks that are linear in disguise, with the radii of the closed form: what each shape of error gets wrong."""

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from certifiers.certificate import Norm, ThreatModel
from certifiers.conformance.truth import Truth, linear_layer
from ensembles.architectures import Normalize

#: The dual of each norm.
_DUAL = {Norm.L1: float("inf"), Norm.L2: 2.0, Norm.LINF: 1.0}
#: Channels, height and width of the images of `FAMILIES`.
SHAPE = (1, 2, 4)
INPUTS = 8


def affine_truth(name: str, network: nn.Module, x: Float64[Tensor, "batch *shape"], threat: ThreatModel) -> Truth:
    """The radii of a network that is affine: its map is read off at zero and the unit vectors, in eval mode.

        radius = min over j != y of (z_y(x) - z_j(x)) / ||w_y - w_j||_dual

    Args:
        name: of the truth.
        network: in float64; its modes are left as they are.
        x: images.
        threat: the norm.
    """
    modes = [(module, module.training) for module in network.modules()]
    units = torch.eye(x[0].numel(), dtype=torch.float64).reshape(-1, *x.shape[1:])
    with torch.no_grad():
        network.eval()
        bias = network(torch.zeros_like(units[:1]))[0]
        weight = (network(units) - bias).T
        scores = network(x)
    for module, mode in modes:
        module.training = mode
    answer = scores.argmax(1)
    norms = torch.linalg.vector_norm(weight[answer][:, None] - weight, ord=_DUAL[threat.norm], dim=-1)
    distances = (scores.gather(1, answer[:, None]) - scores) / norms
    return Truth(name, network, x, threat, answer, distances.scatter(1, answer[:, None], torch.inf).amin(1))


def lowest_logit(generator: torch.Generator, threat: ThreatModel, batch: int = 3) -> Truth:
    """Four classes of which the one with the lowest logit is the nearest: the gradient of its margin is the largest.

    Margins are 3/100, 4/100, 5/100 and the norms of the differences of weights 1, 1, 4: the radii 0.03, 0.04 and 0.0125
    in the norm of the threat.
    """
    order = _DUAL[threat.norm]
    differences = torch.randn(3, INPUTS, generator=generator, dtype=torch.float64)
    norms = torch.tensor([1.0, 1.0, 4.0], dtype=torch.float64)
    differences *= (norms / torch.linalg.vector_norm(differences, ord=order, dim=1))[:, None]
    weight = torch.cat([torch.zeros(1, INPUTS, dtype=torch.float64), -differences])
    weight += torch.randn(INPUTS, generator=generator, dtype=torch.float64)
    center = torch.full((INPUTS,), 0.5, dtype=torch.float64)
    bias = torch.tensor([0.0, -0.03, -0.04, -0.05], dtype=torch.float64) - weight @ center
    # Each class is the answer's turn once.
    turn = torch.randperm(4, generator=generator)
    x = 0.5 + 1e-3 * torch.randn(batch, *SHAPE, generator=generator, dtype=torch.float64)
    network = nn.Sequential(nn.Flatten(), linear_layer(weight[turn], bias[turn])).eval()
    return affine_truth("the lowest logit is the nearest", network, x, threat)


def two_classes(generator: torch.Generator, threat: ThreatModel, batch: int = 3) -> Truth:
    """Two classes: the closed form of the classifier smoothed by noise that is the same in all directions, too."""
    return _centred("two classes", [nn.Flatten()], INPUTS, 2, generator, threat, batch)


def several_classes(generator: torch.Generator, threat: ThreatModel, batch: int = 3) -> Truth:
    """Five classes."""
    return _centred("five classes", [nn.Flatten()], INPUTS, 5, generator, threat, batch)


def normalized(generator: torch.Generator, threat: ThreatModel, batch: int = 3) -> Truth:
    """Inputs are normalised inside the network, with a standard deviation of 1/8: radii are in units of the input."""
    layers = [Normalize([0.375], [0.125], len(SHAPE)).double(), nn.Flatten()]
    return _centred("normalised inputs", layers, INPUTS, 4, generator, threat, batch)


def batch_norm(generator: torch.Generator, threat: ThreatModel, batch: int = 3) -> Truth:
    """Batch norm in train mode; the statistics of any batch of the images are far larger than the running ones."""
    first = _random_layer(INPUTS, 6, generator)
    layer = nn.BatchNorm1d(6, eps=1e-12).double().eval()
    assert layer.running_mean is not None  # noqa: S101
    assert layer.running_var is not None  # noqa: S101
    with torch.no_grad():
        layer.weight.copy_(1e-3 * (0.5 + torch.rand(6, generator=generator)))
        layer.bias.copy_(torch.randn(6, generator=generator))
        layer.running_mean.copy_(first(torch.full((1, INPUTS), 0.5, dtype=torch.float64))[0])
        layer.running_var.copy_(1e-6 * (1 + torch.rand(6, generator=generator)))
    found = _centred("batch norm", [nn.Flatten(), first, layer], 6, 4, generator, threat, batch)
    found.classifier.train()
    return found


def dropout(generator: torch.Generator, threat: ThreatModel, batch: int = 3) -> Truth:
    """Dropout in train mode; in eval mode, which certificates speak of, it does nothing."""
    first = _random_layer(INPUTS, 6, generator)
    found = _centred("dropout", [nn.Flatten(), first, nn.Dropout(0.9).eval()], 6, 4, generator, threat, batch)
    found.classifier.train()
    return found


def hidden_direction(generator: torch.Generator, threat: ThreatModel, batch: int = 3) -> Truth:
    """Three layers whose norms multiply to that of the network, along a direction that power iteration finds slowly.

    All ReLUs are active on the box. Singular values are 1, once, and 0.9; the second layer and the difference of the
    classes lie along the first.
    """
    rotations = [
        torch.linalg.qr(torch.randn(INPUTS, INPUTS, generator=generator, dtype=torch.float64)).Q for _ in range(3)
    ]
    scale = torch.full((INPUTS,), 0.9, dtype=torch.float64)
    scale[0] = 1.0
    first = rotations[1] @ torch.diag(scale) @ rotations[0].T
    second = rotations[2] @ torch.diag(scale) @ rotations[1].T
    # Biases so large that all ReLUs are active on the box: the smallest input of one is at least 1.
    largest, layers = torch.ones(INPUTS, dtype=torch.float64), []
    for weight in (first, second):
        layers.append(linear_layer(weight, 1 + weight.abs() @ largest))
        largest = 1 + 2 * weight.abs() @ largest
    last = torch.stack([torch.zeros(INPUTS, dtype=torch.float64), rotations[2][:, 0]])
    body = nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1], nn.ReLU())
    center = body(torch.full((1, *SHAPE), 0.5, dtype=torch.float64))[0].detach()
    head = linear_layer(last, torch.tensor([0.0, -0.05], dtype=torch.float64) - last @ center)
    x = 0.5 + 1e-3 * torch.randn(batch, *SHAPE, generator=generator, dtype=torch.float64)
    return affine_truth("a hidden direction", nn.Sequential(*body, head).eval(), x, threat)


def repeated_layer(generator: torch.Generator, threat: ThreatModel, batch: int = 3) -> Truth:
    """One layer that occurs twice, twice a permutation: who counts it once has twice the radius."""
    permutation = torch.eye(INPUTS, dtype=torch.float64)[torch.randperm(INPUTS, generator=generator)]
    layer = linear_layer(2 * permutation, torch.ones(INPUTS, dtype=torch.float64))
    layers = [nn.Flatten(), layer, nn.ReLU(), layer, nn.ReLU()]
    return _centred("a layer that occurs twice", layers, INPUTS, 2, generator, threat, batch)


def large_biases(generator: torch.Generator, threat: ThreatModel, batch: int = 3) -> Truth:
    """Two layers with biases of the order of ten, which keep all ReLUs active on the box and cancel at the images."""
    first = _random_layer(INPUTS, 6, generator)
    with torch.no_grad():
        first.bias.abs_().add_(10)
    return _centred("large biases", [nn.Flatten(), first, nn.ReLU()], 6, 4, generator, threat, batch)


def convolution(generator: torch.Generator, threat: ThreatModel, batch: int = 3) -> Truth:
    """A convolution with zero padding and a linear layer."""
    layer = nn.Conv2d(1, 2, 3, padding=1, dtype=torch.float64, device="meta").to_empty(device="cpu")
    assert layer.bias is not None  # noqa: S101
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64) / 3)
        layer.bias.copy_(torch.randn(2, generator=generator, dtype=torch.float64))
    return _centred("a convolution", [layer, nn.Flatten()], 2 * INPUTS, 4, generator, threat, batch)


def _random_layer(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) / inputs**0.5
    return linear_layer(weight, torch.randn(outputs, generator=generator, dtype=torch.float64))


def _centred(
    name: str,
    layers: list[nn.Module],
    features: int,
    classes: int,
    generator: torch.Generator,
    threat: ThreatModel,
    batch: int,
) -> Truth:
    """Layers and a last one whose biases make all logits small in the middle of the box: the boundaries are near."""
    head = _random_layer(features, classes, generator)
    network = nn.Sequential(*layers, head).eval()
    near = 0.02 * torch.randn(classes, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        head.bias.add_(near - network(torch.full((1, *SHAPE), 0.5, dtype=torch.float64))[0])
    x = 0.5 + 0.02 * torch.rand(batch, *SHAPE, generator=generator, dtype=torch.float64)
    # Multiples of 1/1024: some certifiers are for inputs on a grid alone.
    return affine_truth(name, network, (x * 1024).round() / 1024, threat)


#: Every family, by name; the first is true of smoothed classifiers, too.
FAMILIES: dict[str, Callable[..., Truth]] = {
    "two-classes": two_classes,
    "several-classes": several_classes,
    "lowest-logit": lowest_logit,
    "normalized": normalized,
    "batch-norm": batch_norm,
    "dropout": dropout,
    "hidden-direction": hidden_direction,
    "repeated-layer": repeated_layer,
    "large-biases": large_biases,
    "convolution": convolution,
}
#: Families that are a half-space everywhere: noise that is the same in all directions leaves its boundary where it is.
HALF_SPACES = frozenset({"two-classes"})
#: Families whose images are asked for together.
IN_A_BATCH = frozenset({"batch-norm"})
