"""A data set: three splits of one source."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from bench.datasets.errors import DataError
from bench.datasets.in_memory_split import InMemorySplit
from bench.datasets.split import Split


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Images with labels, split into training, validation and test; no id is in two splits.

    Validation chooses hyper-parameters; test is only for the board.

    Args:
        name: the listed name.
        classes: number of classes.
        input_shape: channels, height, width.
        train: to fit the weights.
        validation: to choose hyper-parameters.
        test: to report.
        mean: of each channel over the training split, in the units of the images (0 to 1).
        std: standard deviation of each channel, likewise.
    """

    name: str
    classes: int
    input_shape: tuple[int, int, int]
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_splits(
        cls, name: str, *, classes: int, train: InMemorySplit, validation: InMemorySplit, test: InMemorySplit
    ) -> "Dataset":
        """A data set held in memory; shape, mean and standard deviation are those of the training split.

        Raises:
            DataError: splits that share ids or differ in shape or scale, labels past `classes`, no training
                image.
        """
        splits = {"train": train, "validation": validation, "test": test}
        channels, height, width = train.pixels.shape[1:]
        if not len(train):
            raise DataError(f"The data set {name!r} has no training image.")
        for part, split in splits.items():
            if split.pixels.shape[1:] != train.pixels.shape[1:] or split.scale != train.scale:
                raise DataError(f"The {part} split of {name!r} has images of another shape or scale than train.")
            if len(split) and int(split.labels.max()) >= classes:
                raise DataError(
                    f"The {part} split of {name!r} has the label {int(split.labels.max())}; "
                    f"with {classes} classes the last is {classes - 1}."
                )
        ids = np.concatenate([split.ids for split in splits.values()])
        if len(np.unique(ids)) != len(ids):
            raise DataError(f"The splits of {name!r} share images: every id may be in one split only.")
        mean, std = channel_statistics(train)
        return cls(
            name=name,
            classes=classes,
            input_shape=(channels, height, width),
            train=train,
            validation=validation,
            test=test,
            mean=mean,
            std=std,
        )


def channel_statistics(split: InMemorySplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and (population) standard deviation of each channel, of images in [0, 1].

    From counts of the byte values, so exact up to the last rounding and independent of order. A channel
    that is constant has standard deviation 1, for the sake of those who divide by it.
    """
    values = np.arange(split.scale + 1) / split.scale
    mean, std = [], []
    for channel in range(split.pixels.shape[1]):
        counts = torch.bincount(split.pixels[:, channel].flatten(), minlength=split.scale + 1).numpy()
        shares = counts / counts.sum()
        centre = float(shares @ values)
        mean.append(centre)
        std.append(float(np.sqrt(shares @ (values - centre) ** 2)) if (counts > 0).sum() > 1 else 1.0)
    return tuple(mean), tuple(std)
