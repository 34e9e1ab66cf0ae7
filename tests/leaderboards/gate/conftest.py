from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import betaincinv, ndtri

from leaderboards.gate import Measured
from leaderboards.records import Entry, Run

SIGMA, ALPHA = 0.5, 0.001
CELLS = {"certifier": {"name": "smoothing", "version": 1}, "aggregation": {"name": "single"}, "weights": ["w" * 64]}


@pytest.fixture
def measured() -> Callable[..., Measured]:
    def make(*entries: Entry, name: str = "run", radii: Sequence[str] = ("0", "0.5", "1"), **audits: Any) -> Measured:
        return Measured(Run(name, name, "", tuple(radii), "", entries), audits.get("audits", {}))

    return make


@pytest.fixture
def proof(make_entry: Callable[..., Entry], make_rows: Callable[..., pd.DataFrame]) -> Callable[..., Entry]:
    """An entry of a deterministic certifier on known weights; keyword arguments change columns of its rows."""

    def make(radii: Sequence[float | None] = (1.0, 0.7, 0.2, None), name: str = "a", **changes: Any) -> Entry:
        columns = {"failure_probability": 0.0, **changes.pop("columns", {})}
        fields = {"guarantee": "deterministic", "certifier": "native-crown", "details": CELLS, "images": len(radii)}
        return make_entry(name, rows=make_rows(radii, **columns), **fields | changes)

    return make


def smoothed_rows(votes: np.ndarray, n: int, label: int = 1) -> pd.DataFrame:
    """Rows of smoothing from the votes for the class of each image: Clopper-Pearson, then Phi^-1."""
    with np.errstate(invalid="ignore"):
        p_a = np.where(votes >= 1, betaincinv(np.maximum(votes, 1), n - votes + 1, ALPHA), 0.0)
    certified = p_a > 0.5
    count = len(votes)
    return pd.DataFrame(
        {
            "image_id": np.arange(count),
            "label": np.full(count, label),
            "clean_prediction": np.full(count, label),
            "prediction": np.where(certified, label, -1),
            "verdict": np.where(certified, "CERTIFIED", "ABSTAINED"),
            "radius": np.where(certified, SIGMA * ndtri(np.where(certified, p_a, 0.5)) * (1 - 1e-12), 0.0),
            "failure_probability": np.full(count, ALPHA),
            "forward_passes": np.full(count, n),
            "bound_passes": np.zeros(count, dtype=np.int64),
            "seconds": np.full(count, 0.1),
            "reason": np.where(certified, "", "abstained"),
            "evidence_n": np.full(count, n),
            "evidence_n_A": votes,
            "evidence_sigma": np.full(count, SIGMA),
        }
    )


@pytest.fixture
def smoothed(make_entry: Callable[..., Entry]) -> Callable[..., Entry]:
    """An entry of smoothing from votes, or from the rows themselves."""

    def make(votes: Any, n: int = 10_000, name: str = "a", key: str = "k" * 64, **changes: Any) -> Entry:
        rows = votes if isinstance(votes, pd.DataFrame) else smoothed_rows(np.asarray(votes), n)
        return make_entry(name, rows=rows, images=len(rows), key=key, details=CELLS, **changes)

    return make
