"""The splits of a source that comes as a training part and a test part."""

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from bench.datasets.dataset import Dataset
from bench.datasets.errors import DataError
from bench.datasets.in_memory_split import InMemorySplit
from bench.datasets.stratify import position_in_class


def split_train_and_test(
    name: str,
    *,
    train_pixels: UInt8[np.ndarray, "_ channels height width"],
    train_labels: Int64[np.ndarray, " _"],
    test_pixels: UInt8[np.ndarray, "_ channels height width"],
    test_labels: Int64[np.ndarray, " _"],
    validation_every: int,
) -> Dataset:
    """A data set of ten classes whose validation split is taken from the training part.

    The first of each `validation_every` training images of a class validates. Ids: training rows from 0, then
    test rows.

    Raises:
        DataError: not as many labels as images, or a label past the tenth class.
    """
    for part, pixels, labels in (("train", train_pixels, train_labels), ("test", test_pixels, test_labels)):
        if len(pixels) != len(labels):
            raise DataError(
                f"The {part} files of {name!r} do not belong together: {len(pixels)} images, {len(labels)} labels. "
                "Restore them from their source."
            )
    turn = position_in_class(train_labels) % validation_every

    def taken(rows: Int64[np.ndarray, " k"]) -> InMemorySplit:
        return InMemorySplit(torch.from_numpy(train_pixels[rows]), torch.from_numpy(train_labels[rows]), rows)

    return Dataset.from_splits(
        name,
        classes=10,
        train=taken(np.flatnonzero(turn != 0).astype(np.int64)),
        validation=taken(np.flatnonzero(turn == 0).astype(np.int64)),
        test=InMemorySplit(
            torch.from_numpy(test_pixels),
            torch.from_numpy(test_labels),
            np.arange(len(test_labels), dtype=np.int64) + len(train_labels),
        ),
    )
