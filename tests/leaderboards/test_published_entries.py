"""Entries of published logs say so on every view, earn no badge, and take no rank from what was computed here."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from leaderboards.badges import Badge, badge_text, groups, is_verified
from leaderboards.board import Board, build_board
from leaderboards.documents import json_document
from leaderboards.marks import mark, marked_name, state
from leaderboards.page import html_page
from leaderboards.plots import curves_svg
from leaderboards.records import PRINTED_RADIUS, Entry, Run
from leaderboards.rounding import rounding_costs
from leaderboards.side_by_side import side_by_side
from leaderboards.tables import latex_table, markdown_page
from tests.leaderboards.conftest import HOSTILE

MakeEntry = Callable[..., Entry]
CHECKED = Badge(certifier={}, level=2, kit=1, seed=7)
WORDS = "published, not verified here"
MISSING = "73 of 500 images are missing: 8540, 8560, 8580, ..."


@pytest.fixture
def published_rows(make_rows: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    """Four images, all right: one is printed as 0.5, and may be 0.4995."""
    unknown = {"clean_prediction": -1, "forward_passes": -1, "bound_passes": -1}
    rows = make_rows((0.4995, 1.005, 1.505, 0.2495), evidence_printed_radius=[0.5, 1.01, 1.51, 0.25], **unknown)
    return rows.assign(seconds=[0.5, 0.5, -1.0, 0.5])


@pytest.fixture
def board(make_run: Callable[..., Run], make_entry: MakeEntry, published_rows: pd.DataFrame) -> Board:
    """Published entries that would be first and last, one without a badge of its own, one that is not complete."""
    return build_board(
        make_run(
            make_entry("theirs", rows=published_rows, source="https://x.y", conformance=CHECKED, certifier="theirs"),
            make_entry("checked", (0.5, 0.5, None, None), conformance=CHECKED),
            make_entry("unchecked", (0.5, None, None, None), certifier="other"),
            make_entry("worse", rows=published_rows.assign(prediction=[2, 2, 2, 1]), source="A, B & C, ICML 2022"),
            make_entry("cut off", rows=published_rows.iloc[:2], source="s", status="incomplete", reason=MISSING),
        )
    )


def test_each_group_has_ranks_of_its_own(board: Board) -> None:
    assert [(line.rank, line.entry.name) for line in board.lines] == [
        (1, "checked"),
        (1, "unchecked"),
        (1, "theirs"),
        (2, "worse"),
        (None, "cut off"),
    ]
    found = groups(board)
    assert [(group.heading, group.first, len(group.lines)) for group in found] == [
        ("", 0, 1),
        ("Unverified", 1, 1),
        ("Published, not verified here", 2, 2),
    ]
    assert "ranked among themselves alone" in found[2].note
    assert "rounding up never certifies" in found[2].note


def test_no_badge_is_shown_even_where_one_was_slipped_in(board: Board) -> None:
    (theirs,) = (line.entry for line in board.ranked if line.entry.name == "theirs")
    assert theirs.conformance == CHECKED
    assert not is_verified(theirs)
    assert badge_text(theirs) == mark(theirs) == WORDS
    assert marked_name(theirs) == f"theirs ({WORDS})"


def test_the_rows_say_it_where_nothing_else_does(make_entry: MakeEntry, published_rows: pd.DataFrame) -> None:
    entry = make_entry("theirs", rows=published_rows, conformance=CHECKED)
    assert (entry.source, entry.imported, is_verified(entry)) == ("", True, False)
    own = make_entry("own", rows=published_rows.drop(columns=PRINTED_RADIUS), conformance=CHECKED)
    assert (own.imported, is_verified(own)) == (False, True)


def test_the_page_marks_them(board: Board) -> None:
    page = html_page(board)
    apart = page[page.index("<h3>Published, not verified here</h3>") :]
    assert page.count('<span class="badge verified">') == 1
    assert apart.count(f'<span class="badge">{WORDS}</span>') == 2
    without = apart[apart.index("<h3>Without numbers</h3>") :]
    assert f'<span class="mark">{WORDS}</span> <span class="status">incomplete</span> {MISSING}' in without
    assert f'theirs</span> <span class="status">{WORDS}</span>' in page
    assert f'cut off</span> <span class="status">{WORDS}</span> <span class="status">incomplete</span>' in page
    assert "Source of worse: A, B &amp; C, ICML 2022" in page
    # What the log does not tell is a dash.
    row = apart[apart.index(">theirs</a>") : apart.index(">worse</a>")]
    assert row.count('<td data-order="-1">–</td>') == 2
    assert "nan" not in apart[: apart.index("<h2")].lower()


def test_the_markdown_marks_them(board: Board) -> None:
    text = markdown_page(board)
    head, _, apart = text.partition("## Published, not verified here")
    assert "| theirs |" not in head.partition("## Ranking")[2]
    assert apart.partition("##")[0].count(f"| {WORDS} |") == 2
    assert f"- cut off ({WORDS}): **incomplete** ({MISSING})" in text
    assert "- Source of theirs: https&#58;//x.y" in text
    assert "read from a log of others" in text


def test_the_table_for_papers_marks_them(board: Board) -> None:
    text = latex_table(board)
    rows = text[text.index("midrule") :]
    order = ("checked", "Unverified", "unchecked", "Published, not verified here", "theirs", "worse")
    places = [rows.index(words) for words in order]
    assert places == sorted(places)
    assert f"cut off ({WORDS}; incomplete: {MISSING})" in text


def test_the_document_and_the_table_mark_them(board: Board) -> None:
    entries = {entry["name"]: entry for entry in json.loads(json_document(board))["entries"]}
    assert entries["theirs"]["published"] == {"source": "https://x.y", "verified": False}
    assert "published" not in entries["checked"]
    assert entries["theirs"]["conformance"] is None
    scores = entries["theirs"]["scores"]
    assert [scores[f"{name}_per_image"] for name in ("forward_passes", "bound_passes", "seconds")] == [None] * 3
    assert (entries["cut off"]["scores"], entries["cut off"]["reason"]) == (None, MISSING)
    table = board.table().set_index("entry")
    assert table["conformance"].to_dict() == {
        "checked": str(CHECKED),
        "unchecked": "not checked",
        **dict.fromkeys(("theirs", "worse", "cut off"), WORDS),
    }
    assert table.loc["theirs", ["forward_passes_per_image", "seconds_per_image"]].isna().all()


def test_curves_and_certifiers_side_by_side_mark_them(board: Board) -> None:
    svg = ElementTree.fromstring(curves_svg(board))  # noqa: S314 -- our own output
    texts = {"".join(node.itertext()).strip() for node in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {f"theirs ({WORDS})", f"worse ({WORDS})", "checked"} <= texts
    assert not {"theirs", "worse"} & texts
    assert side_by_side(board) is not None
    row = next(line for line in markdown_page(board).splitlines() if line.startswith("| drt | we |"))
    assert f"**{WORDS}**" in row


def test_the_figures_of_the_source_stand_beside_what_is_sure(board: Board) -> None:
    (theirs, worse) = rounding_costs(board)
    assert theirs.line.scores is not None
    # Of four: at 0, 0.5 and 1.
    assert [share.successes for share in theirs.line.scores.certified] == [4, 2, 2]
    assert [share.successes for share in theirs.without] == [4, 3, 2]
    assert [share.successes for share in worse.without] == [1, 0, 0]
    assert "| theirs | 100.0 [100.0] | 50.0 [75.0] | 50.0 [50.0] |" in markdown_page(board)


def test_hostile_sources_stay_text(
    make_run: Callable[..., Run], make_entry: MakeEntry, published_rows: pd.DataFrame
) -> None:
    entry = make_entry("a", rows=published_rows, source=HOSTILE, details={"rounding": HOSTILE})
    board = build_board(make_run(entry, replace(entry, name="b", status="incomplete", reason=HOSTILE)))
    page, text = html_page(board), markdown_page(board)
    assert "<img src=x" not in page + text
    assert "](http://b.c)" not in text.replace(r"\]", "")
    latex_table(board)


def test_a_state_names_what_is_missing(make_entry: MakeEntry) -> None:
    assert state(make_entry("a", status="incomplete", reason="2 missing")) == "incomplete: 2 missing"
    assert state(make_entry("a", status="unsupported", reason="long")) == "unsupported"
    assert state(make_entry("a", status="incomplete", source="s")) == f"{WORDS}; incomplete"
