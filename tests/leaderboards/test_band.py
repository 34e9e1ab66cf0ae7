import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from leaderboards.band import band_half_width, simultaneous_band
from leaderboards.metrics import certified_curve

MakeRows = Callable[..., pd.DataFrame]


@pytest.mark.parametrize("images", [1, 2, 10, 200, 10_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_band_is_never_wider_than_massarts(images: int, confidence: float) -> None:
    width = band_half_width(images, confidence)
    assert 0 < width <= min(1.0, math.sqrt(math.log(2 / (1 - confidence)) / (2 * images))) + 1e-9


def test_the_band_holds_what_the_test_of_kolmogorov_does_not_reject() -> None:
    """Duality: a law lies in the band exactly where the exact test accepts it."""
    generator = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        sample, shift = generator.random(30), generator.normal() * 0.15
        found = kstest(sample, "uniform", args=(shift, 1.0), method="exact")
        inside = found.statistic <= band_half_width(30)
        assert inside == (found.pvalue >= 0.05)
        outcomes.add(inside)
    assert outcomes == {True, False}


def test_the_band_covers_a_whole_curve_with_ties_as_often_as_promised(make_rows: MakeRows) -> None:
    """Earned radii of which a third are 0: 300 trials of 95 %, and of pointwise intervals fewer."""
    generator = np.random.default_rng(1)
    grid = np.linspace(0.01, 1.0, 25)
    truth = (2 / 3) * (1 - grid)
    held = pointwise = 0
    for _ in range(300):
        radii = [
            float(r) if keep else None
            for r, keep in zip(generator.random(80), generator.random(80) < 2 / 3, strict=True)
        ]
        rows = make_rows(radii)
        band, curve = simultaneous_band(rows, grid), certified_curve(rows, grid)
        held += bool(((band.low <= truth) & (truth <= band.high)).all())
        pointwise += bool(((curve.low <= truth) & (truth <= curve.high)).all())
    assert held >= 0.95 * 300
    assert pointwise < held - 15


def test_the_band_stays_around_the_curve_and_in_the_unit_interval(make_rows: MakeRows) -> None:
    rows = make_rows([0.1, 0.4, 0.9, None])
    band = simultaneous_band(rows)
    assert band.value.tolist() == certified_curve(rows).value.tolist()
    assert band.low.min() >= 0
    assert band.high.max() <= 1
    assert (band.high - band.low <= 2 * band_half_width(4)).all()


@pytest.mark.parametrize(("images", "confidence"), [(0, 0.95), (5, 0.0), (5, 1.0)])
def test_a_band_of_nothing_is_refused(images: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="A band needs images and a confidence between 0 and 1, got"):
        band_half_width(images, confidence)
