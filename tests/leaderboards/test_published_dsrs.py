from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaderboards import metrics
from leaderboards.published_dsrs import read_dsrs_log
from leaderboards.published_text import LogError
from leaderboards.records import ROW_SCHEMA

LABELS = {0: 7, 10: 2, 20: 1, **dict.fromkeys(range(30, 70, 10), 0)}

# Lines as their program prints them: radii in full, some on its grid.
FULL = [1.0212345678901234, 0.94401234567890123, 0.30012345678901234, 0.0022607790288981487]
ORIGINAL = f"0 {FULL[0]}\n10 1.05\n20 0.0\n" + "".join(f"{30 + 10 * i} {FULL[i]}\n" for i in (1, 2, 3))
IMPROVED = f"0 {FULL[0]} 0.0 0.0\n10 1.1 0.05 0.04761904761904758\n20 0.0 0.0 0.0\n" + "".join(
    f"{30 + 10 * i} {FULL[i]} 0.0 0.0\n" for i in (1, 2, 3)
)


def write(folder: Path, text: str, name: str = "new-rad.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "radii", "method"),
    [
        (ORIGINAL, [FULL[0], 1.05, 0.0, *FULL[1:]], "smoothing"),
        (IMPROVED, [FULL[0], 1.1, 0.0, *FULL[1:]], "dsrs"),
    ],
)
def test_a_log_is_read_as_rows(tmp_path: Path, text: str, radii: list[float], method: str) -> None:
    log = read_dsrs_log(write(tmp_path, text), LABELS, alpha=0.002)
    rows = log.rows
    assert list(rows.columns) == [*ROW_SCHEMA.names, "evidence_printed_radius"]
    assert rows["evidence_printed_radius"].tolist() == radii
    # 17 digits are a float64: nothing is given away, and a radius of their grid is reached.
    assert rows["radius"].tolist() == radii
    assert metrics.certified_accuracy(rows, Fraction(repr(radii[1]))).successes == 1
    assert rows["prediction"].tolist() == [7, 2, -1, 0, 0, 0]
    assert rows["verdict"].tolist() == ["CERTIFIED", "CERTIFIED", "UNKNOWN", *["CERTIFIED"] * 3]
    assert rows["failure_probability"].tolist() == [0.002, 0.002, 0.0, *[0.002] * 3]
    assert rows["seconds"].tolist() == [-1.0] * 6
    assert log.certifier == method


def test_radii_of_the_grid_are_what_they_are_where_others_are_long(tmp_path: Path) -> None:
    labels = dict.fromkeys(range(60), 1)
    grid = [(k + 2) / 20 for k in range(40)]
    long = [0.30012345678901234 + k / 7 for k in range(12)]

    def radii(found: list[float]) -> list[float]:
        text = "".join(f"{image} {radius}\n" for image, radius in enumerate(found))
        claimed: list[float] = read_dsrs_log(write(tmp_path, text), labels).rows["radius"].tolist()
        return claimed

    assert radii(grid + long) == grid + long
    # But a single long one among short ones says nothing about them.
    assert all(claimed < radius for claimed, radius in zip(radii([*grid, long[0]]), grid, strict=False))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.1\n", r":1: 3 fields, parted by one space\. Need 'idx radius' or 'idx radius gain relative_gain'"),
        ("0 0.5\n10 0.5 0.0 0.0\n", r":2: 4 fields"),
        ("0  0.5\n", r":1: 3 fields"),
        ("0\t0.5\n", r":1: 1 fields"),
        ("0 nan\n", r":1: radius is 'nan', not a number at least 0"),
        ("0 -0.5\n", r":1: radius is '-0\.5'"),
        ("-10 0.5\n", r":1: idx is at least 0"),
        ("0 0.5 0.1 0.1\n", r":1: gain 0\.1 and relative gain 0\.1 do not fit the radius 0\.5"),
        ("0 0.5 0.6 1.2\n", r":1: gain 0\.6 .* do not fit the radius 0\.5"),
        ("0 0.5\n10 0.5\n0 0.7\n", r"1 of 2 images occur more than once: 0 \(lines 1, 3\)"),
        ("90 0.5\n", r":1: image 90 has no label in the file of labels"),
        ("o 0 0.99 1.0\n", r":1: a file of samples: probabilities, not radii"),
        ("x N 50000\n", r":1: a file of samples"),
        ("25.27294659614563\n", r":1: 1 fields"),
        ("0 0.5\n10 0.0", r":2: the last line does not end in a line feed"),
    ],
)
def test_a_wrong_log_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LogError, match=message):
        read_dsrs_log(write(tmp_path, text), LABELS)


def test_times_are_known_by_their_name_alone_and_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"holds times, not radii\. Import 'orig-rad\.txt' of the same folder"):
        read_dsrs_log(write(tmp_path, ORIGINAL, "time-orig-rad.txt"), LABELS)


def test_alpha_is_a_probability(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"alpha is 1\.5, not a probability between 0 and 1"):
        read_dsrs_log(write(tmp_path, ORIGINAL), LABELS, alpha=1.5)


@settings(deadline=None)  # they write files
@given(radii=st.lists(st.floats(0, 5), min_size=1, max_size=30))
def test_rows_that_were_written_are_read(tmp_path_factory: pytest.TempPathFactory, radii: list[float]) -> None:
    path = write(tmp_path_factory.mktemp("dsrs"), "".join(f"{i} {radius!r}\n" for i, radius in enumerate(radii)))
    rows = read_dsrs_log(path, dict.fromkeys(range(len(radii)), 3)).rows
    assert rows["evidence_printed_radius"].tolist() == radii
    assert (rows["radius"] <= radii).all()
    assert (rows["verdict"] == "CERTIFIED").tolist() == [radius > 0 for radius in radii]
