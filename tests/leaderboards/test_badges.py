import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leaderboards import build_board, publish
from leaderboards.badges import Badge, badge_for, badge_of, groups, read_badges
from leaderboards.documents import json_document
from leaderboards.page import html_page
from leaderboards.records import Entry, Run
from leaderboards.tables import latex_table, markdown_page

SMOOTHING = {"name": "smoothing", "version": 1, "parameters": {"sigma": 0.5}}


def document(*checks: tuple[str, str, int], **changes: Any) -> dict[str, Any]:
    return {
        "document": "certbench-conformance",
        "document_version": 1,
        "certifier": SMOOTHING,
        "kit": 1,
        "seed": 7,
        "quick": True,
        "asked": "L2",
        "checks": [
            {"name": f"check {number}", "level": level, "status": status, "measured": measured}
            for number, (level, status, measured) in enumerate(checks)
        ],
    } | changes


def badge(level: int = 2, **changes: Any) -> Badge:
    return Badge(**({"certifier": SMOOTHING, "level": level, "kit": 1, "seed": 7} | changes))


ALL = (("L0", "passed", 5), ("L1", "passed", 5), ("L1", "not applicable", 0), ("L2", "passed", 1))


@pytest.mark.parametrize(
    ("checks", "text", "verified"),
    [
        (ALL, "L2 quick · kit 1 · seed 7", True),
        (ALL[:3], "L1 quick · kit 1 · seed 7", False),
        ((*ALL, ("L4", "passed", 1)), "L2 quick · kit 1 · seed 7", True),
        ((*ALL, ("L3", "passed", 1), ("L4", "passed", 9)), "L4 quick · kit 1 · seed 7", True),
        ((*ALL[:3], ("L2", "not applicable", 0)), "L1 quick · kit 1 · seed 7", False),
        ((*ALL, ("L1", "failed", 0)), "failed L1: check 4 · kit 1 · seed 7", False),
        ((*ALL, ("L2", "expected failure", 0)), "L1 quick · kit 1 · seed 7", False),
        ((*ALL, ("L3", "failed", 0), ("L0", "failed", 1)), "failed L0: check 5 · kit 1 · seed 7", False),
        ((), "no level reached · kit 1 · seed 7", False),
        ((("L0", "passed", 0),), "no level reached · kit 1 · seed 7", False),
    ],
)
def test_a_badge_says_what_the_checks_came_to(checks: Any, text: str, verified: bool) -> None:
    found = badge_of(document(*checks))
    assert str(found) == text
    assert found.verified is verified


@pytest.mark.parametrize(
    "change",
    [{"document": "else"}, {"document_version": 2}, {"checks": [{"name": "x"}]}, {"checks": None}, {"kit": "one"}],
)
def test_what_is_no_check_earns_no_badge(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"check|invalid literal"):
        badge_of(document(*ALL) | change)
    (tmp_path / "a.json").write_text(json.dumps(document(*ALL) | change))
    (tmp_path / "b.json").write_text('{"document": ')
    (tmp_path / "c.json").write_text(json.dumps(document(*ALL)))
    assert read_badges(tmp_path) == (badge_of(document(*ALL)),)
    assert read_badges(tmp_path / "none") == ()


def test_the_newest_kit_counts_and_in_it_a_failure_before_any_level() -> None:
    old, new = badge(4, kit=1), badge(2, kit=2)
    assert badge_for(SMOOTHING, [old, new]) == new
    failing = badge(1, kit=2, failed=("L2: x",), seed=8)
    assert badge_for(SMOOTHING, [old, failing, new]) == failing
    assert badge_for(SMOOTHING, [badge(2, quick=True), badge(3, seed=1)]) == badge(3, seed=1)
    assert badge_for(SMOOTHING | {"version": 2}, [old, new]) is None
    assert badge_for(SMOOTHING | {"parameters": {"sigma": 0.25}}, [old, new]) is None
    assert badge_for(None, [old, new]) is None


@pytest.fixture
def mixed(make_run: Callable[..., Run], make_entry: Callable[..., Entry]) -> Run:
    """The best entry was never checked, the next failed a check, the last two passed."""
    return make_run(
        make_entry("good", (0.5, 0.5, None, None), conformance=badge(2)),
        make_entry("never", (9.0, 9.0, 9.0, 9.0)),
        make_entry("broken", (9.0, 9.0, 9.0, None), conformance=badge(0, failed=("L1: <b>linear</b>",))),
        make_entry("fair", (0.5, None, None, None), conformance=badge(4, quick=True)),
    )


def test_unverified_rows_come_apart_and_take_no_rank_from_the_verified(mixed: Run) -> None:
    board = build_board(mixed)
    assert [(line.rank, line.entry.name) for line in board.lines] == [
        (1, "good"),
        (2, "fair"),
        (1, "never"),
        (2, "broken"),
    ]
    found = groups(board)
    assert [(group.heading, group.first, len(group.lines)) for group in found] == [("", 0, 2), ("Unverified", 2, 2)]
    assert board.table()["conformance"].tolist() == [
        "L2 · kit 1 · seed 7",
        "L4 quick · kit 1 · seed 7",
        "not checked",
        "failed L1: <b>linear</b> · kit 1 · seed 7",
    ]


def test_every_form_of_a_board_shows_badges_and_the_heading(mixed: Run) -> None:
    board = build_board(mixed)
    page, markdown, latex = html_page(board), markdown_page(board), latex_table(board)
    head, _, apart = markdown.partition("## Unverified")
    assert "L2 · kit 1 · seed 7" in head
    assert "not checked" not in head.partition("## How to read it")[0]
    assert apart.index("not checked") < apart.index("failed L1:")
    head, _, apart = page.partition("<h3>Unverified</h3>")
    assert 'class="badge verified"' in head
    assert "failed L1: &lt;b&gt;linear&lt;/b&gt; · kit 1 · seed 7" in apart
    assert 'href="#entry-4">broken</a>' in apart
    assert "quick: fewer and smaller cases" in head
    rows = latex[latex.index("midrule") :]
    assert rows.index("fair") < rows.index("Unverified") < rows.index("never")
    entries = json.loads(json_document(board))["entries"]
    assert [entry["conformance"] and entry["conformance"]["verified"] for entry in entries] == [True, True, None, False]


def test_a_board_on_which_all_is_verified_has_no_such_heading(mixed: Run) -> None:
    whole = replace(mixed, entries=tuple(replace(entry, conformance=badge(3)) for entry in mixed.entries))
    board = build_board(whole)
    assert [line.entry.name for line in board.lines] == ["never", "broken", "good", "fair"]
    assert "Unverified" not in html_page(board) + latex_table(board)
    assert "## Unverified" not in markdown_page(board)


def test_a_board_of_before_checks_is_read_and_says_not_checked(
    make_run: Callable[..., Run], make_entry: Callable[..., Entry], tmp_path: Path
) -> None:
    board = build_board(make_run(make_entry("one")))
    files = publish(board, tmp_path)
    assert "not checked" in files["board.md"].read_text(encoding="utf-8")
    assert json.loads(files["board.json"].read_text(encoding="utf-8"))["entries"][0]["conformance"] is None
