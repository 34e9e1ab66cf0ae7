"""Two entries on the same images: what one certifies and the other does not.

Entries of a board share images and noise, so their differences are far surer than their intervals suggest: images on
which both agree say nothing about which is better, and are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binom, norm, rankdata, wilcoxon

from leaderboards.metrics import correct_at, earned_radii
from leaderboards.records import Entry

#: Up to so many images that differ, all their signs are enumerated; a normal approximation is used beyond.
MOST_ENUMERATED = 13

_Floats = npt.NDArray[np.float64]
_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairedAt:
    """Two entries at one radius. `lost` images are certified by the first alone, `gained` ones by the second alone."""

    radius: Fraction
    both: int
    lost: int
    gained: int
    neither: int
    p_value: float
    adjusted: float

    @property
    def images(self) -> int:
        """All images."""
        return self.both + self.lost + self.gained + self.neither

    @property
    def difference(self) -> float:
        """Certified accuracy of the second less that of the first, in [-1, 1]."""
        return (self.gained - self.lost) / self.images


@dataclass(frozen=True)
class PairedComparison:
    """Two entries at all radii: exact McNemar tests, `adjusted` by Holm over radii; Wilcoxon on the earned radii."""

    first: str
    second: str
    at: tuple[PairedAt, ...]
    wilcoxon_p_value: float
    mean_radius_difference: float


def mcnemar(lost: npt.ArrayLike, gained: npt.ArrayLike) -> _Floats:
    """Exact two-sided McNemar tests: p-values of "an image that differs is as likely lost as gained".

    `min(1, 2 P(B <= min(lost, gained)))`, B binomial with `lost + gained` trials and probability 1/2; 1 without any.

    Args:
        lost: int[...], images that only the first certifies.
        gained: int[...], images that only the second certifies.

    Source: McNemar, Psychometrika 12 (1947), in its exact form.
    """
    first, second = np.asarray(lost, dtype=np.int64), np.asarray(gained, dtype=np.int64)
    return np.minimum(1.0, 2 * np.asarray(binom.cdf(np.minimum(first, second), first + second, 0.5), dtype=np.float64))


def mcnemar_loss(lost: npt.ArrayLike, gained: npt.ArrayLike) -> _Floats:
    """The one-sided form: p-values of "an image that differs is at most as likely lost as gained".

    `P(B >= lost)`, B binomial with `lost + gained` trials and probability 1/2; 1 without any.
    """
    first, second = np.asarray(lost, dtype=np.int64), np.asarray(gained, dtype=np.int64)
    return np.asarray(binom.sf(first - 1, first + second, 0.5), dtype=np.float64)


def sign_flips(differences: npt.ArrayLike) -> float:
    """A one-sided p-value of "each difference is as likely of the other sign", against a sum that is too large.

    `P(sum s_i d_i >= sum d_i)`, `s_i` independent and ±1 with probability 1/2. Up to `MOST_ENUMERATED` differences that
    are not 0, all signs are enumerated; beyond, it is bounded by `exp(-(sum d_i)^2 / (2 sum d_i^2))`, which is never
    too small. 1 where the sum is not above 0.

    Args:
        differences: [images], in one unit.

    Source: Hoeffding, J. Am. Stat. Assoc. 58 (1963), theorem 2.
    """
    found = np.asarray(differences, dtype=np.float64)
    found = found[found != 0]
    total = found.sum()
    if total <= 0:
        return 1.0
    if found.size > MOST_ENUMERATED:
        return float(np.exp(-(total**2) / (2 * (found**2).sum())))
    signs = 1 - 2 * ((np.arange(2**found.size)[:, None] >> np.arange(found.size)) & 1)
    # Another order of the same sum may end an ulp below it.
    return float((signs @ found >= total - 1e-12 * np.abs(found).sum()).mean())


def largest_loss(lost: int, gained: int, images: int, uncertainty: float) -> float:
    """The upper end of a one-sided interval for a loss of paired proportions.

    The D at which the score statistic `(lost - gained - n D) / sqrt(n (2 q + D (1 - D)))` is the lower normal
    quantile, q being the most likely share of gained images if the loss is D.

    Args:
        lost: images that only the first certifies.
        gained: images that only the second certifies.
        images: all of them, n.
        uncertainty: one minus the confidence.

    Source: Tango, Statistics in Medicine 17 (1998), eq. 4 to 6. Approximate, near its level from some ten images on.
    """
    z = float(norm.isf(uncertainty))
    estimate = (lost - gained) / images

    def excess(loss: float) -> float:
        b = -lost - gained + (2 * images - lost + gained) * loss
        c = -gained * loss * (1 - loss)
        # The discriminant is a square where all images are lost or gained; rounding may put it below 0.
        q = (np.sqrt(max(b * b - 8 * images * c, 0.0)) - b) / (4 * images)
        variance = images * (2 * q + loss * (1 - loss))
        return float(lost - gained - images * loss + z * np.sqrt(max(variance, 0.0)))

    # Just above the estimate, since at it the variance is 0 where all images are alike: lost, gained or neither.
    low, top = estimate + 1e-12, 1 - 1e-12
    return 1.0 if low >= top or excess(top) >= 0 else float(brentq(excess, low, top))


def holm(p_values: npt.ArrayLike) -> _Floats:
    """Adjusted p-values: rejecting those at most `a` makes any false rejection with probability at most `a`.

    `max over j <= i of min(1, (m - j + 1) p_(j))` of the ascending p-values; holds whatever their dependence.

    Source: Holm, Scand. J. Stat. 6 (1979).
    """
    given = np.asarray(p_values, dtype=np.float64)
    flat = given.ravel()
    order = np.argsort(flat, kind="stable")
    stepped = np.maximum.accumulate(flat[order] * np.arange(flat.size, 0, -1))
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(1.0, stepped)
    return adjusted.reshape(given.shape)


def signed_rank(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Wilcoxon's signed-rank test, two-sided: the p-value of "differences are symmetric about 0".

    Images with equal radii in both are dropped (Wilcoxon's own rule), and tied differences share the mean of their
    ranks. Up to `MOST_ENUMERATED` images that differ, all signs are enumerated, which is exact under ties; beyond, the
    normal approximation has the variance of ties. 1 where nothing differs.

    Args:
        first: float64[images], earned radii in input units.
        second: float64[images], of the same images.

    Source: Wilcoxon, Biometrics 1 (1945).
    """
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    difference = difference[difference != 0]
    if difference.size < 2:  # either sign of a single one is as likely as the other
        return 1.0
    if difference.size > MOST_ENUMERATED:
        return float(wilcoxon(difference, zero_method="wilcox", method="approx").pvalue)
    # scipy's permutation test counts the same sums, one by one in Python: seconds an entry.
    ranks = rankdata(np.abs(difference))
    signs = (np.arange(2**difference.size)[:, None] >> np.arange(difference.size)) & 1
    every, found = signs @ ranks, ranks[difference > 0].sum()
    return float(min(1.0, 2 * min((every <= found).mean(), (every >= found).mean())))


