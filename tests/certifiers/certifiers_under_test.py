"""What outsiders write, and a classifier whose boundary is known."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from certifiers import KeyedRandomness, Norm, RadiusCertifier, ThreatModel

L2 = ThreatModel("l2")


@dataclass(frozen=True, kw_only=True)
class Half(RadiusCertifier):
    """What an outsider writes: a radius for `x -> (sum x, 1)`, whose boundary is where the pixels sum to 1."""

    norms: ClassVar[frozenset[Norm]] = frozenset({Norm.L1, Norm.L2})

    def radii(self, classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Tensor:
        scores = classifier(x)
        return (scores[:, 0] - scores[:, 1]).abs() / (x[0].numel() ** 0.5 if threat.norm is Norm.L2 else 1.0)


@dataclass(frozen=True, kw_only=True)
class Scripted(RadiusCertifier):
    """Answers, raises or disturbs as the test says."""

    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)
    script: Any = None

    def radii(self, classifier: nn.Module, x: Tensor, threat: ThreatModel, rng: KeyedRandomness) -> Any:
        return self.script(classifier, x, threat, rng)


class Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1)
        return torch.stack([total, torch.ones_like(total)], 1)
