"""Data sets in idx files, the format of MNIST.

An idx file is: two zero bytes, a byte for the type (8: unsigned byte), a byte for the number of dimensions,
each dimension as a big-endian 32-bit number, then the values (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.datasets.dataset import Dataset
from bench.datasets.errors import DataError
from bench.datasets.registry import register
from bench.datasets.train_and_test import split_train_and_test

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_UNSIGNED_BYTE = 8


@register("fashion-mnist")
def fashion_mnist(root: Path | None = None) -> Dataset:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 70000 pictures of clothes, 28x28, ten classes.

    Of the 60000 training images every twelfth of a class, in file order, validates (5000); 10000 test. Ids:
    training rows 0 to 59999, test rows from 60000.

    Args:
        root: folder with the four idx files, `.gz` or not; by default Debian's.

    Raises:
        DataError: the folder or a file is missing, or a file is damaged.
    """
    folder = _DEBIAN if root is None else root
    train_pixels, train_labels = _read_pair(folder, "train")
    test_pixels, test_labels = _read_pair(folder, "t10k")
    return split_train_and_test(
        "fashion-mnist",
        train_pixels=train_pixels,
        train_labels=train_labels,
        test_pixels=test_pixels,
        test_labels=test_labels,
        validation_every=12,
    )


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes in an idx file, gzip-compressed if its name ends in `.gz`.

    Raises:
        DataError: not an idx file of unsigned bytes with so many dimensions, or its length does not fit.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"The file {path} cannot be read: {error}. Restore it from its source.") from error
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    start = 4 + 4 * dimensions
    if content[:4] != magic:
        raise DataError(
            f"The file {path} is not an idx file of unsigned bytes with {dimensions} dimension(s): "
            f"it begins with {content[:4].hex() or 'nothing'}, expected {magic.hex()}. "
            "Restore it from its source."
        )
    if len(content) < start:
        raise DataError(f"The file {path} ends within its header. Restore it from its source.")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"The file {path} announces {' x '.join(map(str, shape))} = {math.prod(shape)} bytes of data, "
            f"got {len(content) - start}. Restore it from its source."
        )
    return np.frombuffer(bytearray(content), dtype=np.uint8, offset=start).reshape(shape)


def _read_pair(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"), dimensions=1)
    return images[:, None], labels.astype(np.int64)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"The data set 'fashion-mnist' is missing: looked for {name} and {name}.gz in {folder}. "
        "Install Debian's package (apt-get install dataset-fashion-mnist), or name the folder that has the "
        'idx files with root = "..." in the spec\'s [data] table.'
    )
