"""Rows to be stored, and the files of a store."""

from pathlib import Path
from typing import Any

import pandas as pd

from bench.rows import error_rows

KEY = "ab" * 32


def some_rows(first: int = 0, count: int = 5, **columns: Any) -> pd.DataFrame:
    ids = list(range(first, first + count))
    rows = error_rows(ids, [image % 10 for image in ids], "")
    found = {"verdict": "CERTIFIED", "prediction": 3, "radius": [image / 7 for image in ids], "seconds": 0.25}
    return rows.assign(**found | columns, evidence_n_A=ids, evidence_side="one-sided")


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
