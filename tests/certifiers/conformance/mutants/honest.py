"""Honest certifiers, each step of them a method that a mutant can get wrong."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from certifiers import (
    DecisionCertifier,
    KeyedRandomness,
    Norm,
    RadiusCertifier,
    ThreatModel,
    Unsupported,
)
from ensembles import Ensemble, Single, WeightedAverage
from ensembles.architectures import Normalize


def layers_of(network: nn.Module) -> Iterator[nn.Module]:
    """Layers of nested sequences that the certifiers here understand."""
    if type(network) is nn.Sequential:
        for child in network:
            yield from layers_of(child)
    elif type(network) in (nn.Flatten, nn.Linear, nn.ReLU, nn.Dropout, nn.BatchNorm1d, Normalize):
        yield network
    else:
        raise Unsupported(f"the layer {type(network).__name__} is not known here; use milp")


@dataclass(frozen=True, kw_only=True)
class Intervals(DecisionCertifier):
    """Honest interval bounds, the last layer merged with the margins; ensembles of logits by their members' bounds."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.LINF})

    def margins(
        self,
        classifier: nn.Module,
        x: Tensor,
        prediction: Tensor,
        radius: Tensor,
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Tensor:
        if not isinstance(classifier, Ensemble):
            return self.finished(self.network(classifier, x, prediction, radius))
        aggregation, members = classifier.aggregation, classifier.used_members()
        if isinstance(aggregation, Single):
            return self.finished(self.network(members[0], x, prediction, radius))
        if aggregation.of != "logit":
            raise Unsupported("only logits are aggregated here")
        bounds = torch.stack([self.network(member, x, prediction, radius) for member in members])
        if isinstance(aggregation, WeightedAverage):
            given = aggregation.weights or (1.0,) * len(members)
            weights = torch.tensor(given, dtype=torch.float64) / sum(given)
            return self.finished(self.averaged(bounds, weights, prediction))
        return self.finished(self.max_margin(bounds, prediction))

    def averaged(self, bounds: Tensor, weights: Tensor, prediction: Tensor) -> Tensor:
        return torch.einsum("m,mbc->bc", weights, bounds)

    def max_margin(self, bounds: Tensor, prediction: Tensor) -> Tensor:
        """Yang et al., ICLR 2022, Lemma B.1."""
        least = bounds.scatter(2, prediction[None, :, None].expand(len(bounds), -1, 1), torch.inf).amin(2)
        return (least.amax(0) + least.amin(0))[:, None].expand(bounds.shape[1:])

    def finished(self, bounds: Tensor) -> Tensor:
        return bounds

    def network(self, network: nn.Module, x: Tensor, prediction: Tensor, radius: Tensor) -> Tensor:
        layers = list(layers_of(network))
        if not isinstance(layers[-1], nn.Linear):
            raise Unsupported("the last layer must be linear")
        size = radius.double().reshape(-1, *(1 for _ in x.shape[1:]))
        center, width = x.double(), size.expand(x.shape)
        for layer in layers[:-1]:
            center, width = self.through(layer, center, width, layer is layers[0])
        weight, bias = layers[-1].weight.double(), layers[-1].bias.double()
        rows = weight[prediction][:, None] - weight
        middle = torch.einsum("bci,bi->bc", rows, center) + bias[prediction][:, None] - bias
        return middle - torch.einsum("bci,bi->bc", self.absolute(rows), width)

    def through(self, layer: nn.Module, center: Tensor, width: Tensor, first: bool) -> tuple[Tensor, Tensor]:
        if isinstance(layer, nn.Flatten):
            return center.flatten(1), width.flatten(1)
        if isinstance(layer, nn.Linear):
            weight = layer.weight.double()
            return center @ weight.T + self.bias(layer), width @ self.absolute(weight).T
        if isinstance(layer, nn.ReLU):
            lower, upper = (center - width).clamp(min=0), (center + width).clamp(min=0)
            return (lower + upper) / 2, (upper - lower) / 2
        if isinstance(layer, Normalize):
            return (center - layer.mean.double()) / layer.std.double(), self.normalized(width, layer)
        if isinstance(layer, nn.BatchNorm1d):
            return self.batch_norm(layer, center, width)
        return self.dropout(layer, center, width)

    def bias(self, layer: nn.Linear) -> Tensor:
        return layer.bias.double()

    def absolute(self, weight: Tensor) -> Tensor:
        return weight.abs()

    def normalized(self, width: Tensor, layer: Normalize) -> Tensor:
        return width / layer.std.double()

    def batch_norm(self, layer: nn.BatchNorm1d, center: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        scale = layer.weight.double() / (layer.running_var.double() + layer.eps).sqrt()
        return (center - layer.running_mean.double()) * scale + layer.bias.double(), width * scale.abs()

    def dropout(self, layer: nn.Module, center: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        return center, width


@dataclass(frozen=True, kw_only=True)
class LayerNorms(RadiusCertifier):
    """Honest: the margin over the product of the spectral norms of the layers, in l2."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})

    def radii(self, classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Any:
        layers = self.counted([layer for layer in layers_of(classifier) if isinstance(layer, nn.Linear)])
        if any(isinstance(layer, (Normalize, nn.BatchNorm1d)) for layer in layers_of(classifier)):
            raise Unsupported("normalisation is not known here; use lipschitz")
        scores = deepcopy(classifier).double()(x.double())
        prediction = scores.argmax(1)
        weight = layers[-1].weight.double()
        constant = (weight[prediction][:, None] - weight).norm(dim=2)
        for layer in layers[:-1]:
            constant = constant * self.spectral_norm(layer.weight.double())
        # Less the error of the scores.
        gaps = scores.gather(1, prediction[:, None]) - scores - 1e-13 * scores.abs().amax(1, keepdim=True)
        radii = (gaps / (constant * (1 + 1e-12))).scatter(1, prediction[:, None], torch.inf)
        limit = threat.box_diameter(x[0].numel())
        return self.reported(radii.amin(1).clamp(max=limit))

    def counted(self, layers: list[nn.Linear]) -> list[nn.Linear]:
        return layers

    def spectral_norm(self, weight: Tensor) -> Tensor:
        return torch.linalg.matrix_norm(weight, ord=2)

    def reported(self, radii: Tensor) -> Any:
        return radii
