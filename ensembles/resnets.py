"""Residual networks (He et al., CVPR 2016): of the CIFAR kind (resnet18, resnet20, resnet110) and resnet50 of ImageNet.

Each is a body, up to the pooled features: a flat sequence of stem, `ResidualBlock`s and pooling that takes images of
any size. Convolutions have no bias and start from `N(0, 2 / (kernel height * kernel width * out channels))` (He et
al., ICCV 2015, Eq. 14), batch norms from weight 1 and bias 0: as in the smoothing code of Cohen et al. and in
torchvision. ReLUs are not in place, so that bounds and gradients can be taken at any layer.
"""

from collections.abc import Callable, Iterator
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ensembles.architectures import register
from ensembles.registry import did_you_mean

#: What carries a block's input past it where the shape changes: a strided 1x1 convolution with batch norm (option B
#: of He et al.), or every other pixel and zeros for the new channels (option A).
Shortcut = Literal["projection", "padding"]

#: From channels in, channels out and stride, the residual branch of a block.
Branch = Callable[[int, int, int], nn.Sequential]


class ResidualBlock(nn.Module):
    """`relu(branch(x) + shortcut(x))`: He et al., CVPR 2016, Eq. 1 and 2."""

    def __init__(self, branch: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch wider lower narrower"]:
        """The block's output."""
        return cast("Tensor", self.relu(self.branch(x) + self.shortcut(x)))


class PaddedShortcut(nn.Module):
    """Option A of He et al., CVPR 2016, section 3.3: the identity, subsampled, with zeros as its new last channels.

    Written as a 1x1 convolution with a constant kernel (a buffer, not in the state), which computes it exactly and
    is a layer that every bounding method knows.
    """

    kernel: Tensor

    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("kernel", torch.eye(wider, channels)[..., None, None], persistent=False)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch wider lower narrower"]:
        """`x[:, :, ::stride, ::stride]`, followed by channels of zeros."""
        return nn.functional.conv2d(x, self.kernel, stride=self.stride)

    def extra_repr(self) -> str:
        """The shape, which takes part in the digest of the weights."""
        return f"{self.kernel.shape[1]}, {self.kernel.shape[0]}, stride={self.stride}"


@register("resnet18")
def resnet18(input_shape: tuple[int, ...], width: int = 64) -> nn.Sequential:
    """ResNet-18 for small images: 3x3 stem, no max pooling, stages of `width` times 1, 2, 4 and 8, two blocks each.

    `width = 4` is the scaled-down network that LPD certifies (Wu et al., section 4.4). Shortcuts are projections;
    8 * width features.
    """
    if isinstance(width, bool) or width < 1:
        raise ValueError(f"width must be a positive integer, got {width!r}")
    stages = _stages(_basic, width, [width, 2 * width, 4 * width, 8 * width], [2, 2, 2, 2], "projection")
    return _body(_convolution(_channels(input_shape), width, 3, 1), stages)


@register("resnet20")
def resnet20(input_shape: tuple[int, ...], shortcut: str = "projection") -> nn.Sequential:
    """ResNet-20 of CIFAR (He et al., CVPR 2016, section 4.2, n = 3): 16, 32 and 64 channels; see `resnet110`."""
    return _cifar(input_shape, 3, shortcut)


@register("resnet110")
def resnet110(input_shape: tuple[int, ...], shortcut: str = "projection") -> nn.Sequential:
    """ResNet-110 of CIFAR (He et al., CVPR 2016, section 4.2, n = 18): 16, 32 and 64 channels.

    `shortcut = "projection"` (option B) is what the smoothing code of Cohen et al. and the works built on it train,
    and so the default; `"padding"` (option A, without parameters) is what He et al. report.
    """
    return _cifar(input_shape, 18, shortcut)


@register("resnet50")
def resnet50(input_shape: tuple[int, ...]) -> nn.Sequential:
    """ResNet-50 of ImageNet: 7x7 stem of stride 2, max pooling, bottlenecks 3, 4, 6, 3; 2048 features.

    He et al., CVPR 2016, Table 1, with the stride in the 3x3 convolution of a bottleneck, as torchvision has it.
    """
    stem = [*_convolution(_channels(input_shape), 64, 7, 2), nn.MaxPool2d(3, stride=2, padding=1)]
    return _body(stem, _stages(_bottleneck, 64, [256, 512, 1024, 2048], [3, 4, 6, 3], "projection"))


def _cifar(input_shape: tuple[int, ...], blocks: int, shortcut: str) -> nn.Sequential:
    if shortcut not in get_args(Shortcut):
        raise ValueError(
            f"shortcut = {shortcut!r} is not known. {did_you_mean(str(shortcut), get_args(Shortcut))}"
            f"Available: {', '.join(get_args(Shortcut))}"
        )
    stages = _stages(_basic, 16, [16, 32, 64], [blocks] * 3, cast("Shortcut", shortcut))
    return _body(_convolution(_channels(input_shape), 16, 3, 1), stages)


def _channels(input_shape: tuple[int, ...]) -> int:
    if len(input_shape) != 3:
        raise ValueError(f"convolutions need inputs of shape (channels, height, width), got {input_shape}")
    return input_shape[0]


def _body(stem: list[nn.Module], stages: Iterator[nn.Module]) -> nn.Sequential:
    """Stem, stages and pooling, initialised."""
    body = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):  # batch norms start from weight 1 and bias 0 by themselves
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return body


def _stages(
    branch: Branch, channels: int, widths: list[int], blocks: list[int], shortcut: Shortcut
) -> Iterator[nn.Module]:
    """The blocks of all stages; every stage but the first starts by halving height and width."""
    for stage, (wider, count) in enumerate(zip(widths, blocks, strict=True)):
        for number in range(count):
            stride = 2 if stage > 0 and number == 0 else 1
            yield ResidualBlock(branch(channels, wider, stride), _shortcut(channels, wider, stride, shortcut))
            channels = wider


def _shortcut(channels: int, wider: int, stride: int, shortcut: Shortcut) -> nn.Module:
    if channels == wider and stride == 1:
        return nn.Identity()
    if shortcut == "padding":
        return PaddedShortcut(channels, wider, stride)
    return nn.Sequential(nn.Conv2d(channels, wider, 1, stride=stride, bias=False), nn.BatchNorm2d(wider))


def _basic(channels: int, wider: int, stride: int) -> nn.Sequential:
    """Two 3x3 convolutions."""
    return nn.Sequential(*_convolution(channels, wider, 3, stride), *_convolution(wider, wider, 3, 1)[:-1])


def _bottleneck(channels: int, wider: int, stride: int) -> nn.Sequential:
    """1x1, 3x3 and 1x1 convolutions, the first two with a quarter of the channels."""
    inner = wider // 4
    return nn.Sequential(
        *_convolution(channels, inner, 1, 1),
        *_convolution(inner, inner, 3, stride),
        *_convolution(inner, wider, 1, 1)[:-1],
    )


def _convolution(channels: int, wider: int, size: int, stride: int) -> list[nn.Module]:
    """Convolution with `same` padding, batch norm, ReLU."""
    convolution = nn.Conv2d(channels, wider, size, stride=stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(wider), nn.ReLU()]
