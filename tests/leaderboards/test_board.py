import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pandas as pd
import pytest

from leaderboards.board import RANKING, BoardError, board_of, build_board
from leaderboards.metrics import binomial_interval
from leaderboards.records import Entry, Run, no_rows

MakeEntry = Callable[..., Entry]
MakeRun = Callable[..., Run]


def test_entries_are_ranked_by_mean_certified_accuracy_and_ties_share(make_run: MakeRun, make_entry: MakeEntry) -> None:
    # Certified at 0, 0.5 and 1: 2+1+0, 2+2+1, 1+1+1 and 2+0+0 of 4 images.
    low = make_entry("tie a", (0.5, 0.1, None, None))
    best = make_entry("best", (1.0, 0.5, None, None))
    tie = make_entry("tie b", (9.0, None, None, None))
    last = make_entry("last", (0.1, 0.1, None, None))
    board = build_board(make_run(low, best, tie, last))
    assert [(line.rank, line.entry.name) for line in board.lines] == [
        (1, "best"),
        (2, "tie a"),
        (2, "tie b"),
        (4, "last"),
    ]
    # The average certified radius would have ranked it first.
    assert board.table()["average_certified_radius"].idxmax() == 2
    assert board.ranking == RANKING


def test_the_table_holds_every_number_unrounded(make_run: MakeRun, make_entry: MakeEntry) -> None:
    board = build_board(make_run(make_entry("one"), radii=("8/255", "1")))
    row = board.table().iloc[0]
    assert board.radii == (Fraction(8, 255), Fraction(1))
    assert (row["rank"], row["entry"], row["guarantee"]) == (1, "one", "probabilistic")
    assert (row["certified@8/255"], row["certified@1"], row["clean_accuracy"]) == (0.5, 0.25, 1.0)
    assert (row["low@1"], row["high@1"]) == binomial_interval(1, 4)
    assert (row["clean_low"], row["clean_high"]) == binomial_interval(4, 4)
    assert row["mean_certified_accuracy"] == 0.375
    assert (row["average_certified_radius"], row["median_certified_radius"]) == (0.375, 0.25)
    assert (row["abstention_rate"], row["errors"], row["images"]) == (0.25, 0, 4)
    assert (row["forward_passes_per_image"], row["bound_passes_per_image"]) == (100.0, 0.0)
    assert row["seconds_per_image"] == 0.5
    assert row["expected_false_certificates"] == pytest.approx(0.004)
    assert (row["status"], row["reason"], row["key"]) == ("complete", "", "k" * 64)


def test_entries_that_are_not_complete_have_no_numbers_and_come_last(make_run: MakeRun, make_entry: MakeEntry) -> None:
    whole = make_entry("whole", (0.1, None, None, None))
    part = make_entry("part", status="incomplete", reason="2 missing", rows=whole.rows.iloc[:2])
    crashed = make_entry(
        "crashed", status="failed", rows=whole.rows.assign(verdict=["ERROR", "ERROR", "UNKNOWN", "TIMEOUT"])
    )
    never = make_entry("never", (0.1,) * 4, status="unsupported", reason="not for l2", rows=no_rows())
    board = build_board(make_run(part, crashed, whole, never))
    table = board.table().set_index("entry")
    assert list(table.index) == ["whole", "part", "crashed", "never"]
    assert list(table["status"]) == ["complete", "incomplete", "failed", "unsupported"]
    assert list(table["errors"]) == [0, 0, 2, 0]
    assert table["reason"]["part"] == "2 missing"
    numbers = table.loc["part":, "mean_certified_accuracy":"expected_false_certificates"]
    assert numbers.isna().all(axis=None)
    assert table["rank"].isna().tolist() == [False, True, True, True]
    assert [line.entry.name for line in board.unranked] == ["part", "crashed", "never"]


def test_unknown_clean_predictions_leave_the_clean_accuracy_open(make_run: MakeRun, make_entry: MakeEntry) -> None:
    entry = make_entry("one")
    board = build_board(make_run(replace(entry, rows=entry.rows.assign(clean_prediction=-1))))
    assert math.isnan(board.table()["clean_accuracy"][0])


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("dataset", "mnist", "data set: 'digits' and 'mnist'"),
        ("split", "validation", "split: 'test' and 'validation'"),
        ("norm", "linf", "norm: 'l2' and 'linf'"),
        ("images_digest", "xyz", "image set: 'abc' and 'xyz'"),
        ("images", 5, "number of images: 4 and 5"),
        ("schema", 99, "schema version: 1 and 99"),
    ],
)
def test_entries_that_do_not_compare_are_refused(
    make_run: MakeRun, make_entry: MakeEntry, field: str, value: object, words: str
) -> None:
    other = make_entry("b", status="incomplete", **{field: value})
    with pytest.raises(BoardError, match=f"Entries 'a' and 'b' differ in their {words}.*put them on separate"):
        build_board(make_run(make_entry("a"), other))


