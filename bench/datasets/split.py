"""The contract of a split: labelled images with stable ids."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int64
from torch import Tensor

Positions: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]] | Tensor


class Split(ABC):
    """Labelled images in a fixed order.

    A *position* counts within this split, 0 to `len(split) - 1`. An *id* is the row of the image in the
    source: unique in the data set and the same in every selection, so that it can key noise and stored
    results.
    """

    @property
    @abstractmethod
    def ids(self) -> Int64[np.ndarray, " images"]:
        """The row in the source of each image; read-only."""

    @property
    @abstractmethod
    def labels(self) -> Int64[Tensor, " images"]:
        """The class of each image, from 0."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Sha256 (hexadecimal) of the data: what must be equal for results to be comparable."""

    @abstractmethod
    def _images(self, positions: Int64[np.ndarray, " k"]) -> Float32[Tensor, "k channels height width"]:
        """`images` at checked positions."""

    @abstractmethod
    def _take(self, positions: Int64[np.ndarray, " k"]) -> "Split":
        """The split of the images at checked positions."""

    @final
    def __len__(self) -> int:
        return len(self.ids)

    @final
    def images(self, positions: Positions) -> Float32[Tensor, "k channels height width"]:
        """The images at these positions, in that order, values in [0, 1].

        Raises:
            IndexError: a position below 0 or past the end.
            TypeError: positions that are not integers.
            DataError: an image that cannot be read.
        """
        found = np.asarray(positions)
        if found.size == 0:
            found = found.astype(np.int64)
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise TypeError(f"Positions must be a flat row of integers, got {found.dtype} of shape {found.shape}.")
        found = found.astype(np.int64)
        outside = found[(found < 0) | (found >= len(self))]
        if outside.size:
            raise IndexError(f"Positions must be 0 to {len(self) - 1}, got {outside[0]}.")
        return self._images(found)

    @final
    def select(self, every: int = 1, offset: int = 0, limit: int | None = None) -> "Split":
        """Every `every`-th image from position `offset` on, the first `limit` of them.

        Sources sorted by class stay sorted: thin them with `every`, because `limit` alone takes the first
        classes. The digest is that of the selected data.

        Raises:
            ValueError: `every` or `limit` below 1, or `offset` below 0.
        """
        for name, number, least in (("every", every, 1), ("offset", offset, 0), ("limit", limit, 1)):
            if number is not None and number < least:
                raise ValueError(f"{name} must be at least {least}, got {number}.")
        return self._take(np.arange(len(self), dtype=np.int64)[offset::every][:limit])

    @final
    def at(self, positions: Positions) -> "Split":
        """The images at these positions, in that order.

        Raises:
            IndexError: a position below 0 or past the end.
        """
        found = np.asarray(positions).astype(np.int64)
        if outside := [position for position in found.tolist() if not 0 <= position < len(self)]:
            raise IndexError(f"Positions must be 0 to {len(self) - 1}, got {outside[0]}.")
        return self._take(found)

    @final
    def spread(self, count: int) -> "Split":
        """`count` of the images, spread evenly from the first on, whether or not `count` divides their number.

        Raises:
            ValueError: `count` below 1 or above the number of images.
        """
        if not 1 <= count <= len(self):
            raise ValueError(f"count must be 1 to {len(self)}, got {count}.")
        return self._take(np.arange(count, dtype=np.int64) * len(self) // count)

    @final
    def of_ids(self, ids: Sequence[int]) -> "Split":
        """The images of these ids, in that order.

        Raises:
            KeyError: an id that is not in this split.
        """
        positions = {image: position for position, image in enumerate(self.ids.tolist())}
        return self._take(np.array([positions[image] for image in ids], dtype=np.int64))
