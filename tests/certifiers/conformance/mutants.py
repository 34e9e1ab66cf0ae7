"""Certifiers that are broken on purpose, one line each, and the honest ones that they were made from.

`certify` is final and sanitises, so a mutant is an author's method: what is wrong with it survives sanitising.
"""

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from certifiers import (
    DecisionCertifier,
    Findings,
    KeyedRandomness,
    Norm,
    RadiusCertifier,
    ThreatModel,
    Unsupported,
    Verdict,
)
from certifiers.conformance import attack
from certifiers.decision import Inquiry
from ensembles import Ensemble, Single, WeightedAverage
from ensembles.architectures import Normalize
from ensembles.parameters import PositiveFloat, PositiveInt


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


@dataclass(frozen=True, kw_only=True)
class DeadlineIsCertified(Intervals):
    """Images for which time ran out pass as certified."""

    time_limit: PositiveFloat = 60.0

    def margins(self, *question: Any) -> Tensor:
        started = time.perf_counter()
        bounds = super().margins(*question)
        return torch.ones_like(bounds) if time.perf_counter() - started > self.time_limit else bounds


@dataclass(frozen=True, kw_only=True)
class TimeoutIsCertified(Intervals):
    """A classifier that raises TimeoutError has not contradicted."""

    def margins(self, classifier: nn.Module, x: Tensor, prediction: Tensor, *rest: Any) -> Tensor:
        try:
            classes = classifier(x).shape[1]
        except TimeoutError:
            return torch.ones(len(x), 2)
        bounds = super().margins(classifier, x, prediction, *rest)
        assert bounds.shape[1] == classes
        return bounds


@dataclass(frozen=True, eq=False)
class _First(Inquiry):
    ask: Any
    known: list[Tensor]

    def margins(self, radius: Tensor) -> Tensor:
        if not self.known:
            self.known.append(self.ask(radius))
        return self.known[0]


@dataclass(frozen=True, kw_only=True)
class StaleBounds(Intervals):
    """Keeps the bounds of the first radius of a search for all later ones."""

    def inquiry(
        self,
        classifier: nn.Module,
        x: Tensor,
        prediction: Tensor,
        threat: ThreatModel,
        rng: KeyedRandomness,
        questions: int,
    ) -> Inquiry:
        return _First(lambda radius: self.margins(classifier, x, prediction, radius, threat, rng), [])


@dataclass(frozen=True, kw_only=True)
class FirstSureMember(Intervals):
    """A cascade of members: the first that is sure answers for the ensemble."""

    def averaged(self, bounds: Tensor, weights: Tensor, prediction: Tensor) -> Tensor:
        return self.max_margin(bounds, prediction)

    def max_margin(self, bounds: Tensor, prediction: Tensor) -> Tensor:
        least = bounds.scatter(2, prediction[None, :, None].expand(len(bounds), -1, 1), torch.inf).amin(2)
        return least.amax(0)[:, None].expand(bounds.shape[1:])


@dataclass(frozen=True, kw_only=True)
class MaxMarginIsAverage(Intervals):
    """Bounds the average where the member with the largest gap decides."""

    def max_margin(self, bounds: Tensor, prediction: Tensor) -> Tensor:
        return bounds.mean(0)


@dataclass(frozen=True, kw_only=True)
class NoMemberChanges(Intervals):
    """Certifies an ensemble where no member changes its own answer."""

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
            return super().margins(classifier, x, prediction, radius, threat, rng)
        found = []
        for member in classifier.used_members():
            own = member(x).argmax(1)
            bounds = self.network(member, x, own, radius)
            found.append(bounds.scatter(1, own[:, None], torch.inf).amin(1))
        classes = classifier(x).shape[1]
        return torch.stack(found).amin(0)[:, None].expand(len(x), classes)


@dataclass(frozen=True, kw_only=True)
class FailureIsFalsified(Intervals):
    """Reports what it cannot prove as refuted."""

    def inquiry(self, *question: Any, **options: Any) -> Inquiry:
        from certifiers.decision import Report

        inner = super().inquiry(*question, **options)
        count = len(question[1])

        class Reporting(Inquiry):
            def margins(self, radius: Tensor) -> Tensor:
                return inner.margins(radius)

            def report(self) -> Report:
                return Report(verdict=torch.full((count,), int(Verdict.FALSIFIED)))

        return Reporting()


@dataclass(frozen=True, kw_only=True)
class BestOfTheBatch(Intervals):
    """All images of a batch get the bounds of the first."""

    def finished(self, bounds: Tensor) -> Tensor:
        return bounds.amax(0, keepdim=True).expand(bounds.shape)


@dataclass(frozen=True, kw_only=True)
class GlobalRandomness(Intervals):
    """Loses a random part of each bound, drawn from the global generator."""

    def finished(self, bounds: Tensor) -> Tensor:
        return bounds - 0.1 * torch.rand(bounds.shape) * bounds.abs()