def test_two_entries_of_one_name_are_refused(make_run: MakeRun, make_entry: MakeEntry) -> None:
    with pytest.raises(BoardError, match=r"2 entries are named 'a'\. Give each its own name"):
        build_board(make_run(make_entry("a"), make_entry("b"), make_entry("a")))


@pytest.mark.parametrize("status", ["complete", "incomplete"])
@pytest.mark.parametrize("images", [3, 5])
def test_another_number_of_rows_than_claimed_is_refused(
    make_run: MakeRun, make_entry: MakeEntry, status: str, images: int
) -> None:
    run = make_run(make_entry("a", images=images, status=status))
    if status == "incomplete" and images == 5:
        assert build_board(run).unranked
        return
    with pytest.raises(BoardError, match=f"'a' is {status} for {images} images but has 4 rows"):
        build_board(run)


def test_a_complete_entry_without_images_is_refused(make_run: MakeRun, make_entry: MakeEntry) -> None:
    with pytest.raises(BoardError, match="'a' is complete for 0 images but has 0 rows"):
        build_board(make_run(make_entry("a", (), rows=no_rows())))


def test_rows_that_are_not_what_the_entry_claims_are_refused(make_run: MakeRun, make_entry: MakeEntry) -> None:
    def refused(changes: dict[str, object], message: str) -> None:
        entry = make_entry("a")
        with pytest.raises(BoardError, match=message):
            build_board(make_run(make_entry("first"), replace(entry, rows=entry.rows.assign(**changes))))

    refused({"image_id": [0, 10, 10, 30]}, "'a' has two rows of one image")
    refused({"verdict": "ERROR"}, "'a' is complete but 4 of its rows are ERROR")
    refused({"verdict": "SAFE"}, "'a' has verdict 'SAFE'; allowed: CERTIFIED, UNKNOWN")
    refused({"radius": [math.nan, 1.0, 0.0, 2.0]}, "Entry 'a': Row 0 has radius nan; a stored radius is finite")
    refused({"label": [1, -1, 1, 1]}, r"'a' has a label below 0, at image 10\. The certifier that wrote it")
    refused({"prediction": -1}, "'a' has a certificate of no class, at image 0 and 2 others")
    refused({"radius": 0.5}, r"'a' has a radius without a certificate, at image 20\.")
    refused(
        {"failure_probability": math.nan}, r"'a' has a failure probability outside \[0, 1\), at image 0 and 3 others"
    )
    refused({"failure_probability": -0.1}, r"'a' has a failure probability outside \[0, 1\)")
    refused({"failure_probability": 1.0}, r"'a' has a failure probability outside \[0, 1\)")
    refused({"label": 2}, "Entries 'first' and 'a' hold other images or labels, although")
    refused({"image_id": [0, 10, 20, 31]}, "Entries 'first' and 'a' hold other images or labels, although")


def test_a_proof_has_no_failure_probability(make_run: MakeRun, make_entry: MakeEntry) -> None:
    entry = make_entry("a", guarantee="deterministic")
    with pytest.raises(
        BoardError, match="'a' has a failure probability, although it is deterministic, at image 0 and 2"
    ):
        build_board(make_run(entry))
    proved = replace(entry, rows=entry.rows.assign(failure_probability=0.0))
    assert build_board(make_run(proved)).lines[0].rank == 1


def test_the_order_of_rows_does_not_matter(make_run: MakeRun, make_entry: MakeEntry) -> None:
    entry = make_entry("b")
    turned = replace(entry, rows=entry.rows.iloc[::-1].reset_index(drop=True))
    table = build_board(make_run(make_entry("a"), turned)).table()
    pd.testing.assert_series_equal(table.iloc[0, 2:], table.iloc[1, 2:], check_names=False)


def test_an_unknown_status_is_refused(make_run: MakeRun, make_entry: MakeEntry) -> None:
    with pytest.raises(BoardError, match="'a' has status 'done'; allowed: complete, failed, incomplete, unsupp"):
        build_board(make_run(make_entry("a", status="done")))


def test_a_board_of_nothing_is_refused(make_run: MakeRun, make_entry: MakeEntry) -> None:
    with pytest.raises(BoardError, match=r"The board has no entries\. Run a spec first"):
        build_board(make_run())
    with pytest.raises(BoardError, match=r"The board has no radii\. Name at least one"):
        build_board(make_run(make_entry("a"), radii=()))


def test_radii_are_exact_distinct_and_ascending(make_entry: MakeEntry) -> None:
    board = board_of([make_entry("a")], ["1", 0.25, "8/255"])
    assert board.radii == (Fraction(8, 255), Fraction(1, 4), Fraction(1))
    with pytest.raises(BoardError, match=r"Radii '1/4' and 0\.25 are the same number\. Remove one"):
        board_of([make_entry("a")], ["1/4", 0.25])
    with pytest.raises(BoardError, match="Radius 'eps' is not a number"):
        board_of([make_entry("a")], ["eps"])
    with pytest.raises(BoardError, match="Radius '1e400' is larger than any float64"):
        board_of([make_entry("a")], ["1e400"])
