"""From certificates to rows: labels and certificates meet here, and nowhere before."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from certifiers import Certificates, Verdict
from leaderboards.records import EVIDENCE_PREFIX


def rows_of(
    image_ids: Sequence[int], labels: Sequence[int], clean_predictions: Sequence[int], found: Certificates
) -> pd.DataFrame:
    """One row an image, with the columns of `ROW_SCHEMA` and the evidence behind them."""
    return pd.DataFrame(
        {
            "image_id": np.asarray(image_ids, dtype=np.int64),
            "label": np.asarray(labels, dtype=np.int64),
            "clean_prediction": np.asarray(clean_predictions, dtype=np.int64),
            "prediction": found.prediction.numpy(),
            "verdict": [Verdict(int(verdict)).name for verdict in found.verdict],
            "radius": found.radius.numpy(),
            "failure_probability": found.failure_probability.numpy(),
            "forward_passes": found.cost.forward_passes.numpy(),
            "bound_passes": found.cost.bound_passes.numpy(),
            "seconds": found.cost.seconds.numpy(),
            "reason": list(found.reason),
            **{
                EVIDENCE_PREFIX + name: values.detach().cpu().numpy() if isinstance(values, Tensor) else list(values)
                for name, values in found.evidence.items()
            },
        }
    )


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
