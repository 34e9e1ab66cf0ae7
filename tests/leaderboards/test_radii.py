import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboards.radii import ceil_float, format_radius, parse_radius

exact_radii = st.fractions(min_value=0, max_value=1000)


@pytest.mark.parametrize(
    ("written", "exact"),
    [
        ("8/255", Fraction(8, 255)),
        ("0.1", Fraction(1, 10)),
        (0.1, Fraction(1, 10)),
        (2, Fraction(2)),
        ("1e-3", Fraction(1, 1000)),
        (Fraction(1, 3), Fraction(1, 3)),
    ],
)
def test_a_radius_is_read_exactly(written: str | float | Fraction, exact: Fraction) -> None:
    assert parse_radius(written) == exact


@pytest.mark.parametrize("written", ["eps", "1/0", "", math.nan, math.inf, True, None])
def test_what_is_no_number_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"is not a number\. Write a fraction or a decimal"):
        parse_radius(written)  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["1e999999999", "1e-999999999", "1e1_000"])
def test_an_exponent_that_would_take_forever_is_no_number(written: str) -> None:
    with pytest.raises(ValueError, match=r"is not a number\. Write a fraction or a decimal"):
        parse_radius(written)


def test_a_radius_past_every_float_is_refused() -> None:
    assert parse_radius("1e308") == Fraction(10) ** 308
    with pytest.raises(ValueError, match=r"Radius '1e309' is larger than any float64\. Write a smaller one"):
        parse_radius("1e309")


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Radius '-1/2' is negative\. A radius is at least 0"):
        parse_radius("-1/2")


@given(exact_radii)
def test_ceil_float_is_the_smallest_float_not_below(exact: Fraction) -> None:
    found = ceil_float(exact)
    assert Fraction(found) >= exact
    assert Fraction(math.nextafter(found, -math.inf)) < exact


def test_floats_that_round_down_do_not_reach_the_fraction() -> None:
    below = [k for k in range(1, 256) if Fraction(float(Fraction(k, 255))) < Fraction(k, 255)]
    assert below, "some k/255 must round down, or this test shows nothing"
    for k in below:
        assert ceil_float(Fraction(k, 255)) == math.nextafter(k / 255, math.inf)
    assert ceil_float(Fraction(1, 10)) == 0.1  # the neighbour of one tenth lies above it


@given(exact_radii)
def test_a_formatted_radius_is_the_same_number(exact: Fraction) -> None:
    assert parse_radius(format_radius(exact)) == exact


def test_radii_are_short_where_that_is_exact() -> None:
    written = ["8/255", "0.25", "0", "10", "1/3", "0.00001"]
    assert [format_radius(parse_radius(r)) for r in written] == ["8/255", "0.25", "0", "10", "1/3", "1/100000"]
