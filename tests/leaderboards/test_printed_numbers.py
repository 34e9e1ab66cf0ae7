"""Rounding up never certifies, however a log was printed."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaderboards.printed_numbers import Printing, parse_printed, spelled_float
from leaderboards.radii import floor_float

#: How programs print radii: to significant digits or to decimals, with trailing zeros or without, or in full.
PRINTERS: dict[str, Callable[[float], str]] = {
    "three significant digits": "{:.3}".format,
    "%.3g": "{:.3g}".format,
    "two significant digits": "{:.2}".format,
    "six significant digits": "{:.6}".format,
    "two decimals": "{:.2f}".format,
    "three decimals": "{:.3f}".format,
    "two decimals, zeros left out": lambda radius: str(round(radius, 2)),
    "exponents": "{:.2e}".format,
    "in full": repr,
    "17 significant digits": "{:.17g}".format,
}
RADII = st.one_of(st.floats(0, 4), st.floats(0, 1e-3), st.integers(0, 400).map(lambda k: k / 100), st.floats(0, 1e6))


@pytest.mark.parametrize("name", PRINTERS)
@settings(deadline=None)  # machines may be busy
@given(radii=st.lists(RADII, min_size=1, max_size=8))
def test_no_radius_is_claimed_beyond_the_one_that_was_printed(name: str, radii: list[float]) -> None:
    printed = [parse_printed("radius", PRINTERS[name](radius)) for radius in radii]
    printing = Printing(printed)
    for radius, value in zip(radii, printed, strict=True):
        claimed = printing.lower_end(value)
        assert 0 <= claimed <= radius
        # And no more is given away than the unit that the log allows, and a rounding of float64.
        assert Fraction(value) - Fraction(claimed) <= printing.unit(value) / 2 + Fraction(math.ulp(float(value) or 1))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        # 0.250 may be 0.2495 where the others have three significant digits.
        (["0.25", "0.953", "0.952", "2.37", "2.36"], [0.2495, 0.9525, 0.9515, 2.365, 2.355]),
        # However often it occurs: the largest radius may end in a zero.
        (["1.6", "1.6", "1.6", "1.59", "1.58", "0.953", "0.123"], [1.595, 1.595, 1.595, 1.585, 1.575, 0.9525, 0.1225]),
        # Where too many are shorter, nothing says that what they lack are zeros.
        (["0.25", "0.953", "2.1"], [0.245, 0.9525, 2.05]),
        # And one with more digits than all others, an edited one, takes nothing from them.
        (["0.9534567", "1.61", "0.25", "0.952"], [0.95345665, 1.605, 0.245, 0.9515]),
        # Two decimals: 0.95 may be 0.945.
        (["0.95", "2.10"], [0.945, 2.095]),
        # Alone, 2.1 may have been printed with one decimal, and 2 with none.
        (["2.1"], [2.05]),
        (["2"], [1.5]),
        (["0.0", "1e-05", "0.953"], [0.0, 0.5e-5, 0.9525]),
        (["0.0", "1.23e-05", "1e-05", "0.953", "0.952", "0.951"], [0.0, 1.225e-5, 0.995e-5, 0.9525, 0.9515, 0.9505]),
        # As many digits as a float64 has: nothing was rounded, 1.05 is 1.05.
        (
            ["0.17406778407075316", *(f"0.2{k}406778407075316" for k in range(3)), "1.05", "0.0"],
            [0.17406778407075316, 0.20406778407075316, 0.21406778407075316, 0.22406778407075316, 1.05, 0.0],
        ),
        (["0.0", "0"], [0.0, 0.0]),
    ],
)
def test_half_a_unit_of_the_last_digit_is_given_away(texts: list[str], expected: list[float]) -> None:
    printed = [parse_printed("radius", text) for text in texts]
    printing = Printing(printed)
    found = [printing.lower_end(value) for value in printed]
    assert found == [pytest.approx(value, abs=1e-15) for value in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.24999999999999999", math.nextafter(0.25, 0)),
        ("0.49999999999999999999999", math.nextafter(0.5, 0)),
        ("0.99999999999999999", math.nextafter(1, 0)),
        ("0.2500000000000000000", 0.25),
        ("0.25000000000000001", 0.25),
        # Of the float64 just above 1/10: its shortest decimal, its first 17 digits, and one digit more, which are not
        # below it; then a decimal below it that nothing prints of it.
        ("0.1", 0.1),
        ("0.10000000000000001", 0.1),
        ("0.100000000000000006", 0.1),
        ("0.10000000000000000001", math.nextafter(0.1, 0)),
    ],
)
def test_no_more_is_claimed_than_a_decimal_of_many_digits_says(text: str, expected: float) -> None:
    full = [Decimal(f"0.{k}7406778407075316") for k in range(1, 10)]
    value = parse_printed("radius", text)
    assert Printing([value, *full]).lower_end(value) == spelled_float(value) == expected
    assert Fraction(expected) <= Fraction(value) or text in (repr(expected), f"{expected:.17g}")


@given(radius=st.floats(0, 1e6))
def test_a_float_printed_in_full_is_that_float(radius: float) -> None:
    for text in (repr(radius), f"{radius:.17g}", f"{radius:.16e}"):
        assert spelled_float(parse_printed("radius", text)) == radius


@given(digits=st.integers(10**16, 10**22), shift=st.integers(17, 30))
def test_a_decimal_of_many_digits_is_never_exceeded_unless_it_spells_the_float(digits: int, shift: int) -> None:
    value = Decimal(digits).scaleb(-shift)
    found = spelled_float(value)
    above = Fraction(found) > Fraction(value)
    assert not above or value in (Decimal(repr(found)), Decimal(f"{found:.17g}"))
    assert found in (float(value), math.nextafter(float(value), 0))


def test_it_says_what_was_given_away() -> None:
    few, one, many = Printing([Decimal("0.953")]), Printing([Decimal("2")]), Printing([Decimal("0.17406778407075316")])
    mixed = Printing([Decimal("0.953"), Decimal("0.9")])
    assert "half a unit of the last that each shows, as they are not printed alike, is subtracted" in str(mixed)
    assert str(few).startswith("printed with up to 3 significant digits; half a unit of the last is subtracted")
    assert "up to 1 significant digit;" in str(one)
    assert str(many).endswith("17 significant digits, as many as a float64 has: nothing is given away")


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "+1", "-0.5", "-0", "nan", "inf", "Infinity", "1e999", "1_0", "0x1", ".5", "5.", "00.5", "1,5",
     "١", "1e", "1e+", "1e1000", "1" * 40, "0." + "1" * 61],
)  # fmt: skip
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"radius is .*, not a number at least 0"):
        parse_printed("radius", text)


@given(numerator=st.integers(0, 10**30), denominator=st.integers(1, 10**30))
def test_the_largest_float_not_above(numerator: int, denominator: int) -> None:
    exact = Fraction(numerator, denominator)
    found = floor_float(exact)
    assert Fraction(found) <= exact < Fraction(math.nextafter(found, math.inf))
