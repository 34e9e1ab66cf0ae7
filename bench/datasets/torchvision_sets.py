"""MNIST and CIFAR-10, read by torchvision from a folder the user names."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bench.datasets.dataset import Dataset
from bench.datasets.errors import DataError
from bench.datasets.registry import register
from bench.datasets.train_and_test import split_train_and_test
from bench.torchvision_import import import_torchvision


@register("mnist")
def mnist(root: Path | None = None) -> Dataset:
    """MNIST (LeCun et al., 1998): 70000 handwritten digits, 28x28.

    Of the 60000 training images every twelfth of a class, in file order, validates; 10000 test. Ids: training
    rows 0 to 59999, test rows from 60000.

    Args:
        root: folder with torchvision's `MNIST/raw`.

    Raises:
        DataError: torchvision or the files are missing, or a file is damaged.
    """
    train, test = _read("mnist", "MNIST", root, "MNIST/raw/train-images-idx3-ubyte and its three fellows")
    return split_train_and_test(
        "mnist",
        train_pixels=train.data.numpy()[:, None],
        train_labels=train.targets.numpy().astype(np.int64),
        test_pixels=test.data.numpy()[:, None],
        test_labels=test.targets.numpy().astype(np.int64),
        validation_every=12,
    )


@register("cifar10")
def cifar10(root: Path | None = None) -> Dataset:
    """CIFAR-10 (Krizhevsky, 2009): 60000 colour photographs, 3x32x32, ten classes.

    Of the 50000 training images every tenth of a class, in file order, validates (5000); 10000 test. Ids:
    training rows 0 to 49999, test rows from 50000.

    Args:
        root: folder with `cifar-10-batches-py`, whose files torchvision checks by their md5.

    Raises:
        DataError: torchvision or the files are missing, or a file is damaged.
    """
    train, test = _read("cifar10", "CIFAR10", root, "cifar-10-batches-py, with the md5 sums of the original")
    return split_train_and_test(
        "cifar10",
        train_pixels=np.ascontiguousarray(train.data.transpose(0, 3, 1, 2)),
        train_labels=np.asarray(train.targets, dtype=np.int64),
        test_pixels=np.ascontiguousarray(test.data.transpose(0, 3, 1, 2)),
        test_labels=np.asarray(test.targets, dtype=np.int64),
        validation_every=10,
    )


def torchvision_and_root(name: str, root: Path | None, looked_for: str, source: str) -> tuple[ModuleType, Path]:
    """torchvision, and the folder, which must have been named and exist.

    Args:
        name: of the data set.
        root: the folder that the user named.
        looked_for: what the folder should hold, for messages.
        source: how to get it into a folder, which stands for `{folder}`, for messages.

    Raises:
        DataError: one of them is missing.
    """
    if root is None:
        raise DataError(
            f"The data set {name!r} does not come with certbench and no folder was named. Name the folder that has "
            f'{looked_for} with root = "..." in the spec\'s [data] table; get it with {source.format(folder="data")}.'
        )
    if not root.is_dir():
        raise DataError(
            f"The data set {name!r} is missing: there is no folder {root}, looked for {looked_for} in it. Get it with "
            f'{source.format(folder=root)}, or name another folder with root = "..." in the spec\'s [data] table.'
        )
    try:
        return import_torchvision(), root
    except ImportError as error:
        raise DataError(str(error)) from error


def _read(name: str, reader: str, root: Path | None, looked_for: str) -> tuple[Any, Any]:
    source = f"torchvision.datasets.{reader}('{{folder}}', download=True)"
    torchvision, folder = torchvision_and_root(name, root, looked_for, source)
    read = getattr(torchvision.datasets, reader)
    try:
        return read(folder, train=True), read(folder, train=False)
    except Exception as error:  # torchvision checks with assert, and the readers below it differ
        raise DataError(
            f"The data set {name!r} is missing or damaged: looked for {looked_for}, in {folder} "
            f"({type(error).__name__}: {str(error).partition('. You can')[0]}). Get it with "
            f"{source.format(folder=folder)}, or name another folder "
            'with root = "..." in the spec\'s [data] table.'
        ) from error
