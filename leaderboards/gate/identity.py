"""Determinism: one key stands for one result, so rows of equal keys are equal in all columns that are not measured."""

import pandas as pd

from leaderboards.gate.findings import Finding, Kind, Outcome
from leaderboards.records import EVIDENCE_PREFIX, FAILURES, MEASURED_COLUMNS, Entry

_TIMED_OUT = f"{EVIDENCE_PREFIX}timeout"


def same_rows(base: Entry, head: Entry) -> Finding:
    """Two entries of one key, compared column by column; a difference is a regression.

    Rows that time decides (ERROR, TIMEOUT, or `timeout` in the evidence) are left out, and so are certificates that an
    audit of one of the two has refuted, which is told elsewhere.
    """
    rows = [_comparable(entry) for entry in (base, head)]
    shared = rows[0].index.intersection(rows[1].index)
    first, second = (frame.loc[shared] for frame in rows)
    columns = [name for name in first.columns.union(second.columns, sort=False) if name not in MEASURED_COLUMNS]
    both = [name for name in columns if name in first and name in second]
    different = [name for name in columns if name not in both or not first[name].equals(second[name])]
    if not different:
        said = f"{len(shared)} rows of one key are equal in all {len(columns)} columns"
        return Finding(Kind.DETERMINISM, head.name, Outcome.PASS, said, numbers={"rows": len(shared)})
    changed = pd.Series(False, index=shared)
    for name in both:
        one, other = first[name], second[name]
        changed |= ~((one == other) | (one.isna() & other.isna()))
    images = [int(image) for image in changed.index[changed]]
    where = f"; the first image is {images[0]}" if images else ""
    said = (
        f"one key, two results: {len(images)} of {len(shared)} rows differ, in {', '.join(different)}{where}. Equal "
        "weights, data, parameters and seed must give equal rows: raise the certifier's version if its numbers changed"
    )
    numbers = {"rows": len(shared), "different": len(images), "columns": different, "images": images}
    return Finding(Kind.DETERMINISM, head.name, Outcome.REGRESSION, said, numbers=numbers)


def _comparable(entry: Entry) -> pd.DataFrame:
    rows = entry.rows
    kept = ~rows["verdict"].isin(FAILURES) & ~rows["reason"].str.startswith("refuted by an audit")
    if _TIMED_OUT in rows:
        kept &= rows[_TIMED_OUT] == 0
    return rows[kept].set_index("image_id").sort_index()
