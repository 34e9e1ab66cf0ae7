"""Confidence bounds for the probability of a vote."""

import numpy as np
from scipy.special import betainc
from scipy.stats import beta


def clopper_pearson_lower(successes: int, trials: int, alpha: float) -> float:
    """The exact one-sided lower confidence bound for a binomial probability, rounded down.

    `p = beta.ppf(alpha, k, n - k + 1)`, the p at which `P(X >= k) = alpha` for X ~ Bin(n, p); 0 for k = 0.
    For all true p the bound exceeds p with probability at most alpha (Clopper & Pearson, Biometrika 1934).

    Args:
        successes: k, how often the event was seen; 0 <= k <= n.
        trials: n > 0, fixed before looking.
        alpha: one-sided error in (0, 1).

    Raises:
        ValueError: the numbers are not of those ranges.
    """
    if not (trials > 0 and 0 <= successes <= trials and 0 < alpha < 1):
        raise ValueError(
            f"Need 0 <= successes <= trials, trials > 0 and 0 < alpha < 1, got {successes}, {trials}, {alpha}."
        )
    if successes == 0:
        return 0.0
    bound = float(beta.ppf(alpha, successes, trials - successes + 1))
    # P(X >= k | p) = I_p(k, n - k + 1). The quantile is a root found in floating point, which may lie on the
    # wrong side of the truth; step down until the tail is within alpha by more than the error of computing it
    # (1e-12 relative at 10^7 trials, against sums of 40 digits).
    step = float(np.spacing(bound))
    while betainc(successes, trials - successes + 1, bound) > alpha * (1 - 1e-11):
        bound -= step
        step *= 2
    return max(bound, 0.0)


def clopper_pearson_upper(successes: int, trials: int, alpha: float) -> float:
    """The exact one-sided upper confidence bound for a binomial probability, rounded up; 1 where all succeeded.

    One less the lower bound for the failures. Arguments and errors as of `clopper_pearson_lower`.
    """
    lower = clopper_pearson_lower(trials - successes, trials, alpha)
    return min(1.0, float(np.nextafter(1.0 - lower, 2.0))) if lower else 1.0
