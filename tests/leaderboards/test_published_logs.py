from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaderboards import metrics
from leaderboards.published_logs import labels_in, read_cohen_log
from leaderboards.published_text import LogError
from leaderboards.records import ROW_SCHEMA

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
        "9\t1\t1\t0.0\t1\t0\n",
        "12\t1\t1\t2.11\t1\t12 days, 23:59:59.5\n",
        "15\t1\t1\t2.12\t1\t3\n",
        "18\t1\t1\t2.13\t1\t3\n",
    )
)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "log.tsv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_log_is_read_as_rows(tmp_path: Path) -> None:
    log = read_cohen_log(write(tmp_path, GOOD), alpha=0.01)
    rows = log.rows
    assert list(rows.columns) == [*ROW_SCHEMA.names, "evidence_printed_radius"]
    assert rows["verdict"].tolist() == ["CERTIFIED", "ABSTAINED", *["CERTIFIED"] * 5]
    assert rows["seconds"].tolist() == [1.28653, 12.5, 90062.0, 0.0, 1123199.5, 3.0, 3.0]
    assert rows["image_id"].tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert rows["failure_probability"].tolist() == [0.01, 0.0, *[0.01] * 5]
    assert rows["reason"].tolist() == ["", "abstained", *[""] * 5]
    assert rows["evidence_printed_radius"].tolist() == [0.953, 0.0, 0.25, 0.0, 2.11, 2.12, 2.13]
    # 0.25 has three significant digits here, two of them printed.
    assert rows["radius"].tolist() == pytest.approx([0.9525, 0.0, 0.2495, 0.0, 2.105, 2.115, 2.125], abs=1e-15)
    for unknown in ("clean_prediction", "forward_passes", "bound_passes"):
        assert (rows[unknown] == -1).all()
    accuracies = [metrics.certified_accuracy(rows, Fraction(r)).successes for r in ("0", "0.9524", "0.953", "2.11")]
    assert accuracies == [5, 4, 3, 2]
    assert metrics.clean_accuracy(rows) is None
    assert log.certifier == "smoothing"
    assert "up to 3 significant digits" in log.printing
    assert labels_in(write(tmp_path, GOOD)) == {0: 7, 3: 2, 6: 2, 9: 1, 12: 1, 15: 1, 18: 1}


def published(name: str) -> Path:
    path = LOGS / f"{name}.tsv"
    if not path.exists():
        pytest.skip(f"the published log {path} is not on this machine")
    return path


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_logs_give_the_published_table_by_their_printed_radii(name: str) -> None:
    rows = read_cohen_log(published(name)).rows
    printed = rows.assign(radius=rows["evidence_printed_radius"])
    accuracies, average = PUBLISHED[name]
    found = [metrics.certified_accuracy(printed, Fraction(k, 4)).value for k in range(len(accuracies))]
    assert [round(100 * value, 2) for value in found] == accuracies
    assert round(metrics.average_certified_radius(printed), 4) == average
    assert len(rows) == 10_000


