"""Mistakes of an ensemble of smoothed members."""

from dataclasses import dataclass, replace

from torch import Tensor

from certifiers.smoothing import (
    EnsembleAfterSmoothing,
    MemberBounds,
    clopper_pearson_lower,
    clopper_pearson_upper,
)
from ensembles.parameters import PositiveFloat, PositiveInt
from tests.certifiers.conformance.smoothing_mutants.honest import Mutant


@dataclass(frozen=True, kw_only=True)
class AlphaForEachMember(EnsembleAfterSmoothing):
    """Every member's bound at the whole alpha, as if one of them were certified."""

    sigma: PositiveFloat = 0.5
    n: PositiveInt = 1000

    def bounds(self, selection: Tensor, estimation: Tensor) -> MemberBounds:
        shared = super().bounds(selection, estimation)
        least = tuple(
            clopper_pearson_lower(own, self.n, self.alpha) if same else 0.0
            for own, same in zip(shared.votes, shared.agrees, strict=True)
        )
        most = tuple(
            1 - low if same else clopper_pearson_upper(rival, self.n, self.alpha)
            for low, rival, same in zip(least, shared.rivals, shared.agrees, strict=True)
        )
        return replace(shared, least=least, most=most)


@dataclass(frozen=True, kw_only=True)
class BestMember(EnsembleAfterSmoothing):
    """The radius of the surest member, as if no other could become surer."""

    sigma: PositiveFloat = 0.5
    n: PositiveInt = 1000

    def certificate_of_bounds(self, bounds: MemberBounds) -> tuple[float, float, float]:
        _, largest, smallest = super().certificate_of_bounds(bounds)
        return max(0.0, largest), largest, smallest


#: Mistake, certifier, and checks that each catch it alone.
MUTANTS: tuple[Mutant, ...] = (
    ("alpha not shared by the members", AlphaForEachMember(), ("calibration-members",)),
    ("the best member's radius for the ensemble", BestMember(), ("calibration-members",)),
)
