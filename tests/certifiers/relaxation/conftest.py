"""Small models of every known layer, and points of their balls."""

import copy
import functools

import pytest
import torch
from torch import Tensor, nn

from certifiers import Norm, ThreatModel
from certifiers.networks import Network, prepare
from certifiers.relaxation import Ball
from ensembles.architectures import Normalize

SHAPE = (2, 6, 6)
KINDS = ["mlp", "conv", "residual", "max pooling", "avg pooling", "batch norm"]


class Residual(nn.Module):
    """A strided block with a projection."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *(nn.Conv2d(channels, wider, 3, stride=2, padding=1), nn.BatchNorm2d(wider), nn.ReLU()),
            nn.Conv2d(wider, wider, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(channels, wider, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


def model(kind: str, seed: int) -> nn.Module:
    """A classifier of three classes in float64, normalised inside, whose batch norms are not the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        normalize = Normalize([0.3, 0.6], [0.5, 0.4], 3)
        layers: dict[str, list[nn.Module]] = {
            "mlp": [nn.Flatten(), nn.Linear(72, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU()],
            "conv": [
                *(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 2, groups=2), nn.ReLU()),
                nn.Flatten(),
            ],
            "residual": [
                nn.Conv2d(2, 3, 3, padding=1),
                nn.ReLU(),
                Residual(3, 4),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            ],
            "max pooling": [
                *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), nn.MaxPool2d(2)),
                *(nn.ReLU(), nn.Flatten()),
            ],
            "avg pooling": [
                *(nn.Conv2d(2, 4, 3, dilation=2, padding=2), nn.ReLU(), nn.AvgPool2d(3, stride=2, padding=1)),
                *(nn.Conv2d(4, 4, 2), nn.ReLU(), nn.Flatten()),
            ],
            "batch norm": [
                *(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4)),
                *(nn.Conv2d(4, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten()),
            ],
        }
        body = nn.Sequential(normalize, *layers[kind]).double().eval()
        for layer in body.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.copy_(torch.randn(layer.num_features))
                layer.running_var.copy_(torch.rand(layer.num_features) + 0.2)
                layer.weight.data.copy_(torch.randn(layer.num_features))
        features = body(torch.zeros(1, *SHAPE).double()).shape[1]
        head = nn.Linear(features, 3).double()
        head.weight.data *= 3
    return nn.Sequential(body, head)


def images(count: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points(ball: Ball, count: int, seed: int) -> Tensor:
    """[count, batch, *shape]: inputs of each ball, its corners and its inside, cut to the box."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, len(ball), ball.center[0].numel())
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    if ball.norm is Norm.LINF:
        unit = torch.where(torch.arange(count)[:, None, None] % 2 == 0, normal.sign(), 2 * uniform - 1)
    elif ball.norm is Norm.L2:
        unit = normal / torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
    else:
        # Few or many pixels at once.
        kept = uniform <= torch.rand((count, 1, 1), generator=generator, dtype=torch.float64) ** 3
        sparse = normal * (kept | (uniform == uniform.amin(-1, keepdim=True)))
        unit = sparse / sparse.abs().sum(-1, keepdim=True)
    delta = (ball.radius[:, None] * unit).reshape(count, *ball.center.shape)
    return (ball.center + (1 - 1e-12) * delta).clamp(0, 1)


@functools.lru_cache(maxsize=256)
def read_once(kind: str, seed: int) -> Network:
    """What was read of a model, which takes longer than most of what is done with it; to be copied."""
    with torch.no_grad():
        (network,) = prepare(model(kind, seed), images(1)).networks
    return network


RADII = {Norm.LINF: (0.01, 0.08), Norm.L2: (0.05, 0.5), Norm.L1: (0.1, 2.0)}


class Models:
    """The functions above, for test modules, which cannot import each other."""

    KINDS = KINDS
    SHAPE = SHAPE
    images = staticmethod(images)
    model = staticmethod(model)
    points = staticmethod(points)

    @staticmethod
    def network(kind: str, seed: int) -> Network:
        """What was read of a model; a new one in every call, of which nothing was computed before."""
        return copy.deepcopy(read_once(kind, seed))

    @staticmethod
    def ball(norm: Norm, seed: int, count: int = 2) -> Ball:
        """A small ball and a large one."""
        small, large = RADII[norm]
        radius = torch.linspace(small, large, count, dtype=torch.float64)
        return Ball.around(images(count, seed), radius, ThreatModel(norm))


@pytest.fixture
def models() -> type[Models]:
    """Small models, and points of balls."""
    return Models
