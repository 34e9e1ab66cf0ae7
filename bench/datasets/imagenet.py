"""ImageNet, read by torchvision from a folder the user names."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from bench.datasets.dataset import Dataset
from bench.datasets.deferred_split import DeferredSplit
from bench.datasets.errors import DataError
from bench.datasets.file_split import FileSplit
from bench.datasets.registry import register
from bench.datasets.stratify import position_in_class
from bench.datasets.torchvision_sets import torchvision_and_root
from bench.torchvision_import import import_torchvision

# Test rows come first, so that their ids are the same with and without the training images.
_TEST_IMAGES = 50_000


@register("imagenet")
def imagenet(root: Path | None = None) -> Dataset:
    """ImageNet, ILSVRC 2012: photographs of 1000 classes, resized to 256 and cropped to 3x224x224.

    Its validation images are the test split, ordered by class as torchvision lists them:
    `test.select(every=100)` is the subset of 500 that the smoothing literature certifies. Of its training
    images every fiftieth of a class validates. Ids: test rows from 0, training rows from 50000. Mean and
    standard deviation are the usual constants.

    Args:
        root: folder with `val`, `meta.bin` and, to train, `train`, as torchvision unpacks them.

    Raises:
        DataError: torchvision, `val` or `meta.bin` is missing, or `val` lacks classes; for `train` when the
            training or validation split is used.
    """
    torchvision, folder = torchvision_and_root(
        "imagenet",
        root,
        "meta.bin and val",
        "the archives of ILSVRC 2012, which torchvision.datasets.ImageNet('{folder}', split='val') unpacks",
    )
    test, classes = _listing(torchvision, folder, "val", first_id=0)
    if len(test) > _TEST_IMAGES:
        raise DataError(f"The folder {folder / 'val'} has {len(test)} images, expected {_TEST_IMAGES} at most.")

    return Dataset(
        name="imagenet",
        classes=classes,
        input_shape=(3, 224, 224),
        train=DeferredSplit(_TrainingPart(folder, validates=False)),
        validation=DeferredSplit(_TrainingPart(folder, validates=True)),
        test=test,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def _listing(torchvision: ModuleType, root: Path, part: str, first_id: int) -> tuple[FileSplit, int]:
    # Checked before torchvision is asked, which would start to unpack archives into the folder.
    for path in (root / "meta.bin", root / part):
        if not path.exists():
            raise DataError(
                f"The data set 'imagenet' is incomplete: looked for {path}. "
                + ("Certifying does without the training images; training needs them. " if part == "train" else "")
                + f"Put the archives of ILSVRC 2012 into {root} and let torchvision unpack them, once: "
                f"torchvision.datasets.ImageNet({str(root)!r}, split={part!r}); "
                'or name another folder with root = "..." in the spec\'s [data] table.'
            )
    try:
        source = torchvision.datasets.ImageNet(root, split=part)
        expected = sorted(torchvision.datasets.imagenet.load_meta_file(root)[0])
    except Exception as error:  # torchvision and the readers below it differ in what they raise for damage
        raise DataError(f"The folder {root} cannot be read as ImageNet: {type(error).__name__}: {error}.") from error
    if source.wnids != expected:
        # Labels are positions among the folders: one folder missing would shift all that follow.
        differing = sorted(set(expected) ^ set(source.wnids))
        raise DataError(
            f"The folder {root / part} must have one folder for each of the {len(expected)} classes in "
            f"meta.bin, got {len(source.wnids)}; the first that differs is {differing[0]!r}. "
            f"Unpack {part} again."
        )
    return FileSplit(
        root,
        [Path(path).relative_to(root).as_posix() for path, _ in source.samples],
        torch.tensor(source.targets, dtype=torch.int64),
        np.arange(len(source.samples), dtype=np.int64) + first_id,
        _decode,
    ), len(expected)


# Data sets are handed to worker processes, which import torchvision themselves: nothing in one may be a closure, or
# torchvision's.
def _decode(path: Path) -> UInt8[Tensor, "3 224 224"]:
    """One file: loaded, resized and cropped."""
    load, transform = _reader()
    pixels: Tensor = transform(load(str(path)))
    return pixels


@functools.cache
def _reader() -> tuple[Callable[[str], Any], Callable[[Any], Tensor]]:
    torchvision = import_torchvision()
    transforms = torchvision.transforms
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()]
    return torchvision.datasets.folder.default_loader, transforms.Compose(steps)


@dataclass(frozen=True)
class _TrainingPart:
    """Finds the training images, or those of them that validate."""

    folder: Path
    validates: bool

    def __call__(self) -> FileSplit:
        every = _training_images(self.folder)
        turn = position_in_class(every.labels.numpy()) % 50
        return every._take(np.flatnonzero((turn == 0) == self.validates))


@functools.cache
def _training_images(folder: Path) -> FileSplit:
    return _listing(import_torchvision(), folder, "train", first_id=_TEST_IMAGES)[0]
