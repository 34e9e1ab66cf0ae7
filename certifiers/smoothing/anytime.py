"""Confidence sequences: lower bounds for the probability of a vote that hold at all looks at once."""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from scipy.special import betaincc, betaln

from certifiers.smoothing.confidence import clopper_pearson_lower

# The constants, and the default of `futility`, were chosen on the votes at 74 validation images of the quickstart's
# ensemble: of 36 settings (2, 4 or 8 looks a doubling, .8 to .95 of alpha at n, futility .003 to .1) these are within
# two percent of the fewest samples among those that changed no decision, on the whole grid and at single radii.

#: The share of alpha that is kept for the look at n, where the images are decided that need every sample: with less
#: than all of alpha there, a radius near the largest takes a vote more.
FINAL_SHARE = 0.9

#: Of the rest, the share for looks after n, so that a run can be extended.
LATER_SHARE = 0.25

#: Looks come in a geometric row: more of them stop sooner and cost more of alpha, or of the time between them.
RATIO = 2**0.25

#: No look before: so few samples decide nothing but what one of the next looks decides as well.
FIRST_LOOK = 100


def look_times(n: int, ceiling: int) -> tuple[int, ...]:
    """The numbers of samples at which a run looks: `round(n RATIO^j)` for whole j, from FIRST_LOOK to the ceiling.

    They always hold n, if the ceiling does, and do not depend on the ceiling otherwise: a run with a higher one looks
    at the same times, and later.
    """
    before = math.floor(math.log(max(n / FIRST_LOOK, 1), RATIO))
    after = math.ceil(math.log(max(ceiling / n, 1), RATIO))
    times = (round(n * RATIO**step) for step in range(-before, after + 1))
    return tuple(sorted({time for time in times if time <= ceiling}))


@dataclass(frozen=True)
class ConfidenceSequence(ABC):
    """Lower bounds `L_t` with `P(L_t > p at any look t) <= alpha`, whatever p is and whenever one stops.

    So the largest of the bounds seen so far holds, too, and looking at it may decide whether to go on. They are for
    independent votes that are counted cumulatively: t samples are the first t.

    Attributes:
        n: the planned number of samples: the look at n has most of alpha.
        alpha: one-sided error of all looks together, also of those after n.
    """

    n: int
    alpha: float

    #: What evidence calls it.
    name: ClassVar[str] = ""

    @abstractmethod
    def lower(self, successes: int, trials: int) -> float:
        """The bound of one look, rounded down; `trials` is one of the look times, or the bound is 0."""

    @abstractmethod
    def spent(self, trials: int) -> float:
        """How much of alpha the looks up to this one have."""


@dataclass(frozen=True)
class UnionSequence(ConfidenceSequence):
    """The exact bound of Clopper and Pearson at every look, at an alpha of its own; these add up to alpha.

    The look at n has .9 alpha. Looks before it share .075 alpha in proportion to sqrt(t): an early look stops few
    images whatever its alpha. The j-th look after n has `.025 alpha / (j (j + 1))`, and all of them .025 alpha.
    By the union bound the sum is the error of all together (used on doubling numbers of samples by Voracek,
    NeurIPS 2024).
    """

    name: ClassVar[str] = "union"

    def lower(self, successes: int, trials: int) -> float:
        """Clopper and Pearson's bound at the alpha of this look."""
        own = _union_alphas(self.n, self.alpha, trials).get(trials, 0.0)
        return cached_clopper_pearson(successes, trials, own) if own else 0.0

    def spent(self, trials: int) -> float:
        """The sum of the alphas of the looks so far."""
        return math.fsum(own for time, own in _union_alphas(self.n, self.alpha, trials).items() if time <= trials)


