"""The rule that divides a source into splits: by position within the class, no randomness."""

import numpy as np
from jaxtyping import Int64


def position_in_class(labels: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
    """For each row the number of earlier rows with its label.

    A rule on this number modulo m gives every class the same share of every split, but for the remainder of
    its last, incomplete m rows.
    """
    order = np.argsort(labels, kind="stable")
    in_order = labels[order]
    positions = np.empty(len(labels), dtype=np.int64)
    positions[order] = np.arange(len(labels)) - np.searchsorted(in_order, in_order)
    return positions
