import dataclasses
import io
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from bench.rows import error_rows
from bench.terminal import board_table
from leaderboards import Entry, board_of
from leaderboards.records import no_rows

HOSTILE = "[red]a[/] [link=http://x.y]b[/link] :smile: [/] \\"


def entry(name: str, certified: int, **changes: Any) -> Entry:
    rows = error_rows(range(4), [1] * 4, "").assign(prediction=1, clean_prediction=1, radius=0.5, seconds=0.25)
    rows["verdict"] = ["CERTIFIED"] * certified + ["ABSTAINED"] * (4 - certified)
    rows.loc[rows["verdict"] == "ABSTAINED", ["radius", "prediction"]] = [0.0, -1]
    texts = dict.fromkeys(("ensemble", "aggregation", "certifier", "guarantee"), "x")
    fields: dict[str, Any] = {"dataset": "digits", "split": "test", "images_digest": "d", "images": 4, "norm": "l2"}
    return Entry(**fields | texts | {"name": name, "status": "complete", "rows": rows} | changes)


def shown(*entries: Entry, title: str = "A title") -> str:
    written = io.StringIO()
    board = board_of(entries, ["0", "1/4", "1"], title=title)
    Console(file=written, width=200, force_terminal=False).print(board_table(board))
    return written.getvalue()


def cells(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line[:1] in "┃│"]
    return [[cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in rows]


def test_the_table_has_rank_name_shares_radius_and_cost() -> None:
    text = shown(entry("worse", 1), entry("better", 3))
    assert cells(text) == [
        ["#", "entry", "mean", "r=0", "r=0.25", "r=1", "clean", "ACR", "s/image", "checked"],
        ["", "Unverified", *[""] * 8],
        ["1", "better", "50.0", "75.0", "75.0", "0.0", "100.0", "0.375", "0.25", "not checked"],
        ["2", "worse", "16.7", "25.0", "25.0", "0.0", "100.0", "0.125", "0.25", "not checked"],
    ]
    assert text.startswith("A title")
    caption = "4 test images of digits; certified accuracy in % at l2 radius r. Ranked by the mean of the certified "
    assert caption in " ".join(text.split())


def test_an_entry_without_numbers_says_why_and_has_none() -> None:
    missing = [
        entry(status, 4, status=status, rows=no_rows() if status != "failed" else failed_rows(), reason="it broke")
        for status in ("unsupported", "incomplete", "failed")
    ]
    table = cells(shown(entry("sound", 2), *missing))
    # Of what is missing, how much says what to expect.
    states = ["unsupported", "incomplete: it broke", "failed"]
    assert table[3:] == [
        ["-", f"{line.name} ({state})", *["-"] * 7, "not checked"] for line, state in zip(missing, states, strict=True)
    ]


def failed_rows() -> pd.DataFrame:
    return error_rows(range(4), [1] * 4, "it broke")


def test_an_unknown_clean_accuracy_is_a_dash() -> None:
    sound = entry("sound", 2)
    unknown = entry("sound", 2, rows=sound.rows.assign(clean_prediction=-1))
    assert cells(shown(unknown))[2][6] == "-"


@pytest.mark.parametrize("place", ["name", "title", "dataset"])
def test_names_are_text_and_never_markup(place: str) -> None:
    if place == "title":
        text = shown(entry("x", 1), title=HOSTILE)
    else:
        text = shown(dataclasses.replace(entry("x", 1), **{place: HOSTILE}))
    assert HOSTILE in " ".join(text.split())


def test_what_would_steer_a_terminal_is_shown_as_what_it_is_not() -> None:
    text = shown(entry("a\x1b[2Jb\x07c\u202ed", 1))
    assert "a\ufffd[2Jb\ufffdc\ufffdd" in text
    assert "\x1b" not in text
