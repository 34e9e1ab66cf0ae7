"""How sure ranks are: the bootstrap over images, and over training seeds where an ensemble has several."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from leaderboards.metrics import CONFIDENCE

#: Resamples; their generator is seeded, so that equal rows give equal boards.
RESAMPLES = 2000
_SEED = 20240607


def rank_intervals(
    scores: Sequence[npt.ArrayLike], confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> list[tuple[int, int]]:
    """For each competitor the least and the largest rank in the middle `confidence` of resamples.

    A competitor is scored by the mean over its training seeds of the mean over images. A resample draws images with
    replacement, the same for all, as they share them; and, of a competitor with several seeds, seeds with replacement.
    A competitor with one seed is taken as it is: nothing is known of its other seeds. Drawn from s of them, means
    differ by `sqrt((s - 1) / s)` less than means of new seeds would, so what the seeds add is enlarged by the inverse.

    Args:
        scores: a competitor each, float64[seeds, images], the images in one order.
        confidence: the share of resamples whose ranks are kept, cut from both ends.
        resamples: how many.

    Returns:
        Ranks from 1; equals share the best.

    Raises:
        ValueError: no competitors, or images of different numbers.

    Source: Efron, Ann. Stat. 7 (1979), percentile intervals.
    """
    tables = [np.atleast_2d(np.asarray(table, dtype=np.float64)) for table in scores]
    if not tables or len({table.shape[1] for table in tables}) != 1:
        raise ValueError("Ranks need competitors that were measured on the same images.")
    images = tables[0].shape[1]
    generator = np.random.default_rng(_SEED)
    weights = generator.multinomial(images, np.full(images, 1 / images), size=resamples) / images
    drawn = np.empty((resamples, len(tables)))
    for number, table in enumerate(tables):
        seeds = len(table)
        shares = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
        of_seeds = weights @ table.T
        widened = np.sqrt(seeds / max(1, seeds - 1)) * (shares - 1 / seeds)
        drawn[:, number] = of_seeds.mean(axis=1) + (of_seeds * widened).sum(axis=1)
    # Sums in another order differ in their last bits: what is equal there must share a rank.
    drawn = np.round(drawn, 12)
    ranks = 1 + (drawn[:, None, :] > drawn[:, :, None]).sum(axis=2) if len(tables) <= 40 else _ranks(drawn)
    tail = (1 - confidence) / 2
    low = np.quantile(ranks, tail, axis=0, method="lower")
    high = np.quantile(ranks, 1 - tail, axis=0, method="higher")
    return [(int(first), int(last)) for first, last in zip(low, high, strict=True)]


def _ranks(drawn: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Ranks of each row, by sorting: all pairs of many competitors would not fit into memory."""
    ascending = np.sort(drawn, axis=1)
    above = [
        drawn.shape[1] - np.searchsorted(row, values, side="right")
        for row, values in zip(ascending, drawn, strict=True)
    ]
    return 1 + np.array(above, dtype=np.int64)
