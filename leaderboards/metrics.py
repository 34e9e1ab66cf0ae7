"""The statistics of one set of rows. Everything that a board says about an entry is computed here.

`rows` is anything with the columns of `leaderboards.records.ROW_SCHEMA`: a DataFrame, a mapping of arrays.
An image counts in a denominator whether it was certified, abstained, timed out or was misclassified.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from leaderboards.radii import ceil_float

#: Confidence level of every interval that a board shows.
CONFIDENCE = 0.95

_Array = npt.NDArray[Any]


class Columns(Protocol):
    """Rows by column name."""

    def __getitem__(self, name: str, /) -> Any:
        """The values of one column, one an image."""


@dataclass(frozen=True)
class Share:
    """`successes` out of `trials` images, as a value in [0, 1] with its exact interval.

    Raises:
        ValueError: no trials, or more successes than trials.
    """

    successes: int
    trials: int

    def __post_init__(self) -> None:
        _check_counts(self.successes, self.trials)

    @property
    def value(self) -> float:
        """`successes / trials`."""
        return self.successes / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the `CONFIDENCE` interval (`binomial_interval`)."""
        return binomial_interval(self.successes, self.trials)


class Curve(NamedTuple):
    """Certified accuracy as a function of the radius; four arrays of one length, radii ascending."""

    radius: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def binomial_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact two-sided interval of a proportion.

    `[B(a/2; k, n-k+1), B(1-a/2; k+1, n-k)]`, `B` the quantile of the beta distribution, `a = 1 - confidence`.

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: no trials, more successes than trials, or a confidence outside (0, 1).

    Source: Clopper and Pearson, Biometrika 26 (1934).
    """
    _check_counts(successes, trials)
    low, high = _intervals(np.array([successes]), trials, confidence)
    return float(low[0]), float(high[0])


def correct_at(rows: Columns, radius: Fraction) -> npt.NDArray[np.bool_]:
    """Which images are certified at `radius` for their true class.

    `verdict = CERTIFIED and prediction = label and stored radius >= r`, where the float64 radius must reach
    the smallest float64 not below the exact fraction. At r = 0 the rule is the same: an image without a
    certificate does not count.

    Returns:
        bool[images].

    Raises:
        ValueError: no rows, or a stored radius that is negative, infinite or NaN.
    """
    stored = _radii(rows)
    return _certified_correct(rows) & (stored >= ceil_float(radius))


def certified_accuracy(rows: Columns, radius: Fraction) -> Share:
    """Share of all images that are certified at `radius` for their true class (`correct_at`).

    Raises:
        ValueError: as `correct_at`.

    Source: Cohen et al., ICML 2019.
    """
    correct = correct_at(rows, radius)
    return Share(int(correct.sum()), correct.size)


def certified_curve(rows: Columns, grid: npt.ArrayLike | None = None) -> Curve:
    """Certified accuracy at every radius of `grid`, with its `CONFIDENCE` interval.

    Between two radii the function is constant and equal to its value at the larger one, so steps drawn from
    a coarse grid never show more than was certified.

    Args:
        rows: the rows of one entry.
        grid: float64 radii; by default 0 and all radii at which the function drops.

    Raises:
        ValueError: as `correct_at`.
    """
    earned = np.sort(_radii(rows)[_certified_correct(rows)])
    trials = len(_column(rows, "radius"))
    at = np.union1d([0.0], earned) if grid is None else np.sort(np.asarray(grid, dtype=np.float64).ravel())
    successes = earned.size - np.searchsorted(earned, at, side="left")
    low, high = _intervals(successes, trials, CONFIDENCE)
    return Curve(radius=at, value=successes / trials, low=low, high=high)


def earned_radii(rows: Columns) -> npt.NDArray[np.float64]:
    """The radius that each image earns, in input units: `correct * radius`, 0 where it is wrong or not certified.

    Returns:
        float64[images].

    Raises:
        ValueError: as `correct_at`.
    """
    return np.where(_certified_correct(rows), _radii(rows), 0.0)


def average_certified_radius(rows: Columns) -> float:
    """Mean over all images of `correct * radius`, in input units (ACR).

    It depends on the number of samples and on alpha, and rewards easy images: shown, never ranked by
    (arXiv 2410.06895).

    Raises:
        ValueError: as `correct_at`.
    """
    return float(np.mean(earned_radii(rows)))


def median_certified_radius(rows: Columns) -> float:
    """Median over *all* images of `correct * radius`, in input units; 0 if fewer than half are certified.

    Raises:
        ValueError: as `correct_at`.
    """
    return float(np.median(earned_radii(rows)))


def clean_accuracy(rows: Columns) -> Share | None:
    """Share of images whose `clean_prediction` is the label; None where one is -1, not known.

    Raises:
        ValueError: no rows.
    """
    predicted, label = _column(rows, "clean_prediction"), _column(rows, "label")
    return None if (predicted < 0).any() else Share(int((predicted == label).sum()), predicted.size)


def abstention_rate(rows: Columns) -> Share:
    """Share of images with verdict ABSTAINED.

    Raises:
        ValueError: no rows.
    """
    abstained = _column(rows, "verdict") == "ABSTAINED"
    return Share(int(abstained.sum()), abstained.size)


def verdict_counts(rows: Columns) -> dict[str, int]:
    """How many images got each verdict that occurs.

    Raises:
        ValueError: no rows.
    """
    verdicts, counts = np.unique(_column(rows, "verdict").astype(str), return_counts=True)
    return {str(verdict): int(count) for verdict, count in zip(verdicts, counts, strict=True)}


def expected_false_certificates(rows: Columns) -> float:
    """Bound on the expected number of wrong certificates: `alpha` times the images that were asked.

    An image has a wrong certificate with probability at most alpha, whether or not it got one: to sum over those that
    are certified would leave out the others, which might have been. Alpha is the largest `failure_probability` of a
    row; images that are UNSUPPORTED were not asked.

    Raises:
        ValueError: no rows.
    """
    asked = int((_column(rows, "verdict") != "UNSUPPORTED").sum())
    return asked * float(_column(rows, "failure_probability").max())


def mean_cost(rows: Columns, column: str) -> float:
    """Mean of `forward_passes`, `bound_passes` or `seconds` per image; NaN where that of an image is -1, not known.

    Raises:
        ValueError: no rows.
    """
    costs = _column(rows, column).astype(np.float64)
    return math.nan if (costs < 0).any() else float(np.mean(costs))


def _column(rows: Columns, name: str) -> _Array:
    values = np.asarray(rows[name])
    if not values.size:
        raise ValueError("There are no rows, so there is nothing to measure. Run the spec first.")
    return values


def _radii(rows: Columns) -> npt.NDArray[np.float64]:
    radii = _column(rows, "radius").astype(np.float64)
    wrong = ~(np.isfinite(radii) & (radii >= 0))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"Row {first} has radius {radii[first]}; a stored radius is finite and at least 0. "
            "The certifier that wrote it is wrong: run it again."
        )
    return radii


def _certified_correct(rows: Columns) -> npt.NDArray[np.bool_]:
    certified = _column(rows, "verdict") == "CERTIFIED"
    right = _column(rows, "prediction") == _column(rows, "label")
    return np.asarray(certified & right, dtype=np.bool_)


def _check_counts(successes: int, trials: int) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials: need 0 <= successes <= trials, trials >= 1.")


def _intervals(
    successes: npt.NDArray[np.int64], trials: int, confidence: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if not 0 < confidence < 1:
        raise ValueError(f"Confidence {confidence} is not between 0 and 1. The boards use {CONFIDENCE}.")
    tail = (1 - confidence) / 2
    failures = trials - successes
    # At the two ends a parameter of the beta distribution is 0: the interval is closed there by definition.
    low = np.where(successes == 0, 0.0, betaincinv(np.maximum(successes, 1), failures + 1, tail))
    high = np.where(failures == 0, 1.0, betaincinv(successes + 1, np.maximum(failures, 1), 1 - tail))
    return low, high
