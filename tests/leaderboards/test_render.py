import csv
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from leaderboards import render
from leaderboards.board import Board, build_board
from leaderboards.records import Entry, Run

NAMES = {"board.html", "board.md", "board.csv", "board.json", "board.tex", "curves.svg", "curves.png"}


@pytest.fixture
def board(make_run: Callable[..., Run], make_entry: Callable[..., Entry]) -> Board:
    strange = 'a,"b"\n é'
    return build_board(make_run(make_entry("one"), make_entry(strange), make_entry("part", status="failed")))


def test_every_format_is_written_and_equal_boards_give_equal_bytes(board: Board, tmp_path: Path) -> None:
    first = render.publish(board, tmp_path / "new" / "a")
    second = render.publish(board, tmp_path / "b")
    assert set(first) == NAMES == {path.name for path in (tmp_path / "new" / "a").iterdir()}
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes() != b""


def test_csv_and_json_hold_the_table(board: Board, tmp_path: Path) -> None:
    paths = render.publish(board, tmp_path)
    table = board.table()
    read = pd.read_csv(paths["board.csv"], keep_default_na=False, na_values=[""])
    assert list(read.columns) == list(table.columns)
    for column in table.select_dtypes("number"):
        assert read[column].astype(float).tolist() == pytest.approx(
            table[column].astype(float).tolist(), nan_ok=True, rel=0, abs=0
        )
    document = json.loads(paths["board.json"].read_text(encoding="utf-8"))
    assert [entry["name"] for entry in document["entries"]] == list(table["entry"])
    means = [entry["scores"]["mean_certified_accuracy"] for entry in document["entries"] if entry["scores"]]
    assert means == list(table["mean_certified_accuracy"].dropna())


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_text_of_the_csv_is_a_formula(
    begins: str, make_run: Callable[..., Run], make_entry: Callable[..., Entry], tmp_path: Path
) -> None:
    text = f'{begins}HYPERLINK("http://x")'
    board = build_board(
        make_run(
            make_entry(text, ensemble=text, warnings=(text,), diagnostics={"balance": -0.5}),
            make_entry("a=b", status="failed", reason=text),
        )
    )
    path = render.publish(board, tmp_path, only=["board.csv"])["board.csv"]
    with path.open(encoding="utf-8", newline="") as file:
        ours, plain = csv.DictReader(file)
    assert [ours[column] for column in ("entry", "ensemble", "warnings")] == [f"'{text}"] * 3
    assert (plain["entry"], plain["reason"], plain["ensemble"]) == ("a=b", f"'{text}", "drt")
    assert (ours["diagnostic_balance"], ours["rank"], ours["clean_accuracy"]) == ("-0.5", "1", "1.0")


def test_an_error_leaves_the_files_of_the_last_time(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = render.publish(board, tmp_path)
    before = {name: path.read_bytes() for name, path in paths.items()}

    def broken(_: object) -> str:
        raise RuntimeError("no table today")

    monkeypatch.setattr(render, "latex_table", broken)
    with pytest.raises(RuntimeError, match="no table today"):
        render.publish(board, tmp_path)
    monkeypatch.undo()

    def cut_off(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", cut_off)
    with pytest.raises(OSError, match="disk full"):
        render.publish(board, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
