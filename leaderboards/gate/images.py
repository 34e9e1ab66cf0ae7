"""Deterministic certifiers on the same weights: image by image, since nothing but rounding may change."""

from collections.abc import Collection, Sequence
from fractions import Fraction

import numpy as np

from leaderboards.gate.findings import Finding, Kind, Outcome
from leaderboards.paired import correctness
from leaderboards.records import Entry

#: By how much a radius may be lower: another order of sums, not another proof.
ROUNDING = 1e-9


def lost_images(base: Entry, head: Entry, false: Collection[int], radii: Sequence[Fraction]) -> Finding:
    """Images of BASE that HEAD no longer certifies for that class, or to a lower radius.

    Lower is what is less by more than a relative `ROUNDING`, or no longer reaches one of `radii`: a certifier that is
    asked a radius proves just that, and an ulp below it is a column of the board. Any such image is a regression.
    `false` are images whose certificates in BASE are known to be false: losing those is right.
    """
    first, second = (entry.rows.set_index("image_id").sort_index() for entry in (base, head))
    kept = (first["verdict"] == "CERTIFIED").to_numpy() & ~first.index.isin(list(false))
    certified = (second["verdict"] == "CERTIFIED").to_numpy()
    still = certified & (second["prediction"] == first["prediction"]).to_numpy()
    before = first["radius"].to_numpy(dtype=np.float64)
    after = np.where(still, second["radius"].to_numpy(dtype=np.float64), 0.0)
    one, other = correctness((base, head), radii) if radii else np.zeros((2, 0, len(first)), dtype=np.bool_)
    gone = kept & ~still
    lower = kept & still & (~(after >= before * (1 - ROUNDING)) | (one & ~other).any(axis=0))
    images = [int(image) for image in first.index[gone | lower]]
    gained = int((~kept & certified).sum())
    numbers = {"certified": int(kept.sum()), "lost": int(gone.sum()), "lower": int(lower.sum()), "images": images}
    if images:
        worst = float((before - after)[gone | lower].max())
        said = (
            f"same classifier, {int(gone.sum())} of {int(kept.sum())} certificates lost and {int(lower.sum())} with a "
            f"lower radius (by up to {worst:.3g}); the first image is {images[0]}"
        )
        return Finding(Kind.CERTIFICATES, head.name, Outcome.REGRESSION, said, numbers=numbers)
    said = f"same classifier, all {int(kept.sum())} certificates kept, {gained} more"
    return Finding(Kind.CERTIFICATES, head.name, Outcome.PASS, said, numbers=numbers)
