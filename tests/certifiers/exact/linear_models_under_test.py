"""Linear classifiers, and images for them."""

from typing import Any

import torch
from torch import Tensor, nn

from certifiers import Norm

NORMS = list(Norm)


def linear(weight: Any, bias: Any, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    weight, bias = torch.as_tensor(weight, dtype=dtype), torch.as_tensor(bias, dtype=dtype)
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype))
    with torch.no_grad():
        model[1].weight.copy_(weight)
        model[1].bias.copy_(bias)
    return model


def random_linear(classes: int, inputs: int, seed: int, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    return linear(
        torch.randn(classes, inputs, generator=generator), torch.randn(classes, generator=generator) / 2, dtype
    )


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))
