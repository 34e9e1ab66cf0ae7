"""The images that a published log should have, so that missing ones are noticed.

Logs name images by their position in the test set, and papers certify every k-th of them: 0, 20, 40, ... of CIFAR-10's
10000. A log that was cut off, or put together from parts of which one is lost, has fewer.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

#: Sizes of the test sets (of ImageNet the validation set) that published logs are about.
TEST_IMAGES = {"cifar10": 10_000, "fashion-mnist": 10_000, "imagenet": 50_000, "mnist": 10_000}


@dataclass(frozen=True)
class ImageSet:
    """The images that logs are about.

    Attributes:
        ids: those that are known by number, ascending; fewer than `images` where the numbers of missing ones are not.
        images: how many there should be.
    """

    ids: tuple[int, ...]
    images: int

    def missing(self, found: Collection[int]) -> str:
        """`73 of 500 images are missing: 8540, 8560, 8580, ...`, or nothing."""
        there = set(found)
        count = self.images - len(there)
        if not count:
            return ""
        known = [image for image in self.ids if image not in there]
        named = f": {', '.join(map(str, known[:3]))}{', ...' if count > 3 else ''}" if len(known) == count else ""
        return f"{count} of {self.images} images are missing{named}"


def image_set(found: Collection[int], dataset: str, images: int | None = None) -> ImageSet:
    """The images that logs should have, from those that any of them has.

    With `images` told, that many. Else every k-th of a test set whose size is known (`TEST_IMAGES`), k being the
    greatest that all images found agree with.

    Args:
        found: the images of all logs of one table together; at least one.
        dataset: name of the data set.
        images: how many images a whole log has, where that is known.

    Raises:
        ValueError: more images than there should be, one that the data set does not have, or neither the number of
            images nor the size of the data set is known.
    """
    ids = sorted(set(found))
    size = TEST_IMAGES.get(dataset)
    if size is not None and ids[-1] >= size:
        raise ValueError(
            f"image {ids[-1]} is not one of the {size} of {dataset}, which are counted from 0. Check --dataset."
        )
    if images is not None and len(ids) >= images:
        if len(ids) > images:
            raise ValueError(f"the logs have {len(ids)} images, more than the {images} of --images. Check that number.")
        return ImageSet(tuple(ids), images)
    # Every k-th: `i % k == 0`. Of one image nothing can be told, and the whole set is asked for.
    step = math.gcd(*(image - ids[0] for image in ids)) or 1
    expected = None if size is None else tuple(range(ids[0] % step, size, step))
    if images is not None:
        return ImageSet(expected if expected and len(expected) == images else tuple(ids), images)
    if expected is None:
        known = ", ".join(TEST_IMAGES)
        raise ValueError(
            f"how many images {dataset!r} has is not known here, so that a log that was cut off would not be noticed. "
            f"Say how many a whole log has: --images N. Known: {known}."
        )
    return ImageSet(expected, len(expected))
