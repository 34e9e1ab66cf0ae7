"""Text files of radii as published with double sampling randomized smoothing (DSRS), read as rows.

Two forms, fields parted by one space, no header:

    orig-rad-*.txt    idx radius                         by the Neyman-Pearson method, before the second sampling
    new-rad-*.txt     idx radius gain relative_gain      by DSRS; gain = radius - original radius

They count votes for the *true* class, so a radius above 0 says that this class is certified, and they name no class:
labels must come from elsewhere. A radius of 0 says that nothing was certified, not what was answered.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from leaderboards.printed_numbers import Printing, parse_printed
from leaderboards.published_logs import NOT_KNOWN, PublishedLog, check_alpha
from leaderboards.published_text import LogError, lines_of, refuse_repeated, whole
from leaderboards.records import PRINTED_RADIUS

# Of the different radii, how many must show all digits. The program prints every radius in full, but tries to raise
# them on a grid, so that those it raises are short: 0.8, 1.05. Of a log that was rounded, hardly any would be long.
_SHARE = 0.2

# By what original radius a gain of an image without one is divided, in their program.
_LEAST_RADIUS = 1e-5


def read_dsrs_log(path: Path, labels: Mapping[int, int], *, alpha: float = 0.001) -> PublishedLog:
    """A text file of radii, `idx radius` or `idx radius gain relative_gain` a line.

    An image with a radius above 0 is CERTIFIED for its label; one with 0 is UNKNOWN. Costs are not known: -1.

    Args:
        path: the file.
        labels: the true class of each image.
        alpha: failure probability of each certificate, of both samplings together.

    Raises:
        FileNotFoundError: there is no such file.
        LogError: the text is not whole lines of UTF-8 (`lines_of`), a line has not the fields of the first, a field is
            no number, gains do not fit the radius, an image occurs twice or has no label; or it is a file of times or
            samples of the same program. Names the line.
        ValueError: alpha is not in (0, 1).

    Source: Li et al., Double Sampling Randomized Smoothing, ICML 2022; `main.py` of their code, which prints all
    digits of radii.
    """
    check_alpha(alpha)
    # Times look like radii: `idx seconds`. Their name is all that tells them apart.
    if path.name.startswith("time-"):
        raise LogError(
            f"{path}: holds times, not radii. Import {path.name.removeprefix('time-')!r} of the same folder."
        )
    lines = lines_of(path)
    fields = len(lines[0].split(" "))
    images: list[int] = []
    radii: list[str] = []
    lines_of_image: dict[int, list[int]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            image, radius = _checked(line.split(" "), fields, labels)
        except ValueError as error:
            raise LogError(f"{path}:{number}: {error}") from None
        images.append(image)
        radii.append(radius)
        lines_of_image.setdefault(image, []).append(number)
    refuse_repeated(path, lines_of_image)
    printed = [parse_printed("radius", radius) for radius in radii]
    printing = Printing(printed, _SHARE)
    of_images = [labels[image] for image in images]
    rows = pd.DataFrame(
        {
            "image_id": images,
            "label": of_images,
            "clean_prediction": NOT_KNOWN,
            "prediction": [label if value else -1 for label, value in zip(of_images, printed, strict=True)],
            "verdict": ["CERTIFIED" if value else "UNKNOWN" for value in printed],
            "radius": [printing.lower_end(value) for value in printed],
            "failure_probability": [float(alpha) if value else 0.0 for value in printed],
            "forward_passes": NOT_KNOWN,
            "bound_passes": NOT_KNOWN,
            "seconds": float(NOT_KNOWN),
            "reason": ["" if value else "the log has no radius for the true class" for value in printed],
            PRINTED_RADIUS: [float(value) for value in printed],
        }
    )
    return PublishedLog(rows, str(printing), "dsrs" if fields == 4 else "smoothing")


def _checked(cells: list[str], fields: int, labels: Mapping[int, int]) -> tuple[int, str]:
    """The image of a line whose fields fit together, and its radius as printed."""
    if cells[0] in ("o", "x"):
        raise ValueError("a file of samples: probabilities, not radii. Import the orig-rad-*.txt or new-rad-*.txt.")
    if len(cells) != fields or fields not in (2, 4):
        raise ValueError(
            f"{len(cells)} fields, parted by one space. Need 'idx radius' or 'idx radius gain relative_gain', the same "
            "on every line."
        )
    image = whole("idx", cells[0])
    if image < 0:
        raise ValueError("idx is at least 0.")
    names = ("radius", "gain", "relative gain")
    numbers = [float(parse_printed(name, cell)) for name, cell in zip(names, cells[1:], strict=False)]
    if len(numbers) == 3:
        radius, gain, relative = numbers
        original = max(radius - gain, _LEAST_RADIUS)
        if gain > radius or not math.isclose(gain, relative * original, rel_tol=1e-6, abs_tol=1e-12):
            raise ValueError(f"gain {gain} and relative gain {relative} do not fit the radius {radius}.")
    if image not in labels:
        raise ValueError(f"image {image} has no label in the file of labels. Give a log of the same images.")
    return image, cells[1]
