import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from leaderboards.board import build_board
from leaderboards.documents import json_document
from leaderboards.metrics import binomial_interval
from leaderboards.records import Entry, Run


def test_the_document_holds_counts_and_intervals_unrounded(
    make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    run = make_run(make_entry("one"), make_entry("part", status="incomplete", reason="why"), radii=("8/255", "1"))
    document = json.loads(json_document(build_board(run)))
    assert document["radii"] == ["8/255", "1"]
    assert document["spec_text"] == run.spec_text
    assert (document["images"], document["norm"], document["schema"]) == (4, "l2", 1)
    one, part = document["entries"]
    assert one["scores"]["certified_accuracy"][0] == {
        "radius": "8/255",
        "radius_float": 8 / 255,
        "value": 0.5,
        "interval": list(binomial_interval(2, 4)),
        "successes": 2,
        "trials": 4,
    }
    assert one["scores"]["verdicts"] == {"ABSTAINED": 1, "CERTIFIED": 3}
    assert (one["rows"], one["errors"], one["scores"]["average_certified_radius"]) == (4, 0, 0.375)
    assert (part["rank"], part["scores"], part["status"], part["reason"]) == (None, None, "incomplete", "why")


def test_parameters_of_any_kind_become_plain(make_run: Callable[..., Run], make_entry: Callable[..., Entry]) -> None:
    parameters = {"a": math.inf, "b": Path("x"), "c": (1, None), 4: {"e": math.nan, "f": True}}
    entry = replace(make_entry("one"), parameters=parameters)
    found = json.loads(json_document(build_board(make_run(entry))))["entries"][0]["parameters"]
    assert found == {"a": "inf", "b": "x", "c": [1, None], "4": {"e": "nan", "f": True}}


def test_unknown_clean_predictions_are_null(make_run: Callable[..., Run], make_entry: Callable[..., Entry]) -> None:
    entry = make_entry("one")
    board = build_board(make_run(replace(entry, rows=entry.rows.assign(clean_prediction=-1))))
    assert json.loads(json_document(board))["entries"][0]["scores"]["clean_accuracy"] is None
