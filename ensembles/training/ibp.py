"""Interval bound propagation: the members learn on the worst logits of a box around each input."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import pydantic
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear

from ensembles.architectures import Classifier, Normalize
from ensembles.ensemble import Ensemble
from ensembles.parameters import NonNegativeFloat, NonNegativeInt
from ensembles.training.objective import Objective, register

#: Layers that raise their outputs when their inputs rise: each end of an interval goes through by itself.
_RISING = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten)

#: A lower and an upper bound, an entry at a time.
Interval = tuple[Float[Tensor, "batch *shape"], Float[Tensor, "batch *shape"]]


@register("ibp")
@dataclass(frozen=True, kw_only=True)
class IBP(Objective):
    """`sum_i kappa CE(f_i(x), y) + (1 - kappa) CE(worst_i, y)`: Gowal et al., ICCV 2019, section 3.

    The worst logits over the box `|x' - x| <= epsilon`, cut to [0, 1], are upper bounds on `f_j - f_y`, 0 for j = y. An
    affine layer maps center c and half width d to `W c + b` and `|W| d`; the last one is merged with the differences of
    classes. Noise of `sigma` moves the box as a whole. Nothing couples the members, so they are trained one by one.

    Epochs up to `warmup_epochs` have epsilon 0 and kappa 1; over the next `ramp_epochs` epsilon rises linearly to its
    value and kappa falls linearly to `kappa_end`. The loss of the objective itself is that of the end.

    Members may have Linear, Conv2d, ReLU, pooling, Flatten, Normalize, and Dropout and BatchNorm2d in eval mode.

    Attributes:
        epsilon: half the side of the box, in input units.
        warmup_epochs: of plain training.
        ramp_epochs: over which the box grows.
        kappa_end: weight of the clean inputs at the end.
    """

    name: ClassVar[str] = "ibp"
    joint: ClassVar[bool] = False

    epsilon: NonNegativeFloat = 0.1
    warmup_epochs: NonNegativeInt = 0
    ramp_epochs: NonNegativeInt = 0
    kappa_end: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.5

    def at_epoch(self, epoch: int) -> "IBP":
        """With the epsilon and kappa of that epoch, counted from 1.

        With `t = min(1, (epoch - warmup_epochs) / ramp_epochs)`, or 0 during the warm-up, epsilon is `t epsilon` and
        kappa is `1 - t (1 - kappa_end)`.
        """
        share = min(1.0, max(0, epoch - self.warmup_epochs) / max(1, self.ramp_epochs))
        return replace(self, epsilon=share * self.epsilon, kappa_end=1 - share * (1 - self.kappa_end))

    def terms(
        self,
        ensemble: Ensemble,
        x: Float[Tensor, "batch *shape"],
        y: Int[Tensor, "batch"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """`cross_entropy` of the inputs, and `worst_case`.

        Raises:
            ValueError: a member has a layer that intervals are not known for; says which.
        """
        noise = self.noisy(torch.zeros_like(x), generator)
        box = ((x - self.epsilon).clamp(min=0) + noise, (x + self.epsilon).clamp(max=1) + noise)
        clean = [cross_entropy(member(x + noise), y) for member in ensemble.members]
        worst = [cross_entropy(worst_logits(member, box, y), y) for member in ensemble.members]
        return {
            "cross_entropy": self.kappa_end * torch.stack(clean).sum(),
            "worst_case": (1 - self.kappa_end) * torch.stack(worst).sum(),
        }


def worst_logits(member: nn.Module, box: Interval, y: Int[Tensor, "batch"]) -> Float[Tensor, "batch classes"]:
    """Upper bounds on `f_j - f_y` over a box, 0 in column y.

    Raises:
        ValueError: a layer has no intervals here, or the last one is not linear.
    """
    layers = _layers(member)
    if not layers or not isinstance(layers[-1], nn.Linear):
        raise ValueError(
            f"Objective 'ibp' needs members that end in a Linear layer, got {type(member).__name__}. Use an "
            "architecture of this package, or another objective."
        )
    for layer in layers[:-1]:
        box = interval(layer, box)
    head, (lower, upper) = layers[-1], box
    difference = head.weight[None] - head.weight[y][:, None]
    worst = torch.einsum("bcf,bf->bc", difference, (lower + upper) / 2)
    worst = worst + torch.einsum("bcf,bf->bc", difference.abs(), (upper - lower) / 2)
    return worst if head.bias is None else worst + head.bias - head.bias[y][:, None]


def interval(layer: nn.Module, box: Interval) -> tuple[Float[Tensor, "batch *after"], Float[Tensor, "batch *after"]]:
    """What a layer makes of a box: an interval that holds its outputs for all inputs between the bounds.

    Raises:
        ValueError: it is not a layer that intervals are known for, or its batch norm or dropout is in train mode.
    """
    lower, upper = box
    if isinstance(layer, _RISING):
        return layer(lower), layer(upper)
    center, half = (lower + upper) / 2, (upper - lower) / 2
    if isinstance(layer, nn.Linear):
        middle, width = layer(center), linear(half, layer.weight.abs())
    elif isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
        middle = layer(center)
        width = conv2d(half, layer.weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups)
    elif isinstance(layer, Normalize):
        middle, width = layer(center), half / layer.std
    elif isinstance(layer, nn.BatchNorm2d) and not layer.training and layer.running_var is not None:
        scale = (layer.running_var + layer.eps).rsqrt() * (1 if layer.weight is None else layer.weight)
        middle, width = layer(center), half * scale.abs()[:, None, None]
    elif isinstance(layer, (nn.Identity, nn.Dropout, nn.Dropout2d)) and not (
        layer.training and not isinstance(layer, nn.Identity)
    ):
        return box
    else:
        mode = " in train mode" if layer.training and isinstance(layer, (nn.BatchNorm2d, nn.Dropout)) else ""
        raise ValueError(
            f"Objective 'ibp' knows no intervals of the layer {type(layer).__name__}{mode}. Known are Linear, Conv2d, "
            "ReLU, Tanh, Sigmoid, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Flatten and Normalize, and Dropout "
            "and BatchNorm2d in eval mode. Use an architecture without it (mlp, lenet, lenet5, conv_small)."
        )
    return middle - width, middle + width


def _layers(module: nn.Module) -> list[nn.Module]:
    """The layers of nested sequences and classifiers, in their order."""
    if isinstance(module, Classifier):
        return [layer for part in (module.normalize, module.body, module.head) for layer in _layers(part)]
    if isinstance(module, nn.Sequential):
        return [layer for part in module for layer in _layers(part)]
    return [module]
