"""Deterministic certifiers on the same weights: image by image, since nothing but rounding may change."""

from collections.abc import Collection

import numpy as np

from leaderboards.gate.findings import Finding, Kind, Outcome
from leaderboards.records import Entry

#: By how much a radius may be lower: another order of sums, not another proof.
ROUNDING = 1e-9


def lost_images(base: Entry, head: Entry, false: Collection[int]) -> Finding:
    """Images of BASE that HEAD no longer certifies, or to a radius lower by more than a relative `ROUNDING`.

    Any is a regression. `false` are images whose certificates in BASE are known to be false: losing those is right.
    """
    first = base.rows.set_index("image_id").sort_index()
    second = head.rows.set_index("image_id").reindex(first.index)
    kept = (first["verdict"] == "CERTIFIED").to_numpy() & ~first.index.isin(list(false))
    still = (second["verdict"] == "CERTIFIED").to_numpy()
    before = first["radius"].to_numpy(dtype=np.float64)
    after = np.where(still, second["radius"].to_numpy(dtype=np.float64), 0.0)
    gone = kept & ~still
    lower = kept & still & ~(after >= before * (1 - ROUNDING))
    images = [int(image) for image in first.index[gone | lower]]
    gained = int((~kept & still).sum())
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
