"""Certification logs as published with papers on randomized smoothing, read as rows."""

import math
import re
from pathlib import Path

import pandas as pd

from leaderboards.verified_files import StoredDataError

_COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")

# How Python prints a timedelta.
_TIMEDELTA = re.compile(r"(?:(?P<days>\d+) days?, )?(?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d(?:\.\d+)?)")


def read_cohen_log(path: Path, *, alpha: float = 0.001) -> pd.DataFrame:
    """The rows of a tab-separated log with columns idx, label, predict, radius, correct, time.

    `predict` is -1 where the certifier abstained; `time` is in seconds or `h:mm:ss.ffffff`. The radius is as
    printed, to the nearest of three digits: it may be rounded up, so such rows are for comparison only. What
    the format does not hold is `clean_prediction` -1 and `forward_passes` and `bound_passes` 0.

    Args:
        path: the file.
        alpha: failure probability per image; the log does not say it.

    Raises:
        FileNotFoundError: there is no such file.
        StoredDataError: a column is missing, an image occurs twice, a cell is no number, or `correct` is not
            `label == predict`; names the line.

    Source: the `certify.py` of Cohen et al., ICML 2019, and the projects that grew from it.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[0].split("\t") if lines else []
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise StoredDataError(f"{path}:1: no column {missing[0]!r}. Need, tab-separated: {' '.join(_COLUMNS)}.")
    rows: list[dict[str, int | float | str]] = []
    line_of: dict[int, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            image, row = _row(header, line.split("\t"), alpha)
            if image in line_of:
                raise ValueError(f"image {image} is already on line {line_of[image]}.")
        except ValueError as error:
            raise StoredDataError(f"{path}:{number}: {error}") from None
        line_of[image] = number
        rows.append(row)
    if not rows:
        raise StoredDataError(f"{path}: there are no rows below the header.")
    return pd.DataFrame(rows)


def _row(header: list[str], cells: list[str], alpha: float) -> tuple[int, dict[str, int | float | str]]:
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} cells, but the header has {len(header)}.")
    cell = dict(zip(header, cells, strict=True))
    image, label, predicted = (_whole(cell, column) for column in ("idx", "label", "predict"))
    radius, correct = _real("radius", cell["radius"]), _whole(cell, "correct")
    if image < 0 or label < 0 or predicted < -1:
        raise ValueError("idx and label are at least 0, predict is at least -1.")
    if correct != int(label == predicted):
        raise ValueError(f"correct is {correct}, but label is {label} and predict is {predicted}.")
    if predicted == -1 and radius:
        raise ValueError(f"an abstention has radius {radius}; it must be 0.")
    row: dict[str, int | float | str] = {"image_id": image, "label": label, "clean_prediction": -1}
    row |= {"prediction": predicted, "verdict": "ABSTAINED" if predicted == -1 else "CERTIFIED"}
    row |= {"radius": radius, "failure_probability": alpha, "forward_passes": 0, "bound_passes": 0}
    row |= {"seconds": _seconds(cell["time"]), "reason": "abstained" if predicted == -1 else ""}
    return image, row


def _whole(cell: dict[str, str], column: str) -> int:
    if not re.fullmatch(r"-?\d+", cell[column], re.ASCII):
        raise ValueError(f"{column} is {cell[column]!r}, not a whole number.")
    return int(cell[column])


def _real(column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{column} is {text!r}, not a number at least 0.")
    return value


def _seconds(text: str) -> float:
    match = _TIMEDELTA.fullmatch(text)
    if match is None:
        return _real("time", text)
    days, hours, minutes = (int(match[part] or 0) for part in ("days", "h", "m"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + float(match["s"])
