"""The bounds, on counts: against truth summed, drawn, and computed in 40 digits."""

import math

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf
from scipy import stats
from scipy.special import betainc

from certifiers.smoothing import BettingSequence, ConfidenceSequence, UnionSequence, clopper_pearson_lower, look_times
from certifiers.smoothing.anytime import log_capital

FORMS = [BettingSequence, UnionSequence]
ALPHA, TRIALS = 0.05, 4000
#: More false runs of TRIALS than this have probability 1e-4, if alpha is kept.
ALLOWED = int(stats.binom.isf(1e-4, TRIALS, ALPHA))

Counts = npt.NDArray[np.int64]


def least_votes(sequence: ConfidenceSequence, time: int, p: float) -> int:
    """The fewest votes of a look whose bound exceeds p; one more than all where none does."""
    low, high = 0, time + 1
    while low < high:
        middle = (low + high) // 2
        if sequence.lower(middle, time) > p:
            high = middle
        else:
            low = middle + 1
    return low


def drawn(p: float, times: tuple[int, ...], seed: int) -> Counts:
    """Votes at each look of 4000 runs."""
    steps = np.diff((0, *times))
    return np.cumsum(np.random.default_rng(seed).binomial(steps, p, (TRIALS, len(steps))), axis=1)


def crossing_probability(thresholds: list[int], times: tuple[int, ...], p: float) -> float:
    """`P(votes at some look >= its threshold)`, exactly: the distribution of runs that have not crossed."""
    alive, crossed, before = np.ones(1), 0.0, 0
    for time, threshold in zip(times, thresholds, strict=True):
        step = stats.binom.pmf(np.arange(time - before + 1), time - before, p)
        alive = np.convolve(alive, step)
        crossed += float(alive[threshold:].sum())
        alive, before = alive[:threshold], time
    return crossed


# Coverage.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [0.5, 0.5 + 1e-3, 0.6, 0.9, 0.98, 0.993])
def test_bounds_of_all_looks_together_are_wrong_with_probability_alpha(
    form: type[ConfidenceSequence], p: float
) -> None:
    # Summed, not drawn: whoever stops at the first look whose bound is false is false no more often than alpha.
    sequence = form(500, ALPHA)
    times = look_times(500, 2000)
    wrong = crossing_probability([least_votes(sequence, time, p) for time in times], times, p)
    assert 0 < wrong <= ALPHA
    assert p > 0.98 or wrong > ALPHA / 5, "the bounds are needlessly low"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [0.4, 0.5, 0.5 + 1e-4, 0.8, 0.999, 0.99999])
def test_stopping_when_the_bound_is_false_comes_to_alpha_over_a_long_horizon(
    form: type[ConfidenceSequence], p: float
) -> None:
    sequence = form(20_000, ALPHA)
    times = look_times(20_000, 640_000)
    thresholds = [least_votes(sequence, time, max(p, 0.5)) for time in times]
    wrong = (drawn(p, times, 1) >= thresholds).any(1)
    assert int(wrong.sum()) <= ALLOWED


@pytest.mark.parametrize("form", FORMS)
def test_probabilities_just_under_a_bound_are_the_worst_and_hold(form: type[ConfidenceSequence]) -> None:
    # The bound of one look is p + 1e-9 where that look's count is on its threshold: where false ones are likeliest.
    sequence = form(500, ALPHA)
    times = look_times(500, 1000)
    for time in (times[0], times[4], 500, times[-1]):
        for votes in (math.ceil(0.7 * time), time - 2, time):
            p = sequence.lower(votes, time) - 1e-9
            if p > 0.5:
                wrong = crossing_probability([least_votes(sequence, own, p) for own in times], times, p)
                assert wrong <= ALPHA


@pytest.mark.parametrize("p", [0.5, 0.9, 0.99])
def test_a_fixed_bound_at_every_look_would_be_caught(p: float) -> None:
    times = look_times(500, 2000)
    thresholds = [int(stats.binom.isf(ALPHA, time, p)) + 1 for time in times]
    assert crossing_probability(thresholds, times, p) > 2 * ALPHA
    assert int((drawn(p, times, 2) >= thresholds).any(1).sum()) > ALLOWED


