"""Mutants of a certificate by Lipschitz constants."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from certifiers import (
    Findings,
    Norm,
)
from ensembles.parameters import PositiveInt
from tests.certifiers.conformance.mutants.honest import LayerNorms


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


#: Each mutant, and the check that catches it.
CAUGHT_BY: dict[type[Any], str] = {
    PowerIteration: "linear-hidden-direction",
    RepeatedLayerOnce: "linear-repeated-layer",
    AnyNorm: "linear-two-classes",
    TwoInOne: "batches",
}