@pytest.mark.parametrize("name", PUBLISHED)
def test_rounding_down_costs_the_images_that_are_printed_within_it_and_no_others(name: str) -> None:
    """Counted again from the text, with three significant digits, which is what the printing program has."""
    path = published(name)
    rows = read_cohen_log(path).rows
    cells = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    right = [Decimal(radius) for _, _, _, radius, correct, _ in cells if correct == "1"]
    lost = 0
    for k in range(len(PUBLISHED[name][0])):
        at = Decimal(k) / 4
        found = metrics.certified_accuracy(rows, Fraction(k, 4)).successes
        # Above 1 the third digit is that of hundredths, from 0.1 on that of thousandths.
        sure = sum(radius - (Decimal("0.005") if radius >= 1 else Decimal("0.0005")) >= at for radius in right)
        assert found == (sure if k else len(right))
        lost += sum(radius >= at for radius in right) - found
    assert lost > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"log\.tsv: the file is empty"),
        (
            HEADER.replace("radius", "r"),
            r":1: no column 'radius'\. Need, tab-separated, these and no others: idx label",
        ),
        (HEADER.replace("time", "time\tpABar"), r":1: unknown column 'pABar'"),
        (HEADER.replace("time", "time\ttime"), r":1: a column twice"),
        (HEADER.replace("\t", ","), r":1: no column 'idx'"),
        (HEADER, "there are no rows below the header"),
        (GOOD + "0\t1\t1\t0.5\t1\t0\n", r"log\.tsv: 1 of 7 images occur more than once: 0 \(lines 2, 9\)"),
        (GOOD + HEADER, r":9: idx is 'idx', not a whole number"),
        (HEADER + "0\t1\t1\t0.5\t0\t0\n", r":2: correct is 0, but label is 1 and predict is 1"),
        (HEADER + "0\t1\t2\t0.5\t1\t0\n", r":2: correct is 1, but label is 1 and predict is 2"),
        (HEADER + "0\t1\t1\t0.5\t2\t0\n", r":2: correct is 2, but label is 1 and predict is 1"),
        (HEADER + "0\t1\t1\tnan\t1\t0\n", r":2: radius is 'nan', not a number at least 0"),
        (HEADER + "0\t1\t1\tinf\t1\t0\n", r":2: radius is 'inf', not a number at least 0"),
        (HEADER + "0\t1\t1\t-0.5\t1\t0\n", r":2: radius is '-0\.5', not a number at least 0"),
        (HEADER + "0\t1\t1\tx\t1\t0\n", r":2: radius is 'x', not a number at least 0"),
        (HEADER + "0\t1\t1\t1\t1\tsoon\n", r":2: time is 'soon', not seconds at least 0, nor h:mm:ss, nor D days"),
        (HEADER + "0\t1\t1\t1\t1\t-1 day, 23:59:59\n", r":2: time is '-1 day, 23:59:59'"),
        (HEADER + "0\t1\t1\t1\t1\t0:60:00\n", r":2: time is '0:60:00'"),
        (HEADER + "0\t1\t1\t1\t1\t1 day, 24:00:00\n", r":2: time is '1 day, 24:00:00'"),
        (HEADER + "0\t1.0\t1\t1\t1\t0\n", r":2: label is '1\.0', not a whole number"),
        (HEADER + "0\t1\t1\t1\t1\n", r":2: 5 cells, but the header has 6\. Fields are parted by one tab each"),
        (HEADER + "0\t1\t1\t1\t1\t0\t\n", r":2: 7 cells, but the header has 6"),
        (HEADER + "0\t1\t-1\t0.5\t0\t0\n", r":2: an abstention has radius 0\.5; it must be 0"),
        (HEADER + "0\t1\t-2\t0.5\t0\t0\n", r":2: idx and label are at least 0, predict is at least -1"),
        (HEADER + "-1\t1\t1\t0.5\t1\t0\n", r":2: idx and label are at least 0"),
        (GOOD.replace("\n", "\r\n"), r":1: the line ends in a carriage return"),
        (GOOD[:-1], r":8: the last line does not end in a line feed"),
    ],
)
def test_a_wrong_log_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LogError, match=message):
        read_cohen_log(write(tmp_path, text))


def test_a_missing_log_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_cohen_log(tmp_path / "none.tsv")


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_alpha_is_a_probability(tmp_path: Path, alpha: float) -> None:
    with pytest.raises(ValueError, match=f"alpha is {alpha}, not a probability between 0 and 1"):
        read_cohen_log(write(tmp_path, GOOD), alpha=alpha)


# ---- what is written is read, and what is damaged certifies nothing

Row = tuple[int, int, float, float]
ROW = st.tuples(st.integers(0, 9), st.integers(-1, 9), st.floats(0, 4), st.floats(0, 200_000))


def as_cohen_prints(rows: list[Row], time: Callable[[float], str]) -> str:
    """What `certify.py` of Cohen et al. writes for every 20th image."""
    text = HEADER
    for i, (label, predicted, radius, spent) in enumerate(rows):
        proved = radius if predicted >= 0 else 0.0
        text += f"{20 * i}\t{label}\t{predicted}\t{proved:.3}\t{int(label == predicted)}\t{time(spent)}\n"
    return text


def as_timedelta(seconds: float) -> str:
    from datetime import timedelta

    return str(timedelta(seconds=seconds))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.mark.parametrize("time", [as_timedelta, str, "{:.2f}".format])
@settings(deadline=None)  # they write files
@given(rows=st.lists(ROW, min_size=1, max_size=20))
def test_rows_in_the_format_of_cohen_are_read_as_they_were(
    folder: Path, time: Callable[[float], str], rows: list[Row]
) -> None:
    found = read_cohen_log(write(folder, as_cohen_prints(rows, time))).rows
    assert found["image_id"].tolist() == [20 * i for i in range(len(rows))]
    assert found["label"].tolist() == [label for label, *_ in rows]
    assert found["prediction"].tolist() == [predicted for _, predicted, *_ in rows]
    assert (found["verdict"] == "CERTIFIED").tolist() == [predicted >= 0 for _, predicted, *_ in rows]
    assert found["seconds"].tolist() == pytest.approx([spent for *_, spent in rows], abs=0.00501)
    for claimed, (_, predicted, radius, _) in zip(found["radius"], rows, strict=True):
        assert 0 <= claimed <= (radius if predicted >= 0 else 0)


