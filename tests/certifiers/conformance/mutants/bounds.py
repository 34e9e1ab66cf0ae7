"""Mutants that compute the bounds of a network wrongly."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ensembles.architectures import Normalize
from tests.certifiers.conformance.mutants.honest import Intervals


@dataclass(frozen=True, kw_only=True)
class RunnerUpOnly(Intervals):
    """Looks at the class with the second largest score and at no other."""

    def margins(self, classifier: nn.Module, x: Tensor, *rest: Any) -> Tensor:
        bounds = super().margins(classifier, x, *rest)
        runner_up = classifier(x).topk(2).indices[:, 1:]
        return torch.ones_like(bounds).scatter(1, runner_up, bounds.gather(1, runner_up))


@dataclass(frozen=True, kw_only=True)
class NormalizedEpsilon(Intervals):
    """Takes the radius for one of normalised inputs."""

    def normalized(self, width: Tensor, layer: Normalize) -> Tensor:
        return width


@dataclass(frozen=True, kw_only=True)
class TrainModeBatchNorm(Intervals):
    """Normalises by the statistics of the batch at hand, as batch norm does in training."""

    def batch_norm(self, layer: nn.BatchNorm1d, center: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        scale = layer.weight.double() / (center.var(0, unbiased=False) + layer.eps).sqrt()
        return (center - center.mean(0)) * scale + layer.bias.double(), width * scale.abs()


@dataclass(frozen=True, kw_only=True)
class TrainModeDropout(Intervals):
    """Leaves dropout on."""

    def dropout(self, layer: nn.Module, center: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        kept = torch.rand(center.shape, generator=torch.Generator().manual_seed(0)) >= layer.p
        return torch.where(kept, center / max(1 - layer.p, 1e-9), 0.0), torch.where(kept, width, 0.0)


@dataclass(frozen=True, kw_only=True)
class NaNIsCertified(Intervals):
    """Bounds that are not numbers become positive ones."""

    def finished(self, bounds: Tensor) -> Tensor:
        return bounds.nan_to_num(nan=1.0)


@dataclass(frozen=True, kw_only=True)
class NotAnyNegative(Intervals):
    """`not any(lb < 0)`: NaN and ties are not negative."""

    def finished(self, bounds: Tensor) -> Tensor:
        return torch.where((bounds < 0).any(1, keepdim=True), -1.0, torch.ones_like(bounds))


@dataclass(frozen=True, kw_only=True)
class SignError(Intervals):
    """Widths are multiplied by the weights, and not by their absolute values."""

    def absolute(self, weight: Tensor) -> Tensor:
        return weight


@dataclass(frozen=True, kw_only=True)
class ForgottenBias(Intervals):
    """Hidden layers without their biases."""

    def bias(self, layer: nn.Linear) -> Tensor:
        return torch.zeros_like(layer.bias.double())


#: Each mutant, and the check that catches it.
CAUGHT_BY: dict[type[Any], str] = {
    RunnerUpOnly: "linear-lowest-logit",
    NormalizedEpsilon: "linear-normalized",
    TrainModeBatchNorm: "linear-batch-norm",
    TrainModeDropout: "planted-dropout",
    NaNIsCertified: "overflow",
    NotAnyNegative: "corner",
    SignError: "linear-several-classes",
    ForgottenBias: "linear-large-biases",
}
