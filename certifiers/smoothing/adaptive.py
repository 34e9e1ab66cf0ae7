"""Smoothing that stops as soon as its samples suffice, by a confidence sequence."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from certifiers.registry import register
from certifiers.smoothing.anytime import BettingSequence, ConfidenceSequence, UnionSequence, look_times
from certifiers.smoothing.gaussian_radius import gaussian_radius
from certifiers.smoothing.looking import Bound, LookingSmoothing
from certifiers.smoothing.stopping import optimistic_votes
from ensembles.parameters import ParameterError, PositiveInt

_SEQUENCES: dict[str, type[ConfidenceSequence]] = {"betting": BettingSequence, "union": UnionSequence}


@register("smoothing-adaptive")
@dataclass(frozen=True, kw_only=True)
class AdaptiveSmoothing(LookingSmoothing):
    """Randomized smoothing with cumulative samples under a confidence sequence (Voracek, NeurIPS 2024).

    The certificate is that of `smoothing`, `radius = sigma Phi^-1(p_A)`, with p_A the largest of the lower bounds at
    the looks so far. They hold together but for alpha, at whatever look the image stops; most of alpha is kept for
    the look at n, so that an image that uses all samples has nearly the radius of `smoothing`.

    A run can be *extended*: the same certifier with a higher `ceiling` meets the same samples, has the same bounds at
    the same looks, and goes on from there. Its certificates and those of the shorter run are wrong with probability
    alpha together, so the decision to extend may look at the results (`extended`).

    Attributes:
        bound: "betting" (a martingale, `BettingSequence`) or "union" (`UnionSequence`).
        ceiling: estimation samples at most; None: n. Looks are at `n 2^(j/4)`: the last is the last below it.
    """

    version: ClassVar[int] = 1

    bound: Literal["betting", "union"] = "betting"
    ceiling: PositiveInt | None = None

    def __post_init__(self) -> None:
        """Refuse a ceiling below n, where most of alpha would be kept for a look that never comes."""
        super().__post_init__()
        if self.ceiling is not None and self.ceiling < self.n:
            raise ParameterError(
                f"AdaptiveSmoothing: ceiling = {self.ceiling} is not allowed with n = {self.n}. It is at least n, "
                "where most of alpha is spent. For fewer samples lower n."
            )

    def extended(self, ceiling: int) -> "AdaptiveSmoothing":
        """This certifier with a higher ceiling, whose certificates hold together with its own at the same alpha.

        Raises:
            ParameterError: the ceiling is lower than its own.
        """
        if ceiling < (self.ceiling or self.n):
            raise ParameterError(
                f"AdaptiveSmoothing: a run of up to {self.ceiling or self.n} samples cannot be extended to {ceiling}. "
                "Give a larger number."
            )
        return dataclasses.replace(self, ceiling=ceiling)

    @property
    def form(self) -> str:
        """The confidence sequence."""
        return self.bound

    @property
    def sequence(self) -> ConfidenceSequence:
        """The bounds, which know nothing of the ceiling or of when to stop."""
        return _SEQUENCES[self.bound](self.n, self.alpha)

    def look_times(self) -> tuple[int, ...]:
        """Of the sequence, up to the ceiling."""
        return look_times(self.n, self.ceiling or self.n)

    def lower_bound(self, looks: Sequence[tuple[int, int]]) -> Bound:
        """The sequence's bound from all samples so far."""
        samples, votes = looks[-1]
        return Bound(self.sequence.lower(votes, samples), votes, samples)

    def reachable(self, looks: Sequence[tuple[int, int]]) -> float:
        """The larger of the bounds at n and at the last look, the ones with much of alpha."""
        samples, votes = looks[-1]
        return max(
            self.sequence.lower(votes + optimistic_votes(votes, samples, end - samples, self.futility), end)
            for end in {max(self.n, samples), self.look_times()[-1]}
        )

    def spent(self, samples: int) -> float:
        """By the sequence."""
        return self.sequence.spent(samples)

    def certificate_of_counts(self, n_a: int) -> tuple[float, float]:
        """`(p_A, radius)` in l2 from n_a votes among n at the look at n alone: what is certified is at least that."""
        p_a = self.sequence.lower(n_a, self.n)
        return p_a, gaussian_radius(p_a, self.sigma)
