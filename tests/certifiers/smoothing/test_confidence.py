import math

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mpmath import mpf
from scipy.special import ndtri

from certifiers.smoothing import Smoothing, clopper_pearson_lower


def tail(successes: int, trials: int, p: float | mpf) -> mpf:
    """`P(X >= k)` for X ~ Bin(n, p), the sum of its terms in 40 digits."""
    p = mpf(p)
    if p == 1:
        return mpf(1)
    term = mpmath.exp(
        mpmath.loggamma(trials + 1)
        - mpmath.loggamma(successes + 1)
        - mpmath.loggamma(trials - successes + 1)
        + successes * mpmath.log(p)
        + (trials - successes) * mpmath.log1p(-p)
    )
    total, odds = mpf(0), p / (1 - p)
    for hits in range(successes, trials + 1):
        total += term
        term *= odds * (trials - hits) / (hits + 1)
        if term * 10**35 < total and odds * (trials - hits) < hits + 1:  # the terms fall from here on
            break
    return total


def quantile(p: float | mpf) -> mpf:
    """`Phi^-1(p)` in 40 digits."""
    return mpmath.sqrt(2) * mpmath.erfinv(2 * mpf(p) - 1)


@pytest.fixture(autouse=True)
def forty_digits():
    with mpmath.workdps(40):
        yield


# METHODS, section 2.
@pytest.mark.parametrize(
    ("successes", "trials", "p", "sigmas"),
    [
        (99, 100, 0.9113731113, 1.34925904),
        (950, 1000, 0.9250467801, 1.43986202),
        (9990, 10_000, 0.9975883080, 2.81859830),
        (99_000, 100_000, 0.9889893404, 2.28999996),
        (60_000, 100_000, 0.5952010473, 0.24094479),
    ],
)
def test_published_vectors_to_all_their_digits(successes: int, trials: int, p: float, sigmas: float) -> None:
    bound = clopper_pearson_lower(successes, trials, 0.001)
    assert round(bound, 10) == p
    assert round(float(ndtri(bound)), 8) == sigmas
    p_a, radius = Smoothing(sigma=1.0, n=trials, alpha=0.001).certificate_of_counts(successes)
    assert p_a == bound
    assert round(radius, 8) == sigmas


