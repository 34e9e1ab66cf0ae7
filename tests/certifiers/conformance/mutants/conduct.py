"""Mutants whose bounds are right, and which break the contract: deadlines, batches, seeds, what they leave behind."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from certifiers import (
    KeyedRandomness,
    ThreatModel,
    Verdict,
)
from certifiers.decision import Inquiry
from ensembles.parameters import PositiveFloat
from tests.certifiers.conformance.mutants.honest import Intervals


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


#: Each mutant, and the check that catches it.
CAUGHT_BY: dict[type[Any], str] = {
    DeadlineIsCertified: "out-of-time",
    TimeoutIsCertified: "interrupted",
    StaleBounds: "linear-two-classes",
    FailureIsFalsified: "known-robust",
    BestOfTheBatch: "batches",
    GlobalRandomness: "same-seed",
    ForgottenHook: "undisturbed",
    LearnsAsItGoes: "parameters",
}
