"""Radii as exact fractions.

A radius is written once, exactly (`"8/255"`, `0.25`), and compared in one way everywhere: a certificate
holds at the written radius only if its float64 radius is at least the smallest float64 that is not below the
exact fraction. So 8/255 and 0.0314 are never the same column, and rounding never certifies.
"""

import math
import re
import sys
from fractions import Fraction


def parse_radius(written: str | int | float | Fraction) -> Fraction:
    """The exact value of a radius as written in a spec: a fraction, a decimal or a number.

    A float stands for the decimal that Python prints for it (`0.1` is one tenth, not its binary neighbour).

    Raises:
        ValueError: not a finite number, negative, or larger than any float64.
    """
    try:
        if isinstance(written, bool):
            raise TypeError
        # Exponents past those of float64 would be computed digit by digit.
        if isinstance(written, str) and re.search(r"[eE][+-]?[0-9_]{4,}", written):
            raise ValueError
        exact = Fraction(repr(written)) if isinstance(written, float) else Fraction(written)
    except (TypeError, ValueError, ZeroDivisionError):
        raise ValueError(
            f'Radius {written!r} is not a number. Write a fraction or a decimal: "8/255", "0.25", 0.25.'
        ) from None
    if exact < 0:
        raise ValueError(f"Radius {written!r} is negative. A radius is at least 0.")
    if exact > sys.float_info.max:
        raise ValueError(f"Radius {written!r} is larger than any float64. Write a smaller one.")
    return exact


def ceil_float(exact: Fraction) -> float:
    """The smallest float64 that is not below `exact`: what a float64 radius must reach."""
    nearest = float(exact)
    return nearest if Fraction(nearest) >= exact else math.nextafter(nearest, math.inf)


def floor_float(exact: Fraction) -> float:
    """The largest float64 that is not above `exact`: what a float64 radius may claim."""
    nearest = float(exact)
    return nearest if Fraction(nearest) <= exact else math.nextafter(nearest, -math.inf)


def format_radius(exact: Fraction) -> str:
    """A short exact text: a decimal where it terminates within four places, else the fraction."""
    decimal = f"{float(exact):.4f}".rstrip("0").rstrip(".")
    return decimal if Fraction(decimal) == exact else str(exact)
