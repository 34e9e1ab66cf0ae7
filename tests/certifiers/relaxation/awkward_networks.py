"""Networks that auto_LiRPA bounds rightly only when they are rewritten."""

import torch
from torch import Tensor, nn


class Awkward(nn.Module):
    """Layers that auto_LiRPA 0.3 gets wrong if they are handed to it as they are."""

    def __init__(self, *layers: nn.Module, features: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(features, 3))
            for parameter in self.parameters():
                parameter.data = torch.randn(parameter.shape) * 0.4

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


AWKWARD = {
    "groups": Awkward(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 4, 2, groups=4), features=36),
    "dilation": Awkward(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, dilation=2), features=24),
    "overlapping averages": Awkward(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, 1), nn.Conv2d(4, 6, 3)), features=24
    ),
    "padded averages": Awkward(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(4, 6, 2)), features=24
    ),
    "averages first": Awkward(nn.AvgPool2d(2, 1), nn.Conv2d(2, 4, 2), features=64),
    "maxima first": Awkward(nn.MaxPool2d(2), nn.Conv2d(2, 4, 2), features=16),
    "ReLU first": Awkward(nn.ReLU(), nn.Conv2d(2, 4, 3), features=64),
    "uneven strides": Awkward(
        *(nn.Conv2d(2, 4, (3, 2), (2, 1), (1, 0)), nn.ReLU(), nn.Conv2d(4, 4, (2, 3), (1, 2), (0, 1))), features=24
    ),
    "uneven padding": Awkward(*(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=(1, 0))), features=12),
    "shift inside": Awkward(
        *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)), features=64
    ),
}
