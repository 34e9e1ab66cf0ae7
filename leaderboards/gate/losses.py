"""Losses of certified accuracy, by paired tests that keep a budget of false alarms.

At each radius, on the same images, `lost` are certified for their class in BASE alone and `gained` in HEAD alone.

    regression     the exact one-sided McNemar test rejects "no loss", with Holm's correction over all tests of the
                   comparison at the budget, and the loss found exceeds the margin
    pass           the upper bound on the loss (Tango's score bound, one-sided) is within the margin
    inconclusive   neither

**The budget.** If nothing changed but noise, an image that differs is as likely lost as gained, independently of the
others: given their number, `lost` is binomial with probability 1/2, and each test's p-value is valid. Holm's procedure
then rejects any of them with a probability of at most the budget, whatever their dependence, and the margin can only
remove alarms. The alternative, to test "the loss is at most the margin", would keep the budget even for losses
up to the margin, at a price: the loss must then be told from the margin and not from 0. With 2000 images, 4 % of them
different, and seven radii, that finds a loss of two points less than every third time, and this test nine times in ten.
So a true loss between 0 and the margin is not a false alarm here: it is a loss, and may be called one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.stats import norm

from leaderboards.gate.findings import Finding, Kind, Outcome, Rules
from leaderboards.numerals import quantity
from leaderboards.paired import correctness, largest_loss, mcnemar_loss
from leaderboards.radii import format_radius
from leaderboards.records import Entry


@dataclass(frozen=True)
class Loss:
    """One entry at one radius in two runs. `p_value` is of the exact one-sided test, uncorrected."""

    entry: str
    radius: Fraction
    images: int
    before: int
    lost: int
    gained: int
    p_value: float

    @property
    def loss(self) -> float:
        """Certified accuracy of BASE less that of HEAD, in [-1, 1]."""
        return (self.lost - self.gained) / self.images


def losses(base: Entry, head: Entry, radii: tuple[Fraction, ...]) -> list[Loss]:
    """The paired counts and the test at each radius.

    Raises:
        ValueError: the entries are of different images.
    """
    one, other = correctness((base, head), radii)
    lost, gained = (one & ~other).sum(axis=1), (other & ~one).sum(axis=1)
    return [
        Loss(head.name, radius, one.shape[1], int(one[at].sum()), int(lost[at]), int(gained[at]), float(p_value))
        for at, (radius, p_value) in enumerate(zip(radii, mcnemar_loss(lost, gained), strict=True))
    ]


def judged(loss: Loss, adjusted: float, rules: Rules) -> Finding:
    """The finding of one test, `adjusted` being its p-value after Holm's correction."""
    upper = largest_loss(loss.lost, loss.gained, loss.images, rules.uncertainty)
    figures = (
        f"{100 * abs(loss.loss):.2f} points {'gained' if loss.loss < 0 else 'lost'} "
        f"({loss.lost} images lost, {loss.gained} gained of {loss.images}; "
        f"p = {quantity(adjusted)} corrected; "
        f"at most {100 * upper:.2f} points with {1 - rules.uncertainty:.0%} confidence)"
    )
    if adjusted <= rules.false_alarms and loss.loss > rules.margin:
        outcome, said = Outcome.REGRESSION, figures
    elif upper <= rules.margin:
        outcome, said = Outcome.PASS, figures
    else:
        outcome = Outcome.INCONCLUSIVE
        said = f"{figures}: a loss beyond {100 * rules.margin:g} points is neither shown nor excluded"
    numbers = {
        "images": loss.images,
        "certified_before": loss.before,
        "lost": loss.lost,
        "gained": loss.gained,
        "loss": loss.loss,
        "p_value": loss.p_value,
        "p_holm": adjusted,
        "loss_at_most": upper,
    }
    return Finding(Kind.LOSS, loss.entry, outcome, said, f"r = {format_radius(loss.radius)}", numbers)


def too_few_images(tests: Sequence[Loss], rules: Rules) -> list[str]:
    """A sentence for each number of images on which no loss beyond the margin m can be excluded, even if none differs.

    Tango's upper bound for n images of which none differs is `z^2 / (n + z^2)`, z the normal quantile of
    `1 - uncertainty`; it is at most m from `n = z^2 (1 - m) / m` images on.
    """
    if not rules.margin:
        return []
    z = float(norm.isf(rules.uncertainty))
    least = int(np.ceil(z * z * (1 - rules.margin) / rules.margin))
    return [
        f"On {images} images no loss beyond {100 * rules.margin:g} points can be excluded: it takes {least} images, or "
        "a wider margin."
        for images in sorted({test.images for test in tests})
        if largest_loss(0, 0, images, rules.uncertainty) > rules.margin
    ]
