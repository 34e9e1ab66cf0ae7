from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest

from leaderboards import metrics
from leaderboards.published_logs import read_cohen_log
from leaderboards.records import ROW_SCHEMA, StoredDataError

LOGS = Path(__file__).parents[2].parent / "shared" / "reference" / "cohen-logs"

#: Percent certified at 0, 0.25, 0.5, ..., and the average certified radius, from the README of the logs.
PUBLISHED = {
    "mnist-lenet-gaussian-noise_0.25_919": ([99.21, 98.45, 96.78, 93.15, 0], 0.9110),
    "mnist-lenet-gaussian-noise_0.50_393": (
        [99.16, 98.38, 96.89, 94.38, 89.87, 82.18, 67.80, 45.30, 0],
        1.5591,
    ),
    "mnist-lenet-gaussian-noise_1.00_2110": (
        [96.33, 94.41, 91.42, 86.81, 79.83, 70.88, 59.42, 46.18, 32.48, 19.65, 10.89],
        1.6187,
    ),
}

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
GOOD = HEADER + "".join(
    (
        "0\t7\t7\t0.953\t1\t0:00:01.286530\n",
        "3\t2\t-1\t0.0\t0\t12.5\n",
        "6\t2\t1\t0.25\t0\t1 day, 1:01:02\n",
        "9\t1\t1\t0.0\t1\t0\n\n",
    )
)


def write(folder: Path, text: str) -> Path:
    path = folder / "log.tsv"
    path.write_text(text)
    return path


def test_a_log_is_read_as_rows(tmp_path: Path) -> None:
    rows = read_cohen_log(write(tmp_path, GOOD), alpha=0.01)
    assert list(rows.columns) == ROW_SCHEMA.names
    assert rows["verdict"].tolist() == ["CERTIFIED", "ABSTAINED", "CERTIFIED", "CERTIFIED"]
    assert rows["seconds"].tolist() == [1.28653, 12.5, 90062.0, 0.0]
    assert rows["image_id"].tolist() == [0, 3, 6, 9]
    assert rows["failure_probability"].tolist() == [0.01] * 4
    assert rows["reason"].tolist() == ["", "abstained", "", ""]
    accuracies = [metrics.certified_accuracy(rows, Fraction(r)).value for r in ("0", "1/4", "0.95", "0.96")]
    assert accuracies == [0.5, 0.25, 0.25, 0.0]
    assert metrics.average_certified_radius(rows) == pytest.approx(0.953 / 4)
    assert metrics.clean_accuracy(rows) is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_logs_give_the_published_table(name: str) -> None:
    path = LOGS / f"{name}.tsv"
    if not path.exists():
        pytest.skip(f"the published log {path} is not on this machine")
    rows: pd.DataFrame = read_cohen_log(path)
    accuracies, average = PUBLISHED[name]
    found = [metrics.certified_accuracy(rows, Fraction(k, 4)).value for k in range(len(accuracies))]
    assert [round(100 * value, 2) for value in found] == accuracies
    assert round(metrics.average_certified_radius(rows), 4) == average
    assert len(rows) == 10_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"log\.tsv:1: no column 'idx'\. Need, tab-separated: idx label predict radius correct time"),
        (HEADER.replace("radius", "r"), r":1: no column 'radius'"),
        (HEADER, "there are no rows below the header"),
        (GOOD + "0\t1\t1\t0.5\t1\t0\n", r":7: image 0 is already on line 2"),
        (HEADER + "0\t1\t1\t0.5\t0\t0\n", r":2: correct is 0, but label is 1 and predict is 1"),
        (HEADER + "0\t1\t2\t0.5\t1\t0\n", r":2: correct is 1, but label is 1 and predict is 2"),
        (HEADER + "0\t1\t1\tnan\t1\t0\n", r":2: radius is 'nan', not a number at least 0"),
        (HEADER + "0\t1\t1\t-0.5\t1\t0\n", r":2: radius is '-0\.5', not a number at least 0"),
        (HEADER + "0\t1\t1\tx\t1\t0\n", r":2: radius is 'x', not a number at least 0"),
        (HEADER + "0\t1\t1\t1\t1\tsoon\n", r":2: time is 'soon', not a number at least 0"),
        (HEADER + "0\t1.0\t1\t1\t1\t0\n", r":2: label is '1\.0', not a whole number"),
        (HEADER + "0\t1\t1\t1\t1\n", r":2: 5 cells, but the header has 6"),
        (HEADER + "0\t1\t-1\t0.5\t0\t0\n", r":2: an abstention has radius 0\.5; it must be 0"),
        (HEADER + "0\t1\t-2\t0.5\t0\t0\n", r":2: idx and label are at least 0, predict is at least -1"),
    ],
)
def test_a_wrong_log_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StoredDataError, match=message):
        read_cohen_log(write(tmp_path, text))


def test_a_missing_log_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_cohen_log(tmp_path / "none.tsv")
