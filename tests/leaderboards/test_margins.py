"""Lower bounds on margins: which images, which entries, and the figure."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from leaderboards.board import Board, build_board
from leaderboards.margins import MOST_IMAGES, margins
from leaderboards.margins_plot import margins_png, margins_svg
from leaderboards.page import html_page
from leaderboards.records import Entry, Run
from leaderboards.render import publish
from leaderboards.tables import markdown_page
from leaderboards.theme import DARK
from tests.leaderboards.conftest import HOSTILE

MakeEntry = Callable[..., Entry]
RADII = (0.5, 0.5, 0.0, 0.5, 0.0)


@pytest.fixture
def entries(make_entry: MakeEntry, make_rows: Callable[..., pd.DataFrame]) -> list[Entry]:
    """Two members who are right but for an image each, their average, and an ensemble without members on the board."""

    def member(number: int, wrong: int) -> Entry:
        rows = make_rows(RADII)
        rows.loc[wrong, "clean_prediction"] = 2
        return make_entry(
            f"member {number}", rows=rows, images=5, aggregation="single", details={"aggregation": {"member": number}}
        )

    bounds = make_rows(RADII, evidence_margin=[1.5, 0.25, -30.0, 2.0, math.nan])
    return [
        make_entry(HOSTILE, rows=bounds, images=5, certifier="crown"),
        member(0, wrong=0),
        member(1, wrong=1),
        make_entry("gal", rows=bounds, images=5, ensemble="gal", certifier="crown"),
        make_entry("no bounds", RADII, aggregation="mme"),
    ]


@pytest.fixture
def board(make_run: Callable[..., Run], entries: list[Entry]) -> Board:
    return build_board(make_run(*entries, radii=("0.5",)))


def test_images_are_those_that_all_members_classify_rightly(board: Board) -> None:
    (panel,) = margins(board)
    assert panel.line.entry.name == HOSTILE
    assert panel.members == 2
    assert panel.values[:2].tolist() == [-30.0, 2.0]
    assert math.isnan(panel.values[2])
    assert panel.above == 1
    assert panel.median == -14.0


def test_there_are_at_most_two_hundred(make_run: Callable[..., Run], entries: list[Entry]) -> None:
    def many(entry: Entry) -> Entry:
        rows = pd.concat([entry.rows.assign(image_id=entry.rows["image_id"] + 1000 * n) for n in range(99)])
        return replace(entry, rows=rows.reset_index(drop=True), images=len(rows))

    (panel,) = margins(build_board(make_run(*map(many, entries), radii=("0.5",))))
    assert len(panel.values) == MOST_IMAGES
    assert panel.values[3] == -30.0


@pytest.mark.parametrize("radii", [("0.25", "0.5"), ("0",)])
def test_boards_of_other_radii_have_none(
    make_run: Callable[..., Run], entries: list[Entry], radii: tuple[str, ...]
) -> None:
    board = build_board(make_run(*entries, radii=radii))
    assert margins(board) == ()
    assert "Lower bounds on margins" not in markdown_page(board)
    assert "Lower bounds on margins" not in html_page(board)


def test_the_figure_says_how_many_are_above_zero_and_runs_nothing(board: Board) -> None:
    svg = margins_svg(board)
    root = ElementTree.fromstring(svg)  # noqa: S314 -- our own output
    texts = ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.endswith("1 of 3 above 0 (unverified)") for text in texts)
    assert "<script" not in svg
    assert not re.search(r"(href|src)=[\"'](?!#)", svg)
    assert margins_svg(board) == svg
    assert margins_svg(board, DARK) != svg
    assert margins_png(board) == margins_png(board)


def test_it_is_published_where_there_is_something_to_show(
    board: Board, make_run: Callable[..., Run], entries: list[Entry], tmp_path: Any
) -> None:
    assert {"margins.svg", "margins.png"} <= set(publish(board, tmp_path / "one"))
    assert not {"margins.svg", "margins.png"} & set(publish(build_board(make_run(*entries)), tmp_path / "two"))
    page = html_page(board)
    assert "1 of 3 images above zero" in page
    assert "<img src=x" not in page
    assert ": 1 of 3 above 0, median -14" in markdown_page(board)
