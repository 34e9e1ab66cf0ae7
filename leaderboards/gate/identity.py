"""Determinism: one key stands for one result, so rows of equal keys are equal in all columns that are not measured."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from leaderboards.gate.findings import Finding, Kind, Outcome
from leaderboards.records import EVIDENCE_PREFIX, FAILURES, MEASURED_COLUMNS, Entry

_TIMED_OUT = f"{EVIDENCE_PREFIX}timeout"
_STAGE = f"{EVIDENCE_PREFIX}stage"

_Mask = npt.NDArray[np.bool_]


def same_rows(base: Entry, head: Entry) -> Finding:
    """Two entries of one key, compared column by column; a difference is a regression.

    Where a time limit had a part in a row (`_timed`), a difference is none; but if HEAD certifies less there, the
    comparison is inconclusive, since a slow machine looks like a lost proof. Certificates that an audit of one of the
    two has refuted are left out: they are told elsewhere.
    """
    rows = [entry.rows[~entry.rows["reason"].str.startswith("refuted by an audit")] for entry in (base, head)]
    one, other = (frame.set_index("image_id") for frame in rows)
    shared = one.index.intersection(other.index).sort_values()
    first, second = one.loc[shared], other.loc[shared]
    timed = _timed(base, first) | _timed(head, second)
    columns = [name for name in first.columns.union(second.columns, sort=False) if name not in MEASURED_COLUMNS]
    both = [name for name in columns if name in first and name in second]
    different = [name for name in columns if name not in both or not first[name][~timed].equals(second[name][~timed])]
    changed = np.zeros(len(shared), dtype=np.bool_)
    for name in both:
        equal = (first[name] == second[name]) | (first[name].isna() & second[name].isna())
        changed |= ~equal.to_numpy(dtype=np.bool_)
    if different:
        images = [int(image) for image in shared[changed & ~timed]]
        where = f"; the first image is {images[0]}" if images else ""
        said = (
            f"one key, two results: {len(images)} of {len(shared)} rows differ, in {', '.join(different)}{where}. "
            "Equal weights, data, parameters and seed must give equal rows: raise the certifier's version if its "
            "numbers changed"
        )
        numbers: dict[str, Any] = {"rows": len(shared), "different": len(images), "columns": different}
        return Finding(Kind.DETERMINISM, head.name, Outcome.REGRESSION, said, numbers=numbers | {"images": images})
    same = int((~changed).sum())
    less = [int(image) for image in shared[changed & _certifies_less(first, second)]]
    said = f"{same} rows of one key are equal in all {len(columns)} columns"
    if changed.any():
        said += f", and in {int(changed.sum())} time ran out or an error came between"
    numbers = {"rows": same, "timed": int(changed.sum()), "images": less}
    if less:
        said += f"; {len(less)} of these certify less: run it on an idle machine"
        return Finding(Kind.DETERMINISM, head.name, Outcome.INCONCLUSIVE, said, numbers=numbers)
    return Finding(Kind.DETERMINISM, head.name, Outcome.PASS, said, numbers=numbers)


def _timed(entry: Entry, rows: pd.DataFrame) -> _Mask:
    """Which rows a time limit may have decided, or an error.

    ERROR and TIMEOUT; `timeout` in the evidence, whatever was proved before; and of a certifier of stages, which does
    not say so, images that a stage with a limit closed or that stayed open.
    """
    timed = rows["verdict"].isin(FAILURES).to_numpy()
    if _TIMED_OUT in rows:
        timed = timed | (rows[_TIMED_OUT] != 0).to_numpy()
    if _STAGE in rows:
        described = entry.details.get("certifier", {}).get("stages", ())
        limited = [stage["name"] for stage in described if "time_limit" in stage.get("parameters", {})]
        if limited:
            timed = timed | rows[_STAGE].isin([*limited, "open"]).to_numpy()
    return np.asarray(timed, dtype=np.bool_)


def _certifies_less(first: pd.DataFrame, second: pd.DataFrame) -> _Mask:
    kept = (
        (second["verdict"] == "CERTIFIED")
        & (second["prediction"] == first["prediction"])
        & (second["radius"] >= first["radius"])
    )
    return np.asarray((first["verdict"] == "CERTIFIED") & ~kept, dtype=np.bool_)
