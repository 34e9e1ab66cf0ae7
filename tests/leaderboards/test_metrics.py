import math
from collections.abc import Callable
from fractions import Fraction
from statistics import mean, median

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from leaderboards import metrics
from leaderboards.metrics import Share, binomial_interval, certified_accuracy, certified_curve, correct_at

MakeRows = Callable[..., pd.DataFrame]

images = st.lists(
    st.fixed_dictionaries(
        {
            "label": st.integers(0, 2),
            "prediction": st.integers(-1, 2),
            "verdict": st.sampled_from(["CERTIFIED", "UNKNOWN", "ABSTAINED", "ERROR"]),
            "radius": st.sampled_from([0.0, 0.1, 8 / 255, 0.5, 0.75, 2.0]),
            "failure_probability": st.sampled_from([0.0, 0.001]),
        }
    ),
    min_size=1,
    max_size=40,
)


def columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def holds(row: dict[str, float], radius: Fraction) -> bool:
    certified = row["verdict"] == "CERTIFIED" and row["prediction"] == row["label"]
    return certified and Fraction(row["radius"]) >= radius


@given(images, st.sampled_from([Fraction(0), Fraction(8, 255), Fraction(1, 10), Fraction(1, 2), Fraction(2)]))
def test_certified_accuracy_is_its_definition(rows: list[dict[str, float]], radius: Fraction) -> None:
    expected = [holds(row, radius) for row in rows]
    assert correct_at(columns(rows), radius).tolist() == expected
    assert certified_accuracy(columns(rows), radius) == Share(sum(expected), len(rows))


@given(images)
def test_radius_statistics_are_their_definitions(rows: list[dict[str, float]]) -> None:
    earned = [row["radius"] if holds(row, Fraction(0)) else 0.0 for row in rows]
    assert metrics.average_certified_radius(columns(rows)) == pytest.approx(mean(earned), rel=1e-12)
    assert metrics.median_certified_radius(columns(rows)) == median(earned)
    asked = [row for row in rows if row["verdict"] != "UNSUPPORTED"]
    alpha = max(row["failure_probability"] for row in rows)
    false = metrics.expected_false_certificates(columns(rows))
    assert false == pytest.approx(alpha * len(asked), rel=1e-12)
    assert false >= math.fsum(row["failure_probability"] for row in asked if row["verdict"] == "CERTIFIED") - 1e-12
    assert sum(metrics.verdict_counts(columns(rows)).values()) == len(rows)
    abstained = sum(row["verdict"] == "ABSTAINED" for row in rows)
    assert metrics.abstention_rate(columns(rows)) == Share(abstained, len(rows))


@given(images)
def test_the_curve_passes_through_the_certified_accuracies(rows: list[dict[str, float]]) -> None:
    curve = certified_curve(columns(rows))
    for radius, value, low, high in zip(*curve, strict=True):
        share = certified_accuracy(columns(rows), Fraction(float(radius)))
        assert (value, (low, high)) == (share.value, share.interval)
    assert (np.diff(curve.value) <= 0).all()
    assert (np.diff(curve.radius) > 0).all()


def test_a_curve_on_a_grid_never_shows_more_than_was_certified(make_rows: MakeRows) -> None:
    curve = certified_curve(make_rows([0.1, 0.4, 0.9, None]), [1.0, 0.5, 0.0])
    assert curve.radius.tolist() == [0.0, 0.5, 1.0]
    assert curve.value.tolist() == [0.75, 0.25, 0.0]


@pytest.mark.parametrize("trials", [1, 7, 200, 10_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_intervals_are_clopper_and_pearsons(trials: int, confidence: float) -> None:
    for successes in {0, 1, trials // 3, trials - 1, trials}:
        low, high = binomial_interval(successes, trials, confidence)
        truth = binomtest(successes, trials).proportion_ci(confidence, method="exact")
        assert (low, high) == pytest.approx((truth.low, truth.high), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    message = f"{successes} successes in {trials} trials: need 0 <= successes <= trials, trials >= 1"
    with pytest.raises(ValueError, match=message):
        binomial_interval(successes, trials)
    with pytest.raises(ValueError, match=message):
        Share(successes, trials)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_impossible_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"is not between 0 and 1\. The boards use 0\.95"):
        binomial_interval(1, 2, confidence)


def test_a_radius_just_below_the_fraction_does_not_count(make_rows: MakeRows) -> None:
    reached = 0.1
    rows = make_rows([reached, math.nextafter(reached, 0.0)])
    assert correct_at(rows, Fraction(1, 10)).tolist() == [True, False]


def test_without_certificate_an_image_does_not_count_at_zero(make_rows: MakeRows) -> None:
    rows = make_rows([0.0, None, 0.5, -1.0])
    rows.loc[2, "verdict"] = "UNKNOWN"
    assert certified_accuracy(rows, Fraction(0)) == Share(1, 4)


def test_clean_accuracy_and_cost(make_rows: MakeRows) -> None:
    rows = make_rows([0.5, 0.5, None], clean_prediction=[1, 2, 1], seconds=[1.0, 2.0, 6.0])
    assert metrics.clean_accuracy(rows) == Share(2, 3)
    assert metrics.clean_accuracy(rows.assign(clean_prediction=-1)) is None
    assert metrics.mean_cost(rows, "seconds") == 3.0
    assert metrics.mean_cost(rows, "forward_passes") == 100.0


@pytest.mark.parametrize("radius", [math.nan, math.inf, -0.5])
def test_a_radius_that_cannot_be_is_refused(make_rows: MakeRows, radius: float) -> None:
    rows = make_rows([0.5, 0.5]).assign(radius=[0.5, radius])
    for measure in (
        lambda: correct_at(rows, Fraction(0)),
        lambda: certified_curve(rows),
        lambda: metrics.average_certified_radius(rows),
        lambda: metrics.median_certified_radius(rows),
    ):
        with pytest.raises(ValueError, match=r"Row 1 has radius .*; a stored radius is finite and at least 0"):
            measure()


def test_nothing_is_measured_without_rows(make_rows: MakeRows) -> None:
    with pytest.raises(ValueError, match="There are no rows, so there is nothing to measure"):
        certified_accuracy(make_rows([]), Fraction(0))
