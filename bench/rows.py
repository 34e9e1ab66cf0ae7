"""From certificates to rows: labels and certificates meet here, and nowhere before."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from certifiers import Certificates, Verdict
from leaderboards.records import EVIDENCE_PREFIX


def rows_of(
    image_ids: Sequence[int], labels: Sequence[int], clean_predictions: Sequence[int], found: Certificates
) -> pd.DataFrame:
    """One row an image, with the columns of `ROW_SCHEMA` and the evidence behind them.

    Where the classifier itself answers with NaN or infinity (a clean prediction of -1), what its certifier left
    UNKNOWN is an ERROR: the model is broken, and a run must not end as if it had been measured.

    Raises:
        ValueError: a column of evidence is not one number or string an image.
    """
    return pd.DataFrame(
        {
            "image_id": np.asarray(image_ids, dtype=np.int64),
            "label": np.asarray(labels, dtype=np.int64),
            "clean_prediction": np.asarray(clean_predictions, dtype=np.int64),
            "prediction": found.prediction.numpy(),
            "verdict": [
                _verdict(Verdict(int(verdict)), clean)
                for verdict, clean in zip(found.verdict, clean_predictions, strict=True)
            ],
            "radius": found.radius.numpy(),
            "failure_probability": found.failure_probability.numpy(),
            "forward_passes": found.cost.forward_passes.numpy(),
            "bound_passes": found.cost.bound_passes.numpy(),
            "seconds": found.cost.seconds.numpy(),
            "reason": list(found.reason),
            **{EVIDENCE_PREFIX + name: _evidence(name, values) for name, values in found.evidence.items()},
        }
    )


def _verdict(found: Verdict, clean_prediction: int) -> str:
    return Verdict.ERROR.name if found is Verdict.UNKNOWN and clean_prediction < 0 else found.name


def _evidence(name: str, values: Tensor | Sequence[str]) -> Any:
    if isinstance(values, Tensor):
        if values.ndim == 1 and not values.is_complex():
            return values.detach().cpu().numpy()
    elif all(isinstance(value, str) for value in values):
        return list(values)
    raise ValueError(f"The evidence {name!r} must be one real number or one string an image.")


def error_rows(image_ids: Sequence[int], labels: Sequence[int], reason: str) -> pd.DataFrame:
    """Rows of images whose certifier raised: verdict ERROR, with the reason."""
    count = len(image_ids)
    return pd.DataFrame(
        {
            "image_id": np.asarray(image_ids, dtype=np.int64),
            "label": np.asarray(labels, dtype=np.int64),
            "clean_prediction": np.full(count, -1),
            "prediction": np.full(count, -1),
            "verdict": ["ERROR"] * count,
            "radius": np.zeros(count),
            "failure_probability": np.zeros(count),
            "forward_passes": np.zeros(count, dtype=np.int64),
            "bound_passes": np.zeros(count, dtype=np.int64),
            "seconds": np.zeros(count),
            "reason": [reason] * count,
        }
    )
