"""What is unsound or unverified says so wherever its numbers stand."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from leaderboards.audits import Audit
from leaderboards.badges import Badge
from leaderboards.board import Board, build_board
from leaderboards.margins_plot import margins_svg
from leaderboards.marks import mark, marked_name
from leaderboards.page import html_page
from leaderboards.plots import curves_svg
from leaderboards.records import Entry, Run
from leaderboards.side_by_side import stages
from leaderboards.tables import latex_table, markdown_page

MakeEntry = Callable[..., Entry]

CHECKED = Badge(certifier={}, level=2, kit=1, seed=7)
BELOW = Badge(certifier={}, level=1, kit=1, seed=7)
FAILED = Badge(certifier={}, level=1, kit=1, seed=7, failed=("L2: corner",))
REFUTED = Audit(certificates=3, audited=3, refuted=1, enclosed=0, tightness=None)
STANDING = replace(REFUTED, refuted=0)

CASES = [
    ({"conformance": CHECKED}, ""),
    ({"conformance": CHECKED, "audit": STANDING}, ""),
    ({"conformance": CHECKED, "audit": REFUTED}, "UNSOUND"),
    ({"conformance": BELOW}, "unverified"),
    ({"conformance": FAILED}, "unverified"),
    ({}, "unverified"),
    ({"audit": STANDING}, "unverified"),
    ({"audit": REFUTED}, "UNSOUND, unverified"),
]


@pytest.mark.parametrize(("state", "expected"), CASES)
def test_the_mark_of_an_entry(make_entry: MakeEntry, state: dict[str, Any], expected: str) -> None:
    entry = make_entry("crown on drt", **state)
    assert mark(entry) == expected
    assert marked_name(entry) == ("crown on drt" if not expected else f"crown on drt ({expected})")


@pytest.fixture
def board(make_run: Callable[..., Run], make_entry: MakeEntry, make_rows: Callable[..., Any]) -> Board:
    """One classifier under four certifiers, and its member, on a board of one radius: every view is there."""

    def entry(name: str, **changes: Any) -> Entry:
        rows = make_rows((0.5, 1.0, 1.5, 0.25), evidence_margin=[0.1, 0.2, 0.3, -0.1], evidence_stage=["ibp"] * 4)
        details = {"labels": {"aggregation": "we", "certifier": name}}
        return make_entry(name, **{"rows": rows, "certifier": name, "details": details} | changes)

    member = {"aggregation": "single", "details": {"labels": {"aggregation": "single", "certifier": "sound"}}}
    return build_board(
        make_run(
            entry("sound", conformance=CHECKED, audit=STANDING),
            entry("caught", conformance=CHECKED, audit=REFUTED),
            entry("unchecked", conformance=FAILED),
            entry("both", audit=REFUTED),
            entry("member", conformance=CHECKED, **member),
            radii=("0.5",),
        )
    )


MARKED = ("caught (UNSOUND)", "unchecked (unverified)", "both (UNSOUND, unverified)")


def test_side_by_side_every_number_is_marked(board: Board) -> None:
    row = next(line for line in markdown_page(board).splitlines() if line.startswith("| drt | we |"))
    # r and the seconds of each certifier, in the order of the board.
    numbers = [cell.strip() for cell in row.strip("|").split("|")][2::2]
    assert numbers == ["75.0", "75.0 **UNSOUND**", "75.0 **unverified**", "75.0 **UNSOUND, unverified**"]
    page = html_page(board)
    groups = page[page.index('id="certifiers"') : page.index('id="ranking"')]
    assert re.findall(r'<td class="first">(.*?)</td>', groups)[:4] == [
        "75.0",
        '75.0 <span class="mark">UNSOUND</span>',
        '75.0 <span class="mark">unverified</span>',
        '75.0 <span class="mark">UNSOUND, unverified</span>',
    ]


def texts(svg: str) -> set[str]:
    root = ElementTree.fromstring(svg)  # noqa: S314 -- our own output
    return {"".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")}


def test_the_legend_of_the_curves_is_marked(board: Board) -> None:
    found = texts(curves_svg(board))
    assert {"sound", "member", *MARKED} <= found
    assert not {"caught", "unchecked", "both"} & found


def test_a_long_name_leaves_its_mark(make_run: Callable[..., Run], make_entry: MakeEntry) -> None:
    svg = curves_svg(build_board(make_run(make_entry("x" * 200, conformance=CHECKED, audit=REFUTED))))
    assert any(text.startswith("xxx") and text.endswith("x (UNSOUND)") for text in texts(svg))


def test_bounds_on_margins_are_marked(board: Board) -> None:
    found = " ".join(texts(margins_svg(board)))
    assert all(f"3 of 4 above 0 ({words})" in found for words in ("UNSOUND", "unverified", "UNSOUND, unverified"))
    listed = markdown_page(board).partition("## Lower bounds on margins")[2].partition("##")[0]
    assert [line.partition(":")[0] for line in listed.splitlines() if line.startswith("- ")] == [
        "- sound",
        *(f"- {name}" for name in MARKED),
    ]
    (alt,) = re.findall(r'alt="(sound: .*?)"', html_page(board))
    assert all(f"{name}: 3 of 4" in alt for name in MARKED)


def test_stages_and_details_are_marked(board: Board) -> None:
    assert set(stages(board)) == {"sound", "member", *MARKED}
    summaries = re.findall(r'<summary><span class="name" tabindex="-1">(.*?)</summary>', html_page(board))
    summaries = [summary.replace("</span>", "", 1) for summary in summaries]
    assert summaries[:2] == ["sound", "member"]
    assert 'caught <span class="status">UNSOUND</span>' in summaries
    assert 'both <span class="status">UNSOUND, unverified</span>' in summaries


def test_the_table_for_papers_has_the_unsound_in_bold_and_the_unverified_below(board: Board) -> None:
    sound, _, apart = latex_table(board).partition(r"\emph{Unverified}")
    assert r"caught (\textbf{unsound})" in sound
    assert r"sound &" in sound
    assert "unchecked &" in apart
    assert r"both (\textbf{unsound})" in apart