@dataclass(frozen=True)
class BettingSequence(ConfidenceSequence):
    """A betting martingale at .1 alpha for all looks, and Clopper and Pearson's bound at .9 alpha for the one at n.

    Against `H(p): the probability is at most p` a gambler bets on every vote that it is q, with q drawn above p from
    Jeffreys' Beta(1/2, 1/2). After S of t votes the capital is

        E_t(p) = int_p^1 (q/p)^S ((1-q)/(1-p))^(t-S) w(q) dq / int_p^1 w(q) dq,      w(q) = (q (1-q))^(-1/2),

    a ratio of incomplete beta functions, which are the predictions (S + 1/2) / (t + 1) of Voracek (NeurIPS 2024) where
    the draw is not restricted to q > p. The restriction makes it one-sided: under every probability up to p a bet on
    q > p does not win on average, so `P(E_t(p) >= 1/a at any t) <= a` (Ville), and as p nears 1 the bets do not lose
    their capital to q that are far off. `L_t` is the largest p with `E_t(p) >= 1/a`.

    All `p' in [1/2, L_t]` are rejected with L_t, so that `L_t > p` implies `E_t(max(p, 1/2)) >= 1/a`: with
    `D = S/p - (t-S)/(1-p)` and the hazard `h(p) = w(p) / int_p^1 w <= 1 / (2 sqrt(p) (1-p))`,

        d/dp log E = -D + h (1 - 1/E),     log E <= (1-p) max(D, 0)      (by log x <= x - 1),

    so where the derivative is not negative, D < h and `E < exp(1 / (2 sqrt(p))) <= exp(.71)`, below 1/a = 10/alpha.
    """

    name: ClassVar[str] = "betting"

    def lower(self, successes: int, trials: int) -> float:
        """The martingale's bound, or 0 where that is below 1/2; at n the larger of it and Clopper and Pearson's."""
        bound = _betting_lower(successes, trials, (1 - FINAL_SHARE) * self.alpha)
        if trials == self.n:
            bound = max(bound, cached_clopper_pearson(successes, trials, FINAL_SHARE * self.alpha))
        return bound

    def spent(self, trials: int) -> float:
        """All looks of the martingale share .1 alpha; the rest is spent at n."""
        return self.alpha if trials >= self.n else (1 - FINAL_SHARE) * self.alpha


@functools.cache
def _union_alphas(n: int, alpha: float, ceiling: int) -> dict[int, float]:
    times = look_times(n, max(n, ceiling))
    weights = math.fsum(math.sqrt(time) for time in times if time < n)
    rest = (1 - FINAL_SHARE) * alpha
    alphas, later = {}, 0
    for time in times:
        if time < n:
            alphas[time] = (1 - LATER_SHARE) * rest * math.sqrt(time) / weights
        elif time == n:
            alphas[time] = FINAL_SHARE * alpha
        else:
            later += 1
            alphas[time] = LATER_SHARE * rest / (later * (later + 1))
    return alphas


@functools.lru_cache(maxsize=1 << 16)
def cached_clopper_pearson(successes: int, trials: int, alpha: float) -> float:
    """`clopper_pearson_lower`, remembered: a run asks for the bounds of the same few looks again and again."""
    return clopper_pearson_lower(successes, trials, alpha)


def log_capital(successes: int, trials: int, p: float) -> float:
    """`log E_t(p)` of `BettingSequence`, for p in [1/2, 1)."""
    failures = trials - successes
    won = betaln(successes + 0.5, failures + 0.5) - betaln(0.5, 0.5)
    above = betaincc(successes + 0.5, failures + 0.5, p)
    if above <= 0:
        return -math.inf
    restricted = math.log(above) - math.log(betaincc(0.5, 0.5, p))
    return float(won) + restricted - successes * math.log(p) - failures * math.log1p(-p)


@functools.lru_cache(maxsize=1 << 16)
def _betting_lower(successes: int, trials: int, alpha: float) -> float:
    if not (trials > 0 and 0 <= successes <= trials and 0 < alpha < 0.49):
        raise ValueError(
            f"Need 0 <= successes <= trials, trials > 0 and 0 < alpha < .49, got {successes}, {trials}, {alpha}."
        )
    # Above what the logarithms err by: sums of terms of up to `trials`, each right to some 1e-15 of itself.
    wanted = -math.log(alpha) + 1e-6 + 1e-13 * trials
    low, high = 0.5, (successes + 0.5) / (trials + 0.5)
    if high <= low or log_capital(successes, trials, low) < wanted:
        return 0.0
    # `low` is always a p that was itself rejected; halving stops where the interval is small beside 1 - p.
    while high - low > 1e-9 * (1 - low):
        middle = (low + high) / 2
        if log_capital(successes, trials, middle) >= wanted:
            low = middle
        else:
            high = middle
    return low
