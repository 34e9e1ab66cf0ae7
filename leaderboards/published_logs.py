"""Certification logs as published with papers on randomized smoothing, read as rows.

They are what others say: nothing in a log can be checked here. So the reader refuses whatever it does not understand,
and of each radius claims no more than its printed digits prove (`leaderboards.printed_numbers`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from leaderboards.printed_numbers import Printing, parse_printed
from leaderboards.published_text import LogError, lines_of, refuse_repeated, whole
from leaderboards.records import PRINTED_RADIUS

_COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")

# How Python prints a timedelta; without days, others write hours past 23.
_TIMEDELTA = re.compile(
    r"(?:(?P<days>[1-9][0-9]{0,5}) days?, (?=[0-9]:|1[0-9]:|2[0-3]:))?"
    r"(?P<h>[0-9]{1,6}):(?P<m>[0-5][0-9]):(?P<s>[0-5][0-9](?:\.[0-9]{1,9})?)"
)

#: What stands in a row for a number that the log does not tell.
NOT_KNOWN = -1


@dataclass(frozen=True)
class PublishedLog:
    """A log as rows.

    Attributes:
        rows: one an image, with the columns of `ROW_SCHEMA` and `evidence_printed_radius`, in the order of the log.
        printing: how its radii were printed, and what was given away for it, in words.
        certifier: the method that writes such logs.
    """

    rows: pd.DataFrame
    printing: str
    certifier: str


def read_cohen_log(path: Path, *, alpha: float = 0.001) -> PublishedLog:
    r"""A tab-separated log with the columns idx, label, predict, radius, correct, time, and no others.

    `predict` is -1 where the certifier abstained; `time` is in seconds or as Python prints a timedelta,
    `[D day[s], ]h:mm:ss[.ffffff]`. The radius of a row is the printed one less half a unit of its last digit. What the
    format does not hold is -1: `clean_prediction`, `forward_passes` and `bound_passes`.

    Args:
        path: the file.
        alpha: failure probability of each certificate; the log does not say it.

    Raises:
        FileNotFoundError: there is no such file.
        LogError: the text is not whole lines of UTF-8 (`lines_of`), a column is missing or unknown, an image occurs
            twice, a cell is no number, `correct` is not `label == predict`, or an abstention has a radius; names the
            line.
        ValueError: alpha is not in (0, 1).

    Source: the `certify.py` of Cohen et al., ICML 2019, which prints radii by `{:.3}`, and the projects that grew from
    it.
    """
    check_alpha(alpha)
    lines = lines_of(path)
    header = lines[0].split("\t")
    if sorted(header) != sorted(_COLUMNS):
        missing = [column for column in _COLUMNS if column not in header]
        unknown = [column for column in header if column not in _COLUMNS]
        what = (
            f"no column {missing[0]!r}"
            if missing
            else f"unknown column {unknown[0]!r}"
            if unknown
            else "a column twice"
        )
        raise LogError(f"{path}:1: {what}. Need, tab-separated, these and no others: {' '.join(_COLUMNS)}.")
    cells: list[dict[str, str]] = []
    lines_of_image: dict[int, list[int]] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            cell = _cells(header, line.split("\t"))
            lines_of_image.setdefault(_checked(cell), []).append(number)
        except ValueError as error:
            raise LogError(f"{path}:{number}: {error}") from None
        cells.append(cell)
    if not cells:
        raise LogError(f"{path}: there are no rows below the header. Get the log again from its source.")
    refuse_repeated(path, lines_of_image)
    printed = [parse_printed("radius", cell["radius"]) for cell in cells]
    printing = Printing(printed)
    abstained = [cell["predict"] == "-1" for cell in cells]
    rows = pd.DataFrame(
        {
            "image_id": [int(cell["idx"]) for cell in cells],
            "label": [int(cell["label"]) for cell in cells],
            "clean_prediction": NOT_KNOWN,
            "prediction": [int(cell["predict"]) for cell in cells],
            "verdict": ["ABSTAINED" if abstains else "CERTIFIED" for abstains in abstained],
            "radius": [printing.lower_end(value) for value in printed],
            "failure_probability": [0.0 if abstains else float(alpha) for abstains in abstained],
            "forward_passes": NOT_KNOWN,
            "bound_passes": NOT_KNOWN,
            "seconds": [_seconds(cell["time"]) for cell in cells],
            "reason": ["abstained" if abstains else "" for abstains in abstained],
            PRINTED_RADIUS: [float(value) for value in printed],
        }
    )
    return PublishedLog(rows, str(printing), "smoothing")


def labels_in(path: Path) -> Mapping[int, int]:
    """The labels of a Cohen-format log by image.

    Raises:
        FileNotFoundError: there is no such file.
        LogError: as `read_cohen_log`.
    """
    rows = read_cohen_log(path).rows
    return dict(zip(rows["image_id"].tolist(), rows["label"].tolist(), strict=True))


def check_alpha(alpha: float) -> None:
    """Refuse a failure probability that is none.

    Raises:
        ValueError: alpha is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, not a probability between 0 and 1. Papers on smoothing use 0.001.")


def _cells(header: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} cells, but the header has {len(header)}. Fields are parted by one tab each.")
    return dict(zip(header, cells, strict=True))


def _checked(cell: Mapping[str, str]) -> int:
    """The image of a row whose cells fit together."""
    image, label, predicted, correct = (
        whole(column, cell[column]) for column in ("idx", "label", "predict", "correct")
    )
    radius = parse_printed("radius", cell["radius"])
    _seconds(cell["time"])
    if image < 0 or label < 0 or predicted < -1:
        raise ValueError("idx and label are at least 0, predict is at least -1.")
    if correct != int(label == predicted):
        raise ValueError(f"correct is {correct}, but label is {label} and predict is {predicted}.")
    if predicted == -1 and radius:
        raise ValueError(f"an abstention has radius {radius}; it must be 0.")
    return image


def _seconds(text: str) -> float:
    match = _TIMEDELTA.fullmatch(text)
    if match is None:
        try:
            return float(parse_printed("time", text))
        except ValueError:
            raise ValueError(f"time is {text!r}, not seconds at least 0, nor h:mm:ss, nor D days, h:mm:ss.") from None
    days, hours, minutes = (int(match[part] or 0) for part in ("days", "h", "m"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + float(match["s"])