def said_by(content: bytes) -> list[tuple[str, ...]]:
    """Lines of six fields below the first, cut in the plainest way."""
    fields = [tuple(line.decode(errors="replace").split("\t")) for line in content.split(b"\n")[1:]]
    return [line for line in fields if len(line) == 6]


def check_that_the_text_says_it(path: Path, content: bytes) -> None:
    """Either the log is refused, or each certificate is one that a line of it says, and no line says two."""
    try:
        rows = read_cohen_log(write(path, content)).rows
    except LogError:
        return
    said = {int(idx): rest for idx, *rest in said_by(content)}
    assert len(said) == len(said_by(content)) == len(rows)
    full = any(len(radius.replace(".", "").lstrip("0")) >= 17 for _, _, radius, _, _ in said.values())
    for row in rows[rows["verdict"] == "CERTIFIED"].itertuples():
        label, predicted, radius, correct, _ = said[row.image_id]
        assert (int(label), int(predicted)) == (row.label, row.prediction)
        assert row.prediction >= 0
        assert int(correct) == (row.label == row.prediction)
        assert row.radius <= float(radius)
        # Unless radii are spelled in full, less than what is printed.
        assert row.radius < float(radius) or not row.radius or full


EDIT = st.tuples(
    st.sampled_from(["replace", "delete", "insert", "copy"]), st.integers(0, 10**6), st.binary(min_size=1, max_size=3)
)
BYTES = st.sampled_from([b"\t", b"\n", b"-", b"1", b"9", b"e", b".", b" ", b"\r", b"0", b"+", b"\xff"])


@settings(deadline=None)  # they write files
@given(
    rows=st.lists(ROW, min_size=1, max_size=6),
    edits=st.lists(
        st.one_of(
            EDIT,
            st.tuples(st.just("replace"), st.integers(0, 10**6), BYTES),
            st.tuples(st.just("insert"), st.integers(0, 10**6), BYTES),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_damaged_log_certifies_nothing_that_its_text_does_not_say(
    folder: Path, rows: list[Row], edits: list[tuple[str, int, bytes]]
) -> None:
    content = as_cohen_prints(rows, as_timedelta).encode()
    for kind, at, new in edits:
        place = at % (len(content) + 1)
        if kind == "copy":  # a line once more
            content += content.split(b"\n")[place % max(1, content.count(b"\n"))] + b"\n"
        else:
            kept = content[place + (kind == "replace") * len(new) + (kind == "delete") :]
            content = content[:place] + (b"" if kind == "delete" else new) + kept
    check_that_the_text_says_it(folder, content)


CELLS = st.one_of(
    st.integers(-2, 200).map(str),
    st.floats(-1, 9).map(repr),
    st.floats(0, 9).map("{:.3}".format),
    st.sampled_from(["", "nan", "inf", "-0", "1e1", "0:00:01", "True", "0.0", "1", "-1"]),
)


@settings(deadline=None)  # they write files
@given(
    rows=st.lists(ROW, min_size=1, max_size=6), edits=st.lists(st.tuples(st.integers(), CELLS), min_size=1, max_size=3)
)
def test_a_log_with_other_cells_certifies_nothing_that_its_text_does_not_say(
    folder: Path, rows: list[Row], edits: list[tuple[int, str]]
) -> None:
    cells = [line.split("\t") for line in as_cohen_prints(rows, as_timedelta).splitlines()[1:]]
    for at, text in edits:
        cells[at % len(rows)][at // len(rows) % 6] = text
    check_that_the_text_says_it(folder, (HEADER + "".join("\t".join(line) + "\n" for line in cells)).encode())


@settings(deadline=None)  # they write files
@given(rows=st.lists(ROW, min_size=1, max_size=6), at=st.integers(0, 10**6))
def test_a_log_that_was_cut_off_is_refused_unless_between_two_lines(folder: Path, rows: list[Row], at: int) -> None:
    content = as_cohen_prints(rows, as_timedelta).encode()
    cut = content[: at % (len(content) + 1)]
    whole = read_cohen_log(write(folder, content)).rows
    if cut.endswith(b"\n") and cut.count(b"\n") > 1:
        # Nothing in the text shows it: the images that are missing do.
        found = read_cohen_log(write(folder, cut)).rows
        columns = ["image_id", "label", "prediction", "verdict", "evidence_printed_radius"]
        assert found[columns].equals(whole[columns].head(len(found)))
        assert len(found) == cut.count(b"\n") - 1
    else:
        with pytest.raises(LogError):
            read_cohen_log(write(folder, cut))
