from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leaderboards.badges import Badge
from leaderboards.records import Entry, Run, no_rows

HOSTILE = "<img src=x onerror=alert(1)> </script> | javascript:alert(1) $\\frac{1}{0}$ & [a](http://b.c)"


@pytest.fixture
def make_rows() -> Callable[..., pd.DataFrame]:
    """Rows of label 1 from radii; a None radius abstains, a negative one is certified for another class."""

    def make(radii: Sequence[float | None], **columns: Any) -> pd.DataFrame:
        count = len(radii)
        rows = pd.DataFrame(
            {
                "image_id": np.arange(count) * 10,
                "label": np.ones(count, dtype=np.int64),
                "clean_prediction": np.ones(count, dtype=np.int64),
                "prediction": [-1 if r is None else (2 if r < 0 else 1) for r in radii],
                "verdict": ["ABSTAINED" if r is None else "CERTIFIED" for r in radii],
                "radius": [0.0 if r is None else abs(float(r)) for r in radii],
                "failure_probability": np.full(count, 0.001),
                "forward_passes": np.full(count, 100, dtype=np.int64),
                "bound_passes": np.zeros(count, dtype=np.int64),
                "seconds": np.full(count, 0.5),
                "reason": ["abstained" if r is None else "" for r in radii],
            }
        )
        return rows.assign(**columns)

    return make


@pytest.fixture
def make_entry(make_rows: Callable[..., pd.DataFrame]) -> Callable[..., Entry]:
    def make(name: str, radii: Sequence[float | None] = (0.5, 1.0, None, -2.0), **changes: Any) -> Entry:
        fields: dict[str, Any] = {
            "dataset": "digits",
            "split": "test",
            "images_digest": "abc",
            "images": len(radii),
            "norm": "l2",
            "ensemble": "drt",
            "aggregation": "we",
            "certifier": "smoothing",
            "guarantee": "probabilistic",
            "status": "complete",
            "rows": make_rows(radii),
            "key": "k" * 64,
        }
        return Entry(name=name, **(fields | changes))

    return make


@pytest.fixture
def verified() -> Callable[[Entry], Entry]:
    """The entry with a certifier that was checked."""
    return lambda entry: replace(entry, conformance=Badge(certifier={}, level=2, kit=1, seed=7))


@pytest.fixture
def make_run() -> Callable[..., Run]:
    def make(*entries: Entry, radii: tuple[str, ...] = ("0", "0.5", "1")) -> Run:
        return Run("quick", "Quick board", "What it is.", radii, "name = 'quick'\n", entries)

    return make


@pytest.fixture
def hostile_run(make_run: Callable[..., Run], make_entry: Callable[..., Entry]) -> Run:
    """Every text of a run is an attack; two entries are ranked, two have no numbers."""
    texts = {"ensemble": HOSTILE, "aggregation": HOSTILE, "certifier": HOSTILE, "guarantee": HOSTILE}
    texts |= {"key": HOSTILE, "parameters": {HOSTILE: HOSTILE}, "provenance": {HOSTILE: [HOSTILE]}}
    shared = {"dataset": HOSTILE, "split": HOSTILE, "images_digest": HOSTILE, "norm": HOSTILE}
    rows = {"rows": no_rows(), "images": 4}
    entries = (
        make_entry(HOSTILE, **texts, **shared),
        make_entry("_private $x$", (1.5, 1.0, 0.2, 0.1), **shared, details={"x": HOSTILE}),
        make_entry(HOSTILE + "2", status="unsupported", reason=HOSTILE, **texts, **shared, **rows),
        make_entry("later", status="incomplete", reason="3 of 4 images are missing", **shared, **rows),
    )
    return Run(HOSTILE, HOSTILE, HOSTILE, ("0", "8/255", "1"), f"```\n{HOSTILE}\n</code></pre>", entries)
