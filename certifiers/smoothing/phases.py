"""Smoothing in phases of fresh samples, with alpha split between them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NoReturn

import pydantic

from certifiers.certificate import Unsupported
from certifiers.registry import register
from certifiers.smoothing.anytime import cached_clopper_pearson
from certifiers.smoothing.looking import Bound, LookingSmoothing
from certifiers.smoothing.stopping import optimistic_votes
from ensembles.parameters import ParameterError, Probability


@register("smoothing-phases")
@dataclass(frozen=True, kw_only=True)
class PhasedSmoothing(LookingSmoothing):
    """Randomized smoothing in s phases of fresh samples at alpha / s each (Horvath et al., ICLR 2022, CertifyAdp).

    Phase j draws its own samples, forgets those of the phases before, and has the bound of Clopper and Pearson at
    alpha / s. By the union bound all s hold together but for alpha, so the largest of them is a p_A and

        radius = sigma * Phi^-1(p_A)   in l2, if p_A > 1/2; else it abstains.

    Between phases an image stops as `LookingSmoothing` says. The paper decides one radius, and gives it up where an
    upper confidence bound at a significance of its own is too small for it; `futility` takes that place.
    `smoothing-adaptive` counts all samples in all looks and needs fewer of them. A run cannot be extended: all of
    alpha is spent by the last phase.

    Attributes:
        shares: of n in each phase, which add up to 1; a phase without a sample is left out, and has no alpha.
    """

    version: ClassVar[int] = 1

    shares: Annotated[tuple[Probability, ...], pydantic.Field(min_length=1)] = (0.01, 0.1, 0.89)

    def __post_init__(self) -> None:
        """Refuse shares that are not parts of one whole."""
        super().__post_init__()
        if abs(sum(self.shares) - 1) > 1e-9:
            raise ParameterError(
                f"PhasedSmoothing: shares = {self.shares} is not allowed. They are parts of n and add up to 1, "
                f"these to {sum(self.shares):g}."
            )

    def extended(self, n: int) -> NoReturn:
        """Refused: no alpha is left for more phases.

        Raises:
            Unsupported: always; names the certifier whose runs can be extended.
        """
        raise Unsupported(
            f"a run of smoothing-phases with n = {self.n} cannot be extended to {n}: all of its alpha is spent. "
            "Use smoothing-adaptive, which keeps some for later looks."
        )

    @property
    def form(self) -> str:
        """One bound a phase."""
        return "phases"

    def look_times(self) -> tuple[int, ...]:
        """The ends of the phases, in samples."""
        ends = [round(self.n * sum(self.shares[: phase + 1])) for phase in range(len(self.shares) - 1)]
        return tuple(sorted({end for end in ends if end > 0} | {self.n}))

    def phase_bound(self, votes: int, samples: int) -> float:
        """The bound of one phase, from its own samples."""
        return cached_clopper_pearson(votes, samples, self.alpha / len(self.look_times()))

    def lower_bound(self, looks: Sequence[tuple[int, int]]) -> Bound:
        """The bound of the last phase."""
        before, hits = looks[-2] if len(looks) > 1 else (0, 0)
        samples, votes = looks[-1][0] - before, looks[-1][1] - hits
        return Bound(self.phase_bound(votes, samples), votes, samples)

    def reachable(self, looks: Sequence[tuple[int, int]]) -> float:
        """What the phases to come may prove, if they go on as all samples so far let one hope."""
        samples, votes = looks[-1]
        ends = [time for time in self.look_times() if time >= samples]
        return max(
            self.phase_bound(optimistic_votes(votes, samples, own, self.futility), own)
            for own in (end - start for start, end in itertools.pairwise(ends))
        )

    def spent(self, samples: int) -> float:
        """Alpha / s a phase."""
        times = self.look_times()
        return self.alpha * sum(time <= samples for time in times) / len(times)
