import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from leaderboards.band import band_half_width
from leaderboards.board import Board, build_board
from leaderboards.metrics import binomial_interval, correct_at
from leaderboards.page_data import COLUMNS, NONE, NOTHING_FOUND, json_for_html, page_data
from leaderboards.pictures import Pictures
from leaderboards.published import Log
from leaderboards.records import VERDICTS, Entry, Run

MakeRun = Callable[..., Run]
MakeEntry = Callable[..., Entry]


def read(document: dict[str, Any]) -> dict[str, Any]:
    """The document as a view reads it, each entry with its columns."""
    columns = document["columns"]
    for entry in document["entries"]:
        entry |= {name: list(columns[entry[name]]) for name in COLUMNS}
    return document


@pytest.fixture
def board(make_run: MakeRun, make_entry: MakeEntry, make_rows: Callable[..., object]) -> Board:
    whole = make_entry("whole", attack_radii={0: 0.7, 10: math.inf})
    part = make_entry("part", status="incomplete", images=4, rows=make_rows([0.5, None]), reason="2 of 4 are missing")
    return build_board(make_run(whole, make_entry("other", (1.0, None, None, 0.25)), part, radii=("0", "8/255", "1")))


def test_what_a_view_counts_is_what_the_board_counts(board: Board) -> None:
    found = read(page_data(board))
    assert [radius["text"] for radius in found["radii"]] == ["0", "8/255", "1"]
    certified = VERDICTS.index("CERTIFIED")
    for line, entry in zip(board.ranked, found["entries"], strict=False):
        for radius, written in zip(board.radii, found["radii"], strict=True):
            counted = [
                verdict == certified and prediction == label and found["lengths"][at] >= written["value"]
                for verdict, prediction, label, at in zip(
                    entry["verdict"], entry["prediction"], found["labels"], entry["radius"], strict=True
                )
            ]
            assert counted == correct_at(line.entry.rows, radius).tolist()


def test_intervals_are_those_of_every_count(board: Board) -> None:
    found = read(page_data(board))
    ends = [binomial_interval(count, 4) for count in range(5)]
    assert list(zip(found["low"], found["high"], strict=True)) == ends
    assert found["band"] == band_half_width(4)


def test_only_what_was_computed_here_can_be_tested(make_run: MakeRun, make_entry: MakeEntry) -> None:
    log = make_entry("log", source="https://example.org")
    found = page_data(build_board(make_run(make_entry("ours"), log)))
    assert {entry["name"]: entry["paired"] for entry in found["entries"]} == {"ours": True, "log": False}


def test_attacks_and_missing_rows_are_told_apart(board: Board) -> None:
    found = read(page_data(board))
    entries = {entry["name"]: entry for entry in found["entries"]}
    attacks = entries["whole"]["attack"]
    assert [found["lengths"][attacks[0]], *attacks[1:]] == [0.7, NOTHING_FOUND, NONE, NONE]
    part = entries["part"]
    assert part["verdict"] == [VERDICTS.index("CERTIFIED"), VERDICTS.index("ABSTAINED"), NONE, NONE]
    assert (part["prediction"][2], part["radius"][2], part["scored"], part["mark"]) == (NONE, NONE, False, "incomplete")
    assert found["reasons"][part["reason"][1]] == "abstained"


def test_equal_columns_are_there_once(make_run: MakeRun, make_entry: MakeEntry) -> None:
    document = page_data(build_board(make_run(make_entry("one"), make_entry("same"))))
    assert len(set(document["columns"])) == len(document["columns"])
    one, same = ({name: entry[name] for name in COLUMNS} for entry in document["entries"])
    assert one == same


def test_trainings_and_pictures_are_those_of_the_entries(board: Board) -> None:
    logs = (Log("gaussian", ({"loss": 2.0, "validation_accuracy": 0.5}, {"loss": math.nan})),)
    pictures = Pictures(b"", (10, 0, 20), 2, 8, 8)
    found = page_data(board, logs, {"whole": (0,)}, pictures)
    assert found["logs"] == [{"label": "gaussian", "loss": [2.0, None], "validation": [0.5, None]}]
    assert [entry["logs"] for entry in found["entries"] if entry["name"] in ("whole", "part")] == [[0], []]
    # Images 0, 10, 20 and 30; the last has no picture.
    assert found["pictures"] == {"columns": 2, "width": 8, "height": 8, "rows": 2, "tiles": [1, 0, 2, NONE]}


def test_json_holds_nothing_that_ends_a_script() -> None:
    text = json_for_html({"a": "</script><!-- & \u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!-- & \u2028"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_for_html({"a": math.inf})
