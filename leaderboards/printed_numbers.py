"""Radii as they are printed in a log, and what may be claimed of them: rounding up never certifies.

A log prints the nearest decimal of a few digits, so that the radius behind `0.250` may be 0.2495. What is certified is
at least `printed - unit / 2`, with `unit` that of the last digit printed.

The unit is not always to be seen: `2.1` is what Python's `{:.3}` prints of 2.1 and of 2.0951. So it is inferred from
the whole log. With S the most significant digits and D the most decimals of any of its radii, the log was printed
with S significant digits, or with D decimals, zeros at the end left out or not; of a radius x the unit is then at most

    max(10^-D, 10^(floor(log10 x) - S + 1))

which is what is used where the log bears it out: one in ten radii ends in a zero, and so at least eight in ten of the
different ones must show all S digits. In any other log, one with a radius of more digits than its others included, the
last digit that a radius shows counts.

Where the unit is that of the 17th significant digit or below, nothing was lost: so many digits spell one float64 and no
other, and that is the radius, where it is printed as programs print it. Any other decimal of so many digits is no
float64's, and is rounded down (`spelled_float`).
"""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from leaderboards.radii import floor_float

#: Significant digits that tell any float64 from any other.
_EXACT_DIGITS = 17

# Of the different radii of a log, how many must show all digits: nine in ten do, on average.
_SHARE = 0.8

# No sign, no spaces, no digits of other scripts, no underscores, no `inf`: `float` takes them all.
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,29})(?:\.[0-9]{1,60})?(?:[eE][+-]?[0-9]{1,3})?")


def parse_printed(column: str, text: str) -> Decimal:
    """The decimal that a text spells.

    Raises:
        ValueError: not a decimal number at least 0, or larger than any float64.
    """
    if not _DECIMAL.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(f"{column} is {text!r}, not a number at least 0.")
    return Decimal(text)


class Printing:
    """How the radii of one log were printed: at most with `digits` significant digits and `decimals` decimals.

    `alike` says whether so many radii show all the digits that the others can only lack zeros. Radii of 0 say nothing:
    they are printed in more than one way, and their lower end is 0 anyway.

    Args:
        printed: all radii of the log.
        share: of the different ones, how many must show all digits.
    """

    def __init__(self, printed: Sequence[Decimal], share: float = _SHARE) -> None:
        # Each once: the largest radius that a method can reach is that of many images, and may end in a zero.
        shown = [_digits(value) for value in {str(value): value for value in printed if value}.values()]
        self.digits = max(shown, default=1)
        self.decimals = max((-_exponent(value) for value in printed if value), default=0)
        # Programs that print all digits of a float64 print as many as it needs, and 15 or 16 are often enough.
        full = self.digits if self.digits < _EXACT_DIGITS else _EXACT_DIGITS - 2
        self.alike = sum(digits >= full for digits in shown) >= share * len(shown)

    def unit(self, printed: Decimal) -> Fraction:
        """The largest unit of the last digit that the log allows; 0 where no digit was lost."""
        if not printed:
            return Fraction(0)
        first = printed.adjusted()
        last = max(-self.decimals, first - self.digits + 1) if self.alike else _exponent(printed)
        return Fraction(0) if last <= first - _EXACT_DIGITS + 1 else Fraction(10) ** last

    def lower_end(self, printed: Decimal) -> float:
        """`max(0, printed - unit / 2)`, rounded down to a float64: the radius that may be claimed.

        Where no digit was lost, the float64 that is spelled (`spelled_float`).
        """
        unit = self.unit(printed)
        return floor_float(max(Fraction(printed) - unit / 2, Fraction(0))) if unit else spelled_float(printed)

    def __str__(self) -> str:
        """What was given away, for readers."""
        if self.alike and self.digits >= _EXACT_DIGITS:
            return f"printed with {self.digits} significant digits, as many as a float64 has: nothing is given away"
        plural = "" if self.digits == 1 else "s"
        last = "the last" if self.alike else "the last that each shows, as they are not printed alike,"
        return (
            f"printed with up to {self.digits} significant digit{plural}; half a unit of {last} is subtracted, the "
            "rest rounded down, so that rounding up never certifies"
        )


def spelled_float(printed: Decimal) -> float:
    """The float64 that a decimal spells, or else the largest that is not above it.

    A float64 is spelled by the shortest decimal that denotes it, and by its first 17 significant digits. Either may lie
    below it: 0.1 is that of a float64 just above 1/10. 0.24999999999999999 is neither, and does not certify 1/4,
    although the nearest float64 is 0.25.
    """
    nearest = float(printed)
    if printed in (Decimal(repr(nearest)), Decimal(f"{nearest:.{_EXACT_DIGITS}g}")):
        return nearest
    return floor_float(Fraction(printed))


def _digits(value: Decimal) -> int:
    return len(value.as_tuple().digits)


def _exponent(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)  # noqa: S101 -- parse_printed lets no NaN or infinity through
    return exponent
