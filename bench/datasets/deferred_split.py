"""A split that is looked for only when used."""

import functools
from collections.abc import Callable
from typing import final

import numpy as np
from jaxtyping import Float32, Int64
from torch import Tensor

from bench.datasets.split import Split


@final
class DeferredSplit(Split):
    """The split that `find` returns, called at first use.

    For what is slow to list or may be absent: a certification run never needs the training images. When
    `find` raises, so does every use.
    """

    def __init__(self, find: Callable[[], Split]) -> None:
        self._find = find

    @functools.cached_property
    def _found(self) -> Split:
        return self._find()

    @property
    def ids(self) -> Int64[np.ndarray, " images"]:
        """The row in the source of each image; read-only."""
        return self._found.ids

    @property
    def labels(self) -> Int64[Tensor, " images"]:
        """The class of each image, from 0."""
        return self._found.labels

    @property
    def digest(self) -> str:
        """Sha256 (hexadecimal) of the data."""
        return self._found.digest

    def _images(self, positions: Int64[np.ndarray, " k"]) -> Float32[Tensor, "k channels height width"]:
        return self._found._images(positions)

    def _take(self, positions: Int64[np.ndarray, " k"]) -> Split:
        return self._found._take(positions)
