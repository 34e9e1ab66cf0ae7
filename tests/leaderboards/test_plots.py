import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from leaderboards.badges import Badge
from leaderboards.board import Board, build_board
from leaderboards.plots import curves_png, curves_svg
from leaderboards.records import Entry, Run
from leaderboards.theme import DARK

CHECKED = Badge(certifier={}, level=2, kit=1, seed=7)


@pytest.fixture
def board(make_run: Callable[..., Run], make_entry: Callable[..., Entry]) -> Board:
    names = ("_private", "cost $5 and $6", "a_b^c", "<script>alert(1)</script>", "five")
    checked = [make_entry(name, conformance=CHECKED) for name in names]
    return build_board(make_run(*checked, make_entry("part", status="incomplete")))


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)  # noqa: S314 -- our own output
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_equal_boards_give_equal_bytes(board: Board) -> None:
    before = dict(mpl.rcParams)
    assert curves_svg(board) == curves_svg(board)
    assert curves_png(board) == curves_png(board)
    assert curves_svg(board) != curves_svg(board, DARK)
    assert dict(mpl.rcParams) == before


def test_the_legend_names_every_complete_entry_as_it_is(board: Board) -> None:
    found = texts(curves_svg(board))
    assert {"_private", "cost $5 and $6", "a_b^c", "<script>alert(1)</script>", "five"} <= set(found)
    assert "part" not in found
    assert "certified radius (l2, input units)" in found
    assert "certified accuracy (% of 4 images)" in found


def test_the_svg_loads_and_runs_nothing(hostile_run: Run) -> None:
    svg = curves_svg(build_board(hostile_run))
    assert "<script" not in svg
    assert not re.search(r"(href|src)=[\"'](?!#)", svg)
    assert not re.search(r"url\((?!#)", svg)
    assert "dc:date" not in svg


def test_the_png_is_twice_as_fine_as_a_screen(board: Board) -> None:
    image = np.asarray(imread(io.BytesIO(curves_png(board))))
    assert image.shape[1] == 8.0 * 2 * 96


def test_a_board_without_complete_entries_has_a_plot_that_says_so(
    make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    board = build_board(make_run(make_entry("part", status="incomplete"), radii=("0",)))
    assert "No entry is complete." in texts(curves_svg(board))


def test_names_of_any_script_and_length_are_drawn(
    make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    names = ("集成", "x" * 200, "nul\x00", "".join(map(chr, range(1, 32))))
    svg = curves_svg(build_board(make_run(*(make_entry(name, conformance=CHECKED) for name in names))))
    assert "集成" in texts(svg)