# The looks and what they spend.


def test_looks_hold_n_and_a_higher_ceiling_only_adds_to_them() -> None:
    times = look_times(100_000, 100_000)
    assert times[0] == 116
    assert times[-1] == 100_000
    assert len(times) == 40
    ratios = np.divide(times[1:], times[:-1])
    assert ratios.min() > 1.17
    assert ratios.max() < 1.21
    for ceiling in (100_001, 118_921, 10**6, 10**7):
        longer = look_times(100_000, ceiling)
        assert longer[: len(times)] == times
        assert longer[-1] <= ceiling < longer[-1] * 1.2
    assert look_times(177, 177) == (105, 125, 149, 177)
    assert look_times(10, 10) == (10,)
    assert look_times(1, 1) == (1,)


@given(n=st.integers(1, 10**6), more=st.floats(1, 100))
@settings(max_examples=60, deadline=None)
def test_looks_are_ascending_and_hold_n(n: int, more: float) -> None:
    times = look_times(n, int(n * more))
    assert n in times
    assert list(times) == sorted(set(times))
    assert times[0] >= min(n, 100)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 50, 177, 20_000])
def test_no_more_than_alpha_is_ever_spent(form: type[ConfidenceSequence], n: int) -> None:
    sequence = form(n, 0.001)
    times = look_times(n, 2000 * n)
    spent = [sequence.spent(time) for time in times]
    assert spent == sorted(spent)
    assert sequence.spent(n) >= 0.9 * 0.001
    assert spent[-1] <= 0.001 * (1 + 1e-12)


def test_the_union_is_of_exact_bounds_whose_alphas_add_up() -> None:
    sequence = UnionSequence(20_000, 0.001)
    last = 0.0
    for time in look_times(20_000, 80_000):
        own = sequence.spent(time) - last
        last += own
        votes = math.ceil(0.9 * time)
        assert sequence.lower(votes, time) == pytest.approx(clopper_pearson_lower(votes, time, own), rel=1e-9)
    assert sequence.lower(900, 901) == 0.0, "a look that is not one of the sequence proves nothing"


@pytest.mark.parametrize("form", FORMS)
def test_the_look_at_n_is_nearly_that_of_smoothing(form: type[ConfidenceSequence]) -> None:
    sequence = form(100_000, 0.001)
    for votes in (51_000, 90_000, 99_990, 100_000):
        bound = sequence.lower(votes, 100_000)
        assert clopper_pearson_lower(votes, 100_000, 0.0009) * (1 - 1e-12) <= bound
        assert bound <= clopper_pearson_lower(votes, 100_000, 0.001)


@given(n=st.integers(1, 5000), share=st.floats(0, 1), form=st.sampled_from(FORMS))
@settings(max_examples=60, deadline=None)
def test_bounds_rise_with_votes_and_stay_below_the_fixed_bound(
    n: int, share: float, form: type[ConfidenceSequence]
) -> None:
    sequence = form(n, ALPHA)
    for time in look_times(n, 2 * n):
        votes = math.ceil(share * time)
        bound = sequence.lower(votes, time)
        assert 0 <= bound <= clopper_pearson_lower(votes, time, ALPHA)
        assert votes == 0 or sequence.lower(votes - 1, time) <= bound


# The martingale.


def capital(successes: int, trials: int, p: float) -> mpf:
    """`E_t(p)`, its two integrals by the quadrature of mpmath in 40 digits, with q = 1 - (1-p) u^2."""
    p = mpf(p)

    def density(u: mpf) -> mpf:
        return 2 * mpmath.sqrt(1 - p) / mpmath.sqrt(1 - (1 - p) * u * u)  # (q (1-q))^(-1/2) dq

    def bet(u: mpf) -> mpf:
        q = 1 - (1 - p) * u * u
        return (q / p) ** successes * (u * u) ** (trials - successes) * density(u)

    points = [mpf(0), mpf("0.05"), mpf("0.2"), mpf("0.5"), mpf(1)]
    return mpmath.quad(bet, points) / mpmath.quad(density, points)


