"""How numbers are written on boards for readers. Stored and exported numbers are never rounded."""

import math
from decimal import ROUND_FLOOR, Decimal

from leaderboards.metrics import Share

#: What stands where there is no number.
NOTHING = "–"


def percent(value: float) -> str:
    """A share in [0, 1] in percent with one decimal, half to even; 100.0 is written only of all."""
    shown = f"{100 * value:.1f}"
    return "99.9" if shown == "100.0" and value < 1 else shown


def interval(share: Share) -> str:
    """`[54.4, 68.3]`: the ends of the exact interval in percent."""
    low, high = share.interval
    return f"[{percent(low)}, {percent(high)}]"


def percent_with_interval(share: Share | None) -> str:
    """`61.5 [54.4, 68.3]`, or a dash."""
    return NOTHING if share is None else f"{percent(share.value)} {interval(share)}"


def radius(value: float) -> str:
    """A radius with three decimals, rounded down: rounding never certifies.

    What is rounded is the shortest decimal that denotes the float64, so that 0.911 stays 0.911.
    """
    return str(Decimal(repr(float(value))).quantize(Decimal("0.001"), rounding=ROUND_FLOOR))


def with_spread(value: float, deviation: float) -> str:
    """`61.5 ± 1.2`: a share and its standard deviation, in percent; alone where the deviation is not known (NaN)."""
    shown = percent(value)
    return shown if math.isnan(deviation) else f"{shown} ± {100 * deviation:.1f}"


def span(ends: tuple[int, int]) -> str:
    """`1–3`: the ends of an interval of whole numbers, or one number where they are equal."""
    low, high = ends
    return str(low) if low == high else f"{low}–{high}"


def rank(value: int | None) -> str:
    """A rank, or a dash where an entry is shown without one."""
    return NOTHING if value is None else str(value)


def quantity(value: float) -> str:
    """A cost or an expectation: whole, with separators, from 1000 on, else three significant digits; NaN is a dash."""
    if math.isnan(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
