"""A split held in memory, one byte a pixel."""

import functools
import hashlib
import json
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from bench.datasets.errors import DataError
from bench.datasets.split import Split


@final
class InMemorySplit(Split):
    """Images kept as bytes and turned into float32 when asked for: value = byte / `scale`.

    `digest` is the sha256 of a line of JSON `{"scale": .., "schema": 1, "shape": [n, c, h, w]}` ended by a
    line feed, then the ids and the labels as little-endian int64, then the pixel bytes.

    Args:
        pixels: bytes, 0 to `scale`.
        labels: classes from 0.
        ids: row of each image in the source, all different.
        scale: the byte that stands for 1.

    Raises:
        DataError: unequal numbers of images, labels and ids; repeated ids; negative labels; bytes above
            `scale`.
    """

    def __init__(
        self,
        pixels: UInt8[Tensor, "_ channels height width"],
        labels: Int64[Tensor, " _"],
        ids: Int64[np.ndarray, " _"],
        *,
        scale: int = 255,
    ) -> None:
        if not len(pixels) == len(labels) == len(ids):
            raise DataError(
                "A split needs as many labels and ids as images, "
                f"got {len(pixels)} images, {len(labels)} labels and {len(ids)} ids."
            )
        if len(np.unique(ids)) != len(ids):
            raise DataError("The ids of a split must all be different: they key stored results.")
        if len(labels) and int(labels.min()) < 0:
            raise DataError(f"Labels must be at least 0, got {int(labels.min())}.")
        if pixels.numel() and int(pixels.max()) > scale:
            raise DataError(f"Pixels must be 0 to {scale} (the scale), got {int(pixels.max())}.")
        self.pixels = pixels
        self.scale = scale
        self._labels = labels
        self._ids = ids.copy()
        self._ids.setflags(write=False)

    @property
    def ids(self) -> Int64[np.ndarray, " images"]:
        """The row in the source of each image; read-only."""
        return self._ids

    @property
    def labels(self) -> Int64[Tensor, " images"]:
        """The class of each image, from 0."""
        return self._labels

    @functools.cached_property
    def digest(self) -> str:
        """Sha256 (hexadecimal) of shape, scale, ids, labels and pixels."""
        header = {"schema": 1, "scale": self.scale, "shape": list(self.pixels.shape)}
        found = hashlib.sha256(json.dumps(header, sort_keys=True).encode() + b"\n")
        found.update(self._ids.astype("<i8").tobytes())
        found.update(self._labels.numpy().astype("<i8").tobytes())
        found.update(np.ascontiguousarray(self.pixels.numpy()).data)
        return found.hexdigest()

    def _images(self, positions: Int64[np.ndarray, " k"]) -> Float32[Tensor, "k channels height width"]:
        return self.pixels[torch.from_numpy(positions)].to(torch.float32).div_(self.scale)

    def _take(self, positions: Int64[np.ndarray, " k"]) -> "InMemorySplit":
        rows = torch.from_numpy(positions)
        return InMemorySplit(self.pixels[rows], self._labels[rows], self._ids[positions], scale=self.scale)
