"""The numbers of one complete entry, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from leaderboards import metrics
from leaderboards.metrics import Columns, Curve, Share


@dataclass(frozen=True)
class Scores:
    """What a board shows of one entry. Radii in input units, shares of all images, costs per image.

    `certified` follows the radii of the board. `clean` is None where the clean predictions are not known.
    """

    certified: tuple[Share, ...]
    clean: Share | None
    average_radius: float
    median_radius: float
    abstention: Share
    verdicts: Mapping[str, int]
    forward_passes: float
    bound_passes: float
    seconds: float
    expected_false_certificates: float
    curve: Curve

    @property
    def mean_certified_accuracy(self) -> float:
        """Mean of the certified accuracies over the radii of the board: what a board ranks by."""
        return sum(share.successes for share in self.certified) / sum(share.trials for share in self.certified)


def score(rows: Columns, radii: Sequence[Fraction]) -> Scores:
    """All statistics of `leaderboards.metrics` for one set of rows.

    Raises:
        ValueError: no rows, no radii, or a stored radius that is negative, infinite or NaN.
    """
    if not radii:
        raise ValueError("No radius to score at. Name at least one, such as 0.")
    return Scores(
        certified=tuple(metrics.certified_accuracy(rows, radius) for radius in radii),
        clean=metrics.clean_accuracy(rows),
        average_radius=metrics.average_certified_radius(rows),
        median_radius=metrics.median_certified_radius(rows),
        abstention=metrics.abstention_rate(rows),
        verdicts=metrics.verdict_counts(rows),
        forward_passes=metrics.mean_cost(rows, "forward_passes"),
        bound_passes=metrics.mean_cost(rows, "bound_passes"),
        seconds=metrics.mean_cost(rows, "seconds"),
        expected_false_certificates=metrics.expected_false_certificates(rows),
        curve=metrics.certified_curve(rows),
    )
