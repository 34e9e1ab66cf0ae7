"""When an image needs no more samples.

Nothing here can make a certificate false, and nothing here spends alpha: the bounds hold at every look, so they hold
at the one where a run stops, for whatever reason. To stop too soon only loses radius.
"""

import math
from collections.abc import Callable, Sequence
from enum import StrEnum

from scipy.stats import beta

#: From the certified radius and the one that may still be reached to why to stop, if so.
Rule = Callable[[float, float], "Stop | None"]


class Stop(StrEnum):
    """Why an image got no more samples; what the evidence `stopped` says."""

    DECIDED = "every radius asked for is decided"
    TOLERANCE = "more samples would hardly raise the radius"
    CEILING = "all samples are used"
    INVALID = "the classifier returned NaN or infinity"


def optimistic_votes(successes: int, trials: int, more: int, futility: float) -> int:
    """How many of `more` further votes may still be won, but for a chance of about `futility`.

    The votes to come have a share of at most `p'`, the upper confidence bound of Clopper and Pearson at `futility`,
    `beta.ppf(1 - futility, S + 1, F)` for F misses; with S and F scaled by `more / (trials + more)`, which widens the
    bound for a share that is itself counted in `more` votes. Rounded up, and all of them where no vote was lost.
    """
    failures = trials - successes
    if failures == 0 or more == 0:
        return more
    scale = more / (trials + more)
    share = float(beta.ppf(1 - futility, (successes + 1) * scale, failures * scale))
    return more if math.isnan(share) else min(more, math.ceil(more * share))


def decided(radius: float, reachable: float, wanted: Sequence[float]) -> bool:
    """Whether no radius asked for lies above the certified one and within what may still be reached."""
    return _reached(radius, wanted) == _reached(max(radius, reachable), wanted)


def _reached(own: float, wanted: Sequence[float]) -> int:
    # As boards count: radius 0 needs a certificate. A last bit may still be rounded off.
    return sum(own > 0 and asked <= own * (1 - 1e-12) for asked in wanted)


def stop_rule(wanted: Sequence[float] | None, tolerance: float, *, by_tolerance: bool) -> Rule:
    """The rule for these radii, in their units; without radii, by the tolerance."""

    def rule(radius: float, reachable: float) -> Stop | None:
        if wanted is None or by_tolerance:
            return Stop.TOLERANCE if reachable - radius <= tolerance else None
        return Stop.DECIDED if decided(radius, reachable, wanted) else None

    return rule
