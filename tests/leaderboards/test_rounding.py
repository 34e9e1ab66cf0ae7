"""Certified accuracy with and without what is given away for rounding."""

import json
import math
from collections.abc import Callable
from fractions import Fraction

import pandas as pd
import pytest

from leaderboards.board import Board, build_board
from leaderboards.documents import json_document
from leaderboards.page import html_page
from leaderboards.records import Entry, Run
from leaderboards.rounding import reading_of_rounding, rounding_costs
from leaderboards.tables import markdown_page
from tests.leaderboards.conftest import HOSTILE


@pytest.fixture
def board(
    make_run: Callable[..., Run], make_entry: Callable[..., Entry], make_rows: Callable[..., pd.DataFrame]
) -> Board:
    """Of four images three are certified at 0.25, one wrongly; without rounding the last would be, too."""
    rows = make_rows((0.25, 0.5, 0.25, 0.0), evidence_unrounded_radius=[0.25, 0.5, 0.5, 0.25])
    rows.loc[0, ["prediction", "clean_prediction"]] = 7
    given = make_rows((0.5,) * 4, evidence_unrounded_radius=[math.nan] * 4)
    return build_board(
        make_run(
            make_entry(HOSTILE, rows=rows),
            make_entry("none found", rows=given),
            make_entry("never asked", (0.5,) * 4),
            radii=("0.25", "0.5"),
        )
    )


def test_images_that_are_answered_rightly_count_at_the_radius_found_without_rounding(board: Board) -> None:
    costs = {cost.line.entry.name: [share.successes for share in cost.without] for cost in rounding_costs(board)}
    assert costs == {HOSTILE: [3, 2], "none found": [0, 0]}
    (hostile,) = (line for line in board.ranked if line.entry.name == HOSTILE)
    assert hostile.scores is not None
    assert [share.successes for share in hostile.scores.certified] == [2, 1]
    assert board.radii == (Fraction(1, 4), Fraction(1, 2))


def test_pages_show_both_and_say_which_is_proved(board: Board) -> None:
    page, text = html_page(board), markdown_page(board)
    assert "which is proved" in reading_of_rounding()
    for shown in (page.replace("&#39;", "'"), text):
        assert reading_of_rounding() in shown
        assert "With and without rounding" in shown
    assert "| 50.0 [75.0] | 25.0 [50.0] |" in text
    table = page[page.index('id="rounding"') :]
    assert '<td>50.0 <span class="ends">[75.0]</span></td>' in table[: table.index("</table>")]
    assert HOSTILE not in page
    entries = {entry["name"]: entry for entry in json.loads(json_document(board))["entries"]}
    assert [share["successes"] for share in entries[HOSTILE]["scores"]["unrounded"]] == [3, 2]
    assert "unrounded" not in entries["never asked"]["scores"]


def test_boards_without_that_evidence_have_no_such_table(
    make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    board = build_board(make_run(make_entry("a")))
    assert not rounding_costs(board)
    assert "without rounding" not in html_page(board) + markdown_page(board)
