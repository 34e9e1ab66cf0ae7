"""Mutants that draw a false conclusion from the bounds of an ensemble's members."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from certifiers import (
    KeyedRandomness,
    ThreatModel,
)
from ensembles import Ensemble
from tests.certifiers.conformance.mutants.honest import Intervals


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


#: Each mutant, and the check that catches it.
CAUGHT_BY: dict[type[Any], str] = {
    FirstSureMember: "corner-in-one-member",
    MaxMarginIsAverage: "corner-in-one-member",
    NoMemberChanges: "corner-in-the-sum",
}