@pytest.mark.parametrize(
    ("successes", "trials", "p"), [(0, 1, 0.5), (1, 1, 0.5), (30, 40, 0.5), (199, 200, 0.97), (1000, 1000, 0.99)]
)
def test_the_closed_form_is_the_integral_of_all_bets(successes: int, trials: int, p: float) -> None:
    with mpmath.workdps(40):
        assert float(mpmath.log(capital(successes, trials, p))) == pytest.approx(
            log_capital(successes, trials, p), abs=1e-10
        )


@pytest.mark.parametrize("p", [0.5, 0.7, 0.99])
def test_capital_is_a_martingale_at_p_and_falls_on_average_below(p: float) -> None:
    for trials in (0, 1, 7, 60):
        for successes in range(0, trials + 1, max(1, trials // 5)):
            now = math.exp(log_capital(successes, trials, p)) if trials else 1.0
            won = math.exp(log_capital(successes + 1, trials + 1, p))
            lost = math.exp(log_capital(successes, trials + 1, p))
            assert p * won + (1 - p) * lost == pytest.approx(now, rel=1e-9)
            for smaller in (0.3, p - 0.01):
                assert smaller * won + (1 - smaller) * lost < now


@given(trials=st.integers(1, 100_000), missed=st.floats(0, 1), low=st.floats(0.5, 1), high=st.floats(0.5, 1))
@settings(max_examples=300, deadline=None)
def test_what_is_rejected_is_rejected_with_all_below(trials: int, missed: float, low: float, high: float) -> None:
    successes = trials - round(trials * missed**3)
    below, p = sorted((low**0.2, high**0.2))
    below, p = max(below, 0.5), min(p, 1 - 1e-9)
    if below < p and (held := log_capital(successes, trials, p)) >= math.log(5):
        assert log_capital(successes, trials, below) >= held - 1e-9


@given(trials=st.integers(10, 10**7), missed=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_bound_is_rejected_by_its_capital_in_forty_digits(trials: int, missed: float) -> None:
    votes = trials - round(trials * missed**4 / 2)
    sequence = BettingSequence(trials + 1, 0.001)  # trials is not n: the martingale alone
    bound = sequence.lower(votes, trials)
    if bound == 0:
        return
    with mpmath.workdps(40):
        p, failures = mpf(bound), trials - votes
        # In closed form but for the incomplete beta of the votes, which is 1 where the bound is far below them.
        above = mpf(1 - float(betainc(votes + 0.5, failures + 0.5, bound)))
        won = mpmath.log(mpmath.beta(votes + mpf(1) / 2, failures + mpf(1) / 2) * above)
        prior = mpmath.log(2 * mpmath.asin(mpmath.sqrt(1 - p)))
        log_e = won - prior - votes * mpmath.log(p) - failures * mpmath.log1p(-p)
        assert log_e >= mpmath.log(1 / mpf("0.0001")) + mpf("1e-7")
        assert log_e < mpmath.log(1 / mpf("0.0001")) + mpf("1e-4") + trials * mpf("1e-12"), "not needlessly low"


def test_where_all_votes_agree_the_martingale_reaches_what_a_union_of_looks_does() -> None:
    betting, union = BettingSequence(100_000, 0.001), UnionSequence(100_000, 0.001)
    for time in look_times(100_000, 80_000):
        assert 1 - betting.lower(time, time) < 1.35 * (1 - union.lower(time, time)), time


@pytest.mark.parametrize(("successes", "trials"), [(-1, 10), (11, 10), (0, 0)])
def test_numbers_out_of_range_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=r"Need 0 <= successes <= trials, trials > 0 and 0 < alpha < .49, got"):
        BettingSequence(100, 0.001).lower(successes, trials)