def correctness(entries: Sequence[Entry], radii: Sequence[Fraction]) -> npt.NDArray[np.bool_]:
    """Which images each entry certifies at each radius for their true class: bool[entries, radii, images].

    Images are in the order of their ids, whatever that of the rows.

    Raises:
        ValueError: entries of different images, or rows that cannot be scored.
    """
    frames = [entry.rows.sort_values("image_id", kind="stable") for entry in entries]
    for one, other in pairwise(frames):
        if not np.array_equal(one["image_id"].to_numpy(), other["image_id"].to_numpy()):
            raise ValueError("These entries are of different images and cannot be paired. Run both with one spec.")
    return np.array([[correct_at(rows, radius) for radius in radii] for rows in frames], dtype=np.bool_)


def compare_entries(first: Entry, second: Entry, radii: Sequence[Fraction]) -> PairedComparison:
    """Two entries that were chosen before looking at their numbers.

    `adjusted` corrects for the radii alone. For any pair of a board picked by its numbers, see `all_pairs`.

    Raises:
        ValueError: as `correctness`.
    """
    one, other = correctness((first, second), radii)
    lost, gained = (one & ~other).sum(axis=1), (other & ~one).sum(axis=1)
    p_values = mcnemar(lost, gained)
    adjusted = holm(p_values)
    at = tuple(
        PairedAt(
            radius=radius,
            both=int((one[i] & other[i]).sum()),
            lost=int(lost[i]),
            gained=int(gained[i]),
            neither=int((~one[i] & ~other[i]).sum()),
            p_value=float(p_values[i]),
            adjusted=float(adjusted[i]),
        )
        for i, radius in enumerate(radii)
    )
    earned = [earned_radii(entry.rows.sort_values("image_id", kind="stable")) for entry in (first, second)]
    return PairedComparison(
        first.name, second.name, at, signed_rank(*earned), float(np.mean(earned[1]) - np.mean(earned[0]))
    )


@dataclass(frozen=True)
class AllPairs:
    """Every two entries at every radius: arrays [entries, entries, radii], the first index being the first entry.

    `adjusted` holds Holm's p-values over all pairs and radii: whichever pair a reader picks, afterwards and by
    its numbers, all claims at most `a` together have a false one with probability at most `a`.
    """

    lost: _Counts
    gained: _Counts
    adjusted: _Floats


def all_pairs(entries: Sequence[Entry], radii: Sequence[Fraction]) -> AllPairs:
    """Exact McNemar tests of all pairs at all radii (`AllPairs`).

    Raises:
        ValueError: as `correctness`.
    """
    correct = correctness(entries, radii).astype(np.int64)
    lost = np.einsum("arn,brn->abr", correct, 1 - correct, optimize=True)
    gained = lost.transpose(1, 0, 2)
    upper = np.triu_indices(len(entries), k=1)
    adjusted = np.ones(lost.shape)
    adjusted[upper] = holm(mcnemar(lost[upper], gained[upper]))
    adjusted = np.minimum(adjusted, adjusted.transpose(1, 0, 2))
    return AllPairs(lost, gained, adjusted)
