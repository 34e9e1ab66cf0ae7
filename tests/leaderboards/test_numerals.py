from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboards import numerals
from leaderboards.metrics import Share


def test_percent_and_interval_are_compact() -> None:
    # 123 of 200: Clopper-Pearson [54.4, 68.3] percent.
    assert numerals.percent_with_interval(Share(123, 200)) == "61.5 [54.4, 68.3]"
    assert numerals.percent_with_interval(None) == numerals.NOTHING


@given(st.floats(0, 1e6))
def test_a_written_radius_is_never_larger(value: float) -> None:
    # Up to the last place of the float, whose shortest decimal is what is cut.
    assert Fraction(numerals.radius(value)) <= Fraction(repr(value))
    assert Fraction(repr(value)) - Fraction(numerals.radius(value)) < Fraction(1, 1000)


@pytest.mark.parametrize(("value", "written"), [(0.911, "0.911"), (0.9119, "0.911"), (0.0, "0.000"), (2, "2.000")])
def test_radii_have_three_decimals(value: float, written: str) -> None:
    assert numerals.radius(value) == written


@pytest.mark.parametrize(("value", "written"), [(303000, "303,000"), (1.2345, "1.23"), (0.00912, "0.00912"), (0, "0")])
def test_quantities_are_short(value: float, written: str) -> None:
    assert numerals.quantity(value) == written
