"""Cost by counters, which depend on the method and not on the machine; seconds are shown and decide nothing.

Rows of two runs were measured at different times, perhaps on different machines: their seconds are not comparable. A
ratio of times gates only where both are measured in turn in one job, which `bench/perf` does.
"""

from dataclasses import dataclass

import numpy as np

from leaderboards.gate.findings import Finding, Kind, Outcome, Rules
from leaderboards.numerals import quantity
from leaderboards.paired import sign_flips
from leaderboards.records import Entry

COUNTERS = ("forward_passes", "bound_passes")


@dataclass(frozen=True)
class Growth:
    """One counter of one entry in two runs.

    `p_value` is None where counters follow from the method alone; where noise or other weights move them it is of
    `sign_flips`: "each image's difference is as likely of the other sign".
    """

    entry: str
    counter: str
    before: int
    after: int
    p_value: float | None

    @property
    def ratio(self) -> float:
        """HEAD over BASE; 1 where both are 0."""
        return self.after / self.before if self.before else 1.0 if not self.after else float("inf")


def growths(base: Entry, head: Entry, *, exact: bool) -> list[Growth]:
    """Both counters, summed over all images; `exact` says that chance has no part in them."""
    one, other = (entry.rows.set_index("image_id").sort_index() for entry in (base, head))
    found = []
    for counter in COUNTERS:
        before, after = one[counter].to_numpy(dtype=np.int64), other[counter].to_numpy(dtype=np.int64)
        p_value = None if exact else sign_flips(after - before)
        found.append(Growth(head.name, counter, int(before.sum()), int(after.sum()), p_value))
    return found


def judged(growth: Growth, adjusted: float | None, rules: Rules) -> Finding:
    """The finding of one counter; `adjusted` is the p-value after Holm's correction, where there is one."""
    grown = growth.ratio > 1 + rules.cost
    # Where chance moves a counter, growth that may be chance is none: a longer run would be the way to look closer.
    sure = adjusted is None or adjusted <= rules.false_alarms
    outcome = Outcome.REGRESSION if grown and sure else Outcome.PASS
    said = f"{growth.before:,} before, {growth.after:,} now: {100 * (growth.ratio - 1):+.1f} %"
    if grown and adjusted is not None:
        said += f" (p = {quantity(adjusted)} corrected{'' if sure else ': not told from chance'})"
    numbers = {"before": growth.before, "after": growth.after, "ratio": growth.ratio, "p_holm": adjusted}
    return Finding(Kind.COST, growth.entry, outcome, said, growth.counter.replace("_", " "), numbers)