@pytest.mark.parametrize(
    ("trials", "sigmas"), [(100, 1.500475), (1000, 2.463263), (10_000, 3.198578), (100_000, 3.811457)]
)
def test_all_hits_cap_the_radius(trials: int, sigmas: float) -> None:
    smoothing = Smoothing(sigma=0.5, n=trials, alpha=0.001)
    p_a, radius = smoothing.certificate_of_counts(trials)
    assert p_a == pytest.approx(0.001 ** (1 / trials), rel=1e-12)
    assert round(radius / 0.5, 6) == sigmas
    assert all(smoothing.certificate_of_counts(hits)[1] < radius for hits in (0, 1, trials // 2, trials - 1))


@pytest.mark.parametrize(("trials", "smallest"), [(100, 66), (1000, 550), (10_000, 5156), (100_000, 50_490)])
def test_smallest_count_that_does_not_abstain(trials: int, smallest: int) -> None:
    smoothing = Smoothing(sigma=0.5, n=trials, alpha=0.001)
    assert smoothing.certificate_of_counts(smallest)[1] > 0
    assert smoothing.certificate_of_counts(smallest - 1)[1] == 0
    # The truth behind: at p = 1/2 that many hits are rarer than alpha, one less are not.
    assert tail(smallest, trials, 0.5) < 0.001 <= tail(smallest - 1, trials, 0.5)


def test_samples_that_a_radius_takes() -> None:
    # METHODS: sigma = .5 and r = 1.75 need n >= 29691.
    for n, reached in ((29_691, True), (29_690, False)):
        assert (Smoothing(sigma=0.5, n=n, alpha=0.001).certificate_of_counts(n)[1] >= 1.75) is reached


@given(
    trials=st.one_of(st.integers(1, 200), st.integers(201, 100_000)),
    share=st.floats(0, 1),
    exponent=st.floats(-8, -0.05),
)
@settings(max_examples=150, deadline=None)
@example(trials=1, share=1.0, exponent=-3.0)
@example(trials=100_000, share=1.0, exponent=-3.0)
@example(trials=100_000, share=1e-5, exponent=-3.0)
def test_bound_is_the_root_of_the_tail_and_never_above_it(trials: int, share: float, exponent: float) -> None:
    successes, alpha = max(1, round(share * trials)), 10.0**exponent
    bound = clopper_pearson_lower(successes, trials, alpha)
    assert 0 < bound < 1
    assert tail(successes, trials, bound) <= mpf(alpha)
    assert tail(successes, trials, min(bound * (1 + 1e-9), 1.0)) > mpf(alpha)


@given(trials=st.integers(1, 2000), data=st.data())
@settings(max_examples=50, deadline=None)
def test_bound_rises_with_hits_and_with_alpha(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(1, trials))
    bound = clopper_pearson_lower(successes, trials, 0.01)
    assert clopper_pearson_lower(successes - 1, trials, 0.01) < bound < successes / trials + 1e-15
    assert clopper_pearson_lower(successes, trials, 0.001) < bound < clopper_pearson_lower(successes, trials, 0.1)
    assert clopper_pearson_lower(successes, trials + 1, 0.01) < bound


@pytest.mark.parametrize("alpha", [1e-300, 0.001, 0.5, 0.999])
def test_no_hits_prove_nothing(alpha: float) -> None:
    assert clopper_pearson_lower(0, 10, alpha) == 0.0


def test_coverage_is_exact_for_every_probability() -> None:
    # P(bound > p) summed over all outcomes, not sampled: at most alpha, and near it for some p.
    trials, alpha = 25, 0.05
    bounds = [clopper_pearson_lower(hits, trials, alpha) for hits in range(trials + 1)]
    misses = []
    for step in range(1, 400):
        p = step / 400
        outcomes = [math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(trials + 1)]
        misses.append(math.fsum(chance for chance, bound in zip(outcomes, bounds, strict=True) if bound > p))
    assert max(misses) <= alpha
    assert max(misses) > 0.9 * alpha


@given(trials=st.integers(1, 100_000), missed=st.floats(0, 1), sigma=st.floats(1e-3, 1e3))
@settings(max_examples=100, deadline=None)
def test_radius_is_never_above_what_the_bound_gives(trials: int, missed: float, sigma: float) -> None:
    successes = round(trials * (1 - missed**4 / 2))
    p_a, radius = Smoothing(sigma=sigma, n=trials, alpha=0.05).certificate_of_counts(successes)
    if p_a <= 0.5:
        assert radius == 0
        return
    # The noise is drawn with sigma in float32: where that is smaller, it is the sigma that counts.
    truth = mpf(min(sigma, float(np.float32(sigma)))) * quantile(p_a)
    # Also after the rounded division by sqrt(d) of a linf radius.
    for dimensions in (1, 3, 784):
        scaled = mpf(radius * (1 / math.sqrt(dimensions)))
        assert scaled <= truth / mpmath.sqrt(dimensions)
        assert scaled >= truth / mpmath.sqrt(dimensions) * (1 - mpf("3e-15"))


@pytest.mark.parametrize(
    ("successes", "trials", "alpha"),
    [(-1, 10, 0.1), (11, 10, 0.1), (0, 0, 0.1), (1, -1, 0.1), (5, 10, 0.0), (5, 10, 1.0), (5, 10, math.nan)],
)
def test_numbers_out_of_range_are_refused(successes: int, trials: int, alpha: float) -> None:
    with pytest.raises(ValueError, match=r"Need 0 <= successes <= trials, trials > 0 and 0 < alpha < 1, got") as caught:
        clopper_pearson_lower(successes, trials, alpha)
    assert str(caught.value).endswith(f"got {successes}, {trials}, {alpha}.")
