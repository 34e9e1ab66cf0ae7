"""A split whose images are files, decoded when asked for."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from bench.datasets.errors import DataError
from bench.datasets.split import Split


@final
class FileSplit(Split):
    """Images in files under one folder, for data too large for memory.

    `digest` is the sha256 of the listing, sorted by path, not of the contents: a line
    `path <tab> bytes <tab> label <tab> id <line feed>` for each file.

    Args:
        root: the folder.
        paths: of each image, relative to `root`, with forward slashes.
        labels: classes from 0.
        ids: row of each image in the source, all different.
        decode: reads one file into bytes [channels, height, width], 255 for 1, the same shape for all.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: Int64[Tensor, " images"],
        ids: Int64[np.ndarray, " images"],
        decode: Callable[[Path], UInt8[Tensor, "channels height width"]],
    ) -> None:
        self.root = root
        self.paths = tuple(paths)
        self.decode = decode
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
        """Sha256 (hexadecimal) of the sorted listing.

        Raises:
            DataError: a file has gone.
        """
        found = hashlib.sha256()
        for path, label, row in sorted(zip(self.paths, self._labels.tolist(), self._ids.tolist(), strict=True)):
            try:
                size = (self.root / path).stat().st_size
            except OSError as error:
                raise DataError(f"The image {self.root / path} cannot be read: {error}. Restore it.") from error
            found.update(f"{path}\t{size}\t{label}\t{row}\n".encode())
        return found.hexdigest()

    def _images(self, positions: Int64[np.ndarray, " k"]) -> Float32[Tensor, "k channels height width"]:
        if not len(positions):
            # Only a file knows the shape.
            return self._image(self.paths[0])[None][:0]
        return torch.stack([self._image(self.paths[position]) for position in positions.tolist()])

    def _image(self, path: str) -> Float32[Tensor, "channels height width"]:
        try:
            pixels = self.decode(self.root / path)
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damaged files
            raise DataError(f"The image {self.root / path} cannot be read: {error}. Restore it.") from error
        return pixels.to(torch.float32).div_(255)

    def _take(self, positions: Int64[np.ndarray, " k"]) -> "FileSplit":
        paths = [self.paths[position] for position in positions.tolist()]
        labels = self._labels[torch.from_numpy(positions)]
        return FileSplit(self.root, paths, labels, self._ids[positions], self.decode)
