"""Small classifiers, and an attack that the certificates must withstand."""

import copy
import functools
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from certifiers import Norm
from ensembles import Ensemble
from ensembles.aggregation import Aggregation, MaxMargin, Single, WeightedAverage
from ensembles.architectures import Normalize

ORDER = {Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: math.inf}

AGGREGATIONS = [
    Single(),
    WeightedAverage(of="logit", weights=(1.0, 3.0, 2.0)),
    WeightedAverage(of="confidence"),
    MaxMargin(of="logit"),
    MaxMargin(of="confidence"),
]


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def mlp(*sizes: int, seed: int = 0, gain: float = 1.0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers += [*([nn.ReLU()] if number else []), nn.Linear(inputs, outputs)]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= gain
    return nn.Sequential(*layers).eval()


def conv(seed: int = 0) -> nn.Sequential:
    """For images of 1x8x8: strided and padded convolutions, both poolings, normalisation."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(Normalize((0.3,), (0.4,), 3), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6, 4)),
    ).eval()


class Residual(nn.Module):
    """For images of 1x8x8: batch norm, and blocks with and without a convolution on the shortcut."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4))
        self.first = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6))
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2)
        self.head = nn.Linear(6 * 4, 3)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean = torch.randn(layer.num_features) / 4
                layer.running_var = torch.rand(layer.num_features) + 0.5
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).relu()
        h = (h + self.first(h)).relu()
        h = (self.shortcut(h) + self.second(h)).relu()
        return self.head(h.flatten(1))


def ensemble(kind: str, aggregation: Aggregation) -> Ensemble:
    """Three members that are near each other, so that they mostly agree."""
    return Ensemble(near_each_other(kind), aggregation).eval()


@functools.cache
def near_each_other(kind: str) -> list[nn.Module]:
    """The members of every ensemble of a kind: each is read by the first certifier that asks for it, and no more."""
    makers: dict[str, Callable[[int], nn.Module]] = {
        "mlp": lambda seed: mlp(16, 12, 10, 4, seed=seed, gain=1.5),
        "conv": conv,
        "residual": Residual,
    }
    members = [makers[kind](seed) for seed in range(4)]
    for member in members[1:]:
        own = member.state_dict()
        member.load_state_dict(
            {
                key: base + 0.15 * own[key] if base.is_floating_point() and "std" not in key else base
                for key, base in members[0].state_dict().items()
            }
        )
    return members[1:]


def projected(delta: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """The nearest, or for l1 some, point of the ball."""
    flat = delta.flatten(1)
    if norm is Norm.LINF:
        return torch.minimum(torch.maximum(flat, -radius[:, None]), radius[:, None]).reshape(delta.shape)
    size = torch.linalg.vector_norm(flat, ord=ORDER[norm], dim=1).clamp(min=1e-300)
    return (flat * (radius / size).clamp(max=1)[:, None]).reshape(delta.shape)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of unit norm in which a linear function rises most."""
    flat = gradient.flatten(1)
    if norm is Norm.LINF:
        found = flat.sign()
    elif norm is Norm.L2:
        found = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-300)
    else:
        top = flat.abs().argmax(1, keepdim=True)
        found = torch.zeros_like(flat).scatter(1, top, flat.gather(1, top).sign())
    return found.reshape(gradient.shape)


def changed(classifier: nn.Module, x: Tensor, radius: Tensor, norm: Norm, steps: int = 12) -> Tensor:
    """For which images an attack finds another answer within the radius: random points, and projected gradients."""
    classifier = copy.deepcopy(classifier).double()
    x, radius = x.double(), radius.double()
    with torch.no_grad():
        answer = classifier(x).argmax(1)
    broken = torch.zeros(len(x), dtype=torch.bool)
    generator = torch.Generator().manual_seed(5)
    for attempt in range(8):
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        delta = torch.zeros_like(x) if attempt == 0 else projected(steepest(noise, norm) * 1e9, radius, norm)
        for _ in range(steps):
            point = (x + delta).requires_grad_()
            scores = classifier(point)
            broken |= scores.detach().argmax(1) != answer
            own = scores.gather(1, answer[:, None])[:, 0]
            others = scores.scatter(1, answer[:, None], -math.inf)
            target = others.amax(1) if attempt % 2 == 0 else others.gather(1, others.topk(2).indices[:, 1:])[:, 0]
            (gradient,) = torch.autograd.grad((target - own).sum(), point)
            each = radius.reshape(-1, *(1 for _ in x.shape[1:]))
            delta = projected(delta + each / 3 * steepest(gradient, norm), radius, norm)
        with torch.no_grad():
            broken |= classifier(x + delta).argmax(1) != answer
    return broken
