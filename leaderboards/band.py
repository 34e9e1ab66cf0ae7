"""A band around a whole certified-accuracy curve, which holds at all radii at once.

Certified accuracy at r is one minus the distribution function, just below r, of the radius that an image earns (0 where
it is wrong or not certified). So the curve errs by D at its worst radius, D being Kolmogorov's statistic of n images.
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import kstwo

from leaderboards.metrics import CONFIDENCE, Columns, Curve, certified_curve


def band_half_width(images: int, confidence: float = CONFIDENCE) -> float:
    """By how much a whole curve of so many images may err, in [0, 1], with that confidence.

    `d` with `P(D_n <= d) = confidence`, of the exact distribution of Kolmogorov's two-sided statistic. The inequality
    of Dvoretzky, Kiefer and Wolfowitz with Massart's constant, `sqrt(log(2 / (1 - confidence)) / (2 n))`, holds as
    well and is never narrower. Earned radii have ties (a share of images earns 0), under which D is only smaller.

    Raises:
        ValueError: no images, or a confidence outside (0, 1).

    Source: Kolmogorov, 1933; distribution as in Simard and L'Ecuyer, J. Stat. Software 39 (2011), through
    `scipy.stats.kstwo`; Massart, Ann. Probab. 18 (1990).
    """
    if images < 1 or not 0 < confidence < 1:
        raise ValueError(f"A band needs images and a confidence between 0 and 1, got {images} and {confidence}.")
    return min(1.0, float(kstwo.ppf(confidence, images)))


def simultaneous_band(rows: Columns, grid: npt.ArrayLike | None = None, confidence: float = CONFIDENCE) -> Curve:
    """Certified accuracy at every radius of `grid` between the ends of a band that holds at all radii at once.

    `value - d <= true certified accuracy <= value + d`, cut to [0, 1], with `d = band_half_width(images)`. Beside it,
    the intervals of `certified_curve` are narrower and hold at one radius each.

    Args:
        rows: the rows of one entry.
        grid: float64 radii; by default 0 and all radii at which the curve drops.
        confidence: that the whole true curve lies inside.

    Raises:
        ValueError: as `band_half_width` and `metrics.correct_at`.
    """
    curve = certified_curve(rows, grid)
    width = band_half_width(len(np.asarray(rows["radius"])), confidence)
    return curve._replace(low=np.clip(curve.value - width, 0, 1), high=np.clip(curve.value + width, 0, 1))