@dataclass(frozen=True, kw_only=True)
class ForgottenHook(Intervals):
    """Reads activations by a hook, and leaves it there."""

    def margins(self, classifier: nn.Module, *rest: Any) -> Tensor:
        classifier.register_forward_hook(lambda *_: None)
        return super().margins(classifier, *rest)


@dataclass(frozen=True, kw_only=True)
class LearnsAsItGoes(Intervals):
    """Changes its own parameters."""

    scale: PositiveFloat = 1.0

    def finished(self, bounds: Tensor) -> Tensor:
        object.__setattr__(self, "scale", self.scale * 0.5)
        return bounds * self.scale


@dataclass(frozen=True, kw_only=True)
class AttackIsProof(DecisionCertifier):
    """Certifies what an attack does not refute."""

    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)

    def margins(
        self,
        classifier: nn.Module,
        x: Tensor,
        prediction: Tensor,
        radius: Tensor,
        threat: ThreatModel,
        rng: KeyedRandomness,
    ) -> Tensor:
        found = attack(classifier, x, prediction, radius, threat, steps=20, restarts=3).found
        classes = classifier(x).shape[1]
        return torch.where(found, -1.0, 1.0)[:, None].expand(len(x), classes)


@dataclass(frozen=True, kw_only=True)
class SamplingIsProof(DecisionCertifier):
    """Certifies what a thousand random inputs do not refute."""

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
        found = []
        for row in range(len(x)):
            noise = 2 * torch.rand((1000, *x.shape[1:]), generator=rng.generator(row), dtype=x.dtype) - 1
            scores = classifier((x[row] + radius[row].to(x.dtype) * noise).clamp(0, 1))
            found.append((scores[:, prediction[row], None] - scores).amin(0))
        return torch.stack(found)


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


@dataclass(frozen=True, kw_only=True)
class PowerIteration(LayerNorms):
    """Spectral norms by a few steps of power iteration, which come from below."""

    steps: PositiveInt = 5

    def spectral_norm(self, weight: Tensor) -> Tensor:
        v = torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for _ in range(self.steps):
            v = weight.T @ (weight @ v)
            v = v / v.norm()
        return (weight @ v).norm()


@dataclass(frozen=True, kw_only=True)
class RepeatedLayerOnce(LayerNorms):
    """Counts a layer that occurs twice once."""

    def counted(self, layers: list[nn.Linear]) -> list[nn.Linear]:
        return list(dict.fromkeys(layers))


@dataclass(frozen=True, kw_only=True)
class AnyNorm(LayerNorms):
    """Reports the radius in l2 in every norm."""

    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)


@dataclass(frozen=True, kw_only=True)
class TwoInOne(LayerNorms):
    """Reports half of the radius for the second image of a batch, and all of it for one that comes alone."""

    def reported(self, radii: Tensor) -> Any:
        return Findings(radius=radii * torch.where(torch.arange(len(radii)) == 1, 0.5, 1.0))


@dataclass(frozen=True, kw_only=True)
class GradientAtTheImage(RadiusCertifier):
    """The margin over the norm of its gradient at the image, as if it were linear."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L2})

    def radii(self, classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        with torch.enable_grad():
            images = x.clone().requires_grad_()
            top = classifier(images).topk(2).values
            gaps = top[:, 0] - top[:, 1]
            (gradient,) = torch.autograd.grad(gaps.sum(), images)
        constant = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
        return (gaps.detach() / constant).clamp(max=threat.box_diameter(x[0].numel()))


HONEST: Sequence[type[Any]] = (Intervals, LayerNorms)

#: Each mutant, and the check that catches it. Its honest parent passes that check.
CAUGHT_BY: dict[type[Any], str] = {
    RunnerUpOnly: "linear-lowest-logit",
    NormalizedEpsilon: "linear-normalized",
    TrainModeBatchNorm: "linear-batch-norm",
    TrainModeDropout: "planted-dropout",
    NaNIsCertified: "overflow",
    NotAnyNegative: "corner",
    SignError: "linear-several-classes",
    ForgottenBias: "linear-large-biases",
    DeadlineIsCertified: "out-of-time",
    TimeoutIsCertified: "interrupted",
    StaleBounds: "linear-two-classes",
    FirstSureMember: "corner-in-one-member",
    MaxMarginIsAverage: "corner-in-one-member",
    NoMemberChanges: "corner-in-the-sum",
    FailureIsFalsified: "known-robust",
    BestOfTheBatch: "batches",
    GlobalRandomness: "same-seed",
    ForgottenHook: "undisturbed",
    LearnsAsItGoes: "parameters",
    AttackIsProof: "needle",
    SamplingIsProof: "corner",
    PowerIteration: "linear-hidden-direction",
    RepeatedLayerOnce: "linear-repeated-layer",
    AnyNorm: "linear-two-classes",
    TwoInOne: "batches",
    GradientAtTheImage: "corner",
}
