"""SWEEN: weighted ensembles whose weights are fitted on held-out images."""

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ensembles.aggregation import Aggregation, WeightedAverage, register
from ensembles.parameters import ParameterError, PositiveFloat, PositiveInt

#: Mean log-likelihoods that differ by less are equal: they are sums of rounded logarithms.
_EQUAL = 1e-12


class NotFittedError(ParameterError):
    """An aggregation whose weights are still to be fitted was asked for scores."""


@register("sween")
@dataclass(frozen=True, kw_only=True)
class Sween(Aggregation):
    """Weights w >= 0, sum w = 1, that maximise `mean log sum_i w_i f_i(x + e)_y` on validation images.

    Liu et al. (2020) fit the weights of a smoothed ensemble by the likelihood of noisy images. `gradient` follows the
    ascent of this concave function (expectation-maximisation for mixture weights, which never leaves the simplex,
    with steps lengthened while they help) until it provably is within `tolerance` of the maximum; `grid` tries all
    weights that are multiples of `step` (Yang et al., 2022, appendix G.3, step 0.1). The result is a
    `WeightedAverage`, whose weights are part of the ensemble's identity.

    Attributes:
        method: `grid` or `gradient`.
        step: of the grid; 1 / step is rounded to a whole number.
        draws: noisy copies of each validation image.
        iterations: of `gradient`, at most.
        tolerance: of `gradient`, in units of the mean log-likelihood.
    """

    name: ClassVar[str] = "sween"

    method: Literal["grid", "gradient"] = "grid"
    step: PositiveFloat = 0.1
    draws: PositiveInt = 8
    iterations: PositiveInt = 10_000
    tolerance: PositiveFloat = 1e-9

    def scores(self, logits: Float[Tensor, "member batch classes"]) -> Float[Tensor, "batch classes"]:
        """Refused: the weights are not known before `fit`."""
        raise NotFittedError(
            "sween has no weights yet. Call fit(confidences, y) on validation images and use its result."
        )

    def fit(self, confidences: Float[Tensor, "member samples classes"], y: Int[Tensor, "samples"]) -> WeightedAverage:
        """The weighted average of confidences with the fitted weights, rounded to six decimals.

        Of weights that are equally good the grid takes the first in lexicographic order of the weights, from the
        most even first.
        """
        true = confidences.double()[:, torch.arange(len(y)), y].clamp(min=1e-12).cpu()
        weights = self._by_grid(true) if self.method == "grid" else self._by_ascent(true)
        return WeightedAverage(weights=tuple(round(float(weight), 6) for weight in weights))

    def _by_grid(self, true: Float[Tensor, "member samples"]) -> Tensor:
        parts = max(1, round(1 / self.step))
        members = len(true)
        # Every way to write `parts` as an ordered sum: bars between `parts` stars.
        counts = [
            tuple(after - before - 1 for before, after in itertools.pairwise((-1, *bars, parts + members - 1)))
            for bars in itertools.combinations(range(parts + members - 1), members - 1)
        ]
        # Even weights first, so that a tie is settled for the plain average, not for a single member.
        counts.sort(key=lambda combination: (sum(count * count for count in combination), combination))
        grid = torch.tensor(counts, dtype=true.dtype) / parts
        likelihood = torch.stack([(weights @ true).log().mean() for weights in grid])
        return grid[int((likelihood >= likelihood.max() - _EQUAL).int().argmax())]

    def _by_ascent(self, true: Float[Tensor, "member samples"]) -> Tensor:
        weights = torch.full((len(true),), 1 / len(true), dtype=true.dtype)
        likelihood, power = _likelihood(weights, true), 1.0
        for _ in range(self.iterations):
            # The mean of f_i / sum_j w_j f_j is the slope along w_i. Its weighted mean is 1, and the largest bounds
            # what is missing: log-likelihood at the maximum - here <= log(largest slope).
            slopes = (true / (weights @ true)).mean(1)
            if float(slopes.max().log()) <= self.tolerance:
                break
            # Members that agree make plain steps (power 1) tiny; a longer one is taken back where it overshoots.
            tried = _scaled(weights * slopes**power)
            if not _likelihood(tried, true) >= likelihood:
                power = 1.0
                tried = _scaled(weights * slopes)
            else:
                power *= 1.5
            weights, likelihood = tried, _likelihood(tried, true)
        return weights


def _likelihood(weights: Float[Tensor, "member"], true: Float[Tensor, "member samples"]) -> Tensor:
    return (weights @ true).log().mean()


def _scaled(weights: Float[Tensor, "member"]) -> Tensor:
    """With sum 1, and none quite 0: a weight of 0 would stay 0 whatever its slope."""
    weights = weights.clamp(min=1e-15)
    return weights / weights.sum()
