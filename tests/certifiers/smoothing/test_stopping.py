"""Rules only lose radius: what they call out of reach, and that stopping by them keeps alpha."""

import functools
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from certifiers.smoothing import AdaptiveSmoothing, PhasedSmoothing
from certifiers.smoothing.gaussian_radius import gaussian_radius
from certifiers.smoothing.looking import LookingSmoothing
from certifiers.smoothing.stopping import Stop, decided, optimistic_votes, stop_rule

ALPHA, TRIALS = 0.05, 4000
ALLOWED = int(stats.binom.isf(1e-4, TRIALS, ALPHA))


@pytest.mark.parametrize("p", [0.5, 0.7, 0.95, 0.999])
@pytest.mark.parametrize(("seen", "more"), [(100, 900), (500, 9500), (5000, 5000), (9000, 1000)])
@pytest.mark.parametrize("futility", [0.01, 0.1])
def test_more_votes_than_the_optimistic_are_won_with_about_the_chance_of_futility(
    p: float, seen: int, more: int, futility: float
) -> None:
    generator = np.random.default_rng([seen, more])
    votes, rest = generator.binomial(seen, p, 2000), generator.binomial(more, p, 2000)
    known = {own: optimistic_votes(int(own), seen, more, futility) for own in np.unique(votes)}
    more_than = rest > np.array([known[own] for own in votes])
    assert more_than.mean() <= futility + 4 * (futility / 2000) ** 0.5
    assert p > 0.99 or more_than.mean() >= futility / 5, "needlessly optimistic"


def test_votes_that_were_never_lost_may_all_be_won() -> None:
    assert optimistic_votes(100, 100, 900, 0.01) == 900
    assert optimistic_votes(0, 100, 0, 0.01) == 0
    assert optimistic_votes(0, 100, 900, 0.01) < 100


def test_a_radius_is_open_only_between_what_is_certified_and_what_is_within_reach() -> None:
    grid = (0.0, 0.25, 0.5)
    assert not decided(0.0, 0.1, grid), "radius 0 needs a certificate"
    assert decided(0.0, 0.0, grid)
    assert decided(0.1, 0.2, grid)
    assert not decided(0.1, 0.3, grid)
    assert decided(0.3, 0.49, grid)
    assert decided(0.6, 9.0, grid)
    assert not decided(0.5, 0.6, grid), "a last bit may be rounded off"


def test_rules_say_why() -> None:
    grid = stop_rule((0.5,), 0.1, by_tolerance=False)
    assert (grid(0.6, 9.0), grid(0.4, 0.6), grid(0.4, 0.45)) == (Stop.DECIDED, None, Stop.DECIDED)
    for rule in (stop_rule((0.5,), 0.1, by_tolerance=True), stop_rule(None, 0.1, by_tolerance=False)):
        assert (rule(0.6, 9.0), rule(0.4, 0.6), rule(0.45, 0.54)) == (None, None, Stop.TOLERANCE)


# Coverage of bounds and rules together, on counts.

CERTIFIERS: dict[str, LookingSmoothing] = {
    "betting": AdaptiveSmoothing(sigma=1.0, n=200, alpha=ALPHA),
    "union": AdaptiveSmoothing(sigma=1.0, n=200, alpha=ALPHA, bound="union"),
    "extended": AdaptiveSmoothing(sigma=1.0, n=120, alpha=ALPHA, ceiling=250),
    "phases": PhasedSmoothing(sigma=1.0, n=200, alpha=ALPHA, shares=(0.2, 0.3, 0.5)),
}
RULES: dict[str, dict[str, Any]] = {
    "grid": {"wanted": tuple(step / 4 for step in range(12)), "tolerance": 0.0, "by_tolerance": False},
    "one radius": {"wanted": (1.0,), "tolerance": 0.0, "by_tolerance": False},
    "tolerance": {"wanted": None, "tolerance": 0.2, "by_tolerance": True},
}


@pytest.mark.parametrize("p", [0.5, float(stats.norm.cdf(1)) - 1e-6, 0.98])
@pytest.mark.parametrize("name", CERTIFIERS)
def test_no_more_than_alpha_is_false_where_a_rule_or_an_adversary_stops(name: str, p: float) -> None:
    # The radius at the stop of each rule, and that of whoever stops as soon as it is false, over the whole horizon.
    certifier, truth = CERTIFIERS[name], max(0.0, float(ndtri(p)))
    times = certifier.look_times()
    steps = np.diff((0, *times))
    runs = np.cumsum(np.random.default_rng(5).binomial(steps, p, (TRIALS, len(steps))), axis=1).tolist()

    @functools.cache
    def certified(*looks: tuple[int, int]) -> float:
        return gaussian_radius(certifier.lower_bound(looks).p_a, 1.0)

    @functools.cache
    def reachable(look: tuple[int, int]) -> float:
        return gaussian_radius(certifier.reachable([look]), 1.0)

    rules = {rule: functools.cache(stop_rule(**settings)) for rule, settings in RULES.items()}
    false, early, adversary = dict.fromkeys(RULES, 0), dict.fromkeys(RULES, 0), 0
    for run in runs:
        best, going, before = 0.0, set(rules), ()
        for look in zip(times, run, strict=True):
            best = max(best, certified(*before, look))
            before = (look,)
            last = look[0] == times[-1]
            for rule in [own for own in going if last or rules[own](best, max(best, reachable(look)))]:
                going.remove(rule)
                false[rule] += best > truth
                early[rule] += not last
        adversary += best > truth
    assert max(false.values()) <= adversary <= ALLOWED, (false, adversary)
    assert any(early.values()), early


def test_alpha_of_four_thousand_trials() -> None:
    assert ALLOWED == 253  # and twice alpha would give 400
