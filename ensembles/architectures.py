"""Architectures by name: small feed-forward classifiers with the input normalisation inside.

Each is a `Classifier`: `normalize`, then `body` (up to the penultimate features), then a linear `head`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ensembles.registry import Registry


class Normalize(nn.Module):
    """`(x - mean) / std` a channel, with the statistics as buffers of the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], dimensions: int) -> None:
        super().__init__()
        shape = (-1, *(1 for _ in range(dimensions - 1)))
        self.register_buffer("mean", torch.tensor(mean).reshape(shape))
        self.register_buffer("std", torch.tensor(std).reshape(shape))
        if not bool((self.std > 0).all()):
            raise ValueError(f"Normalize: every std must be positive, got {list(std)}.")

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *shape"]:
        """The normalised input."""
        return (x - self.mean) / self.std


class Classifier(nn.Module):
    """`head(body(normalize(x)))`: inputs [batch, *shape] in [0, 1] to logits [batch, classes]."""

    def __init__(self, name: str, normalize: nn.Module, body: nn.Module, head: nn.Linear, version: int = 1) -> None:
        super().__init__()
        self.architecture = name
        self.version = version
        self.normalize = normalize
        self.body = body
        self.head = head

    def features(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch features"]:
        """The penultimate features."""
        return cast("Tensor", self.body(self.normalize(x)))

    def forward(self, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch classes"]:
        """The logits."""
        return cast("Tensor", self.head(self.features(x)))

    def extra_repr(self) -> str:
        """The architecture's name, and its version beyond the first: they take part in the digest of the weights."""
        return f"architecture={self.architecture!r}" + (f", version={self.version}" if self.version != 1 else "")


#: From an input shape (channels, height, width) and options, the layers up to the penultimate features.
Body = Callable[..., nn.Sequential]

_registry: Registry[Body] = Registry("architecture", "certbench.architectures")
register = _registry.register


def origin(name: str) -> str:
    """Where a name comes from: certbench, or the package that provides it."""
    return _registry.origin(name)


def names() -> list[str]:
    """The names `create` knows."""
    return _registry.names()


def resolve(name: str) -> str:
    """The listed spelling of a name; raises `UnknownNameError` with the nearest right name."""
    return _registry.resolve(name)


def get(name: str) -> Body:
    """The function that builds the body of that name; raises `UnknownNameError` with the nearest right name."""
    return _registry.get(name)


def version_of(name: str) -> int:
    """The attribute `version` of the function that builds the body, 1 where it has none.

    To be raised whenever the same weights compute something else: recipes and digests of weights differ by it.

    Raises:
        UnknownNameError: no architecture has that name.
    """
    return int(getattr(get(name), "version", 1))


def create(
    name: str,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    **options: Any,
) -> Classifier:
    """A freshly initialised classifier, the same for the same seed; the global generator is left alone.

    Args:
        name: one of `names()`.
        input_shape: (channels, height, width).
        classes: number of classes.
        seed: 32-bit seed of the initial weights.
        mean: a channel, in input units, subtracted inside the model.
        std: a channel, in input units, divided by inside the model.
        options: of the architecture, such as `hidden = (100, 100)` of `mlp`.

    Raises:
        UnknownNameError: no architecture has that name.
        ValueError: the inputs are too small, an option is unknown or not allowed, or the statistics do not fit.
    """
    if not {len(mean), len(std)} <= {1, input_shape[0]}:
        raise ValueError(
            f"mean and std need one value or {input_shape[0]}, one a channel, got {len(mean)} and {len(std)}."
        )
    build, name = _registry.get(name), _registry.resolve(name)  # one spelling, one digest of the weights
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed the accelerators as well
        try:
            body = build(input_shape, **options).eval()  # in eval mode a forward pass leaves batch norms as they are
            with torch.no_grad():
                features = body(torch.zeros(1, *input_shape)).shape[-1]
            body.train()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"Architecture {name!r} cannot be built for inputs of shape {tuple(input_shape)} with options "
                f"{options}: {error}. Choose larger inputs, another architecture "
                f"({', '.join(names())}) or other options."
            ) from error
        head = nn.Linear(features, classes)
    return Classifier(name, Normalize(mean, std, len(input_shape)), body, head, version_of(name))


@_registry.register("mlp")
def mlp(input_shape: tuple[int, ...], hidden: Sequence[int] = (100, 100)) -> nn.Sequential:
    """Fully connected ReLU layers of the widths `hidden`."""
    width = functools.reduce(lambda left, right: left * right, input_shape)
    layers: list[nn.Module] = [nn.Flatten()]
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers)


@_registry.register("lenet5")
def lenet5(input_shape: tuple[int, ...]) -> nn.Sequential:
    """LeNet-5 with ReLU and max pooling: 6 and 16 channels, 120 and 84 units (LeCun et al., 1998).

    `relu(maxpool(x)) = maxpool(relu(x))`, with equal gradients, at a quarter of the work.
    """
    return nn.Sequential(
        *(nn.Conv2d(input_shape[0], 6, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(_flat_features(16, input_shape, lambda side: (side // 2 - 4) // 2), 120), nn.ReLU()),
        *(nn.Linear(120, 84), nn.ReLU()),
    )


@_registry.register("lenet")
def lenet(input_shape: tuple[int, ...]) -> nn.Sequential:
    """The LeNet of the certified-ensemble papers (Yang et al., ICLR 2022): 20 and 50 channels, 500 units."""
    return nn.Sequential(
        *(nn.Conv2d(input_shape[0], 20, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(
            nn.Linear(_flat_features(50, input_shape, lambda side: ((side - 4) // 2 - 4) // 2), 500),
            nn.ReLU(),
        ),
    )


@_registry.register("conv_small")
def conv_small(input_shape: tuple[int, ...]) -> nn.Sequential:
    """Two strided convolutions of 16 and 32 channels and 100 units (Wong & Kolter, ICML 2018)."""
    return nn.Sequential(
        *(nn.Conv2d(input_shape[0], 16, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(_flat_features(32, input_shape, lambda side: side // 2 // 2), 100), nn.ReLU()),
    )


def _flat_features(channels: int, input_shape: tuple[int, ...], side_after: Callable[[int], int]) -> int:
    """The width after flattening, from how the convolutions shrink a side of the image."""
    if len(input_shape) != 3:
        raise TypeError(f"convolutions need inputs of shape (channels, height, width), got {input_shape}")
    height, width = side_after(input_shape[1]), side_after(input_shape[2])
    if height < 1 or width < 1:
        raise RuntimeError("nothing is left of the image after the convolutions")
    return channels * height * width
