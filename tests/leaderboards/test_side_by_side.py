import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from leaderboards.badges import Badge
from leaderboards.board import Board, build_board
from leaderboards.page import html_page
from leaderboards.records import Entry, Run, no_rows
from leaderboards.side_by_side import side_by_side, stages
from leaderboards.tables import markdown_page
from tests.leaderboards.conftest import HOSTILE

MakeRun = Callable[..., Run]
MakeEntry = Callable[..., Entry]


#: Entries without a mark.
CHECKED: dict[str, Any] = {"conformance": Badge(certifier={}, level=2, kit=1, seed=7)}


def board_of_two(make_run: MakeRun, make_entry: MakeEntry, make_rows: Callable[..., pd.DataFrame]) -> Board:
    def labelled(aggregation: str, certifier: str) -> dict[str, Any]:
        return CHECKED | {"details": {"labels": {"aggregation": aggregation, "certifier": certifier}}}

    staged = make_rows((0.5, 1.0, 1.0, 0.0), evidence_stage=["ibp", "milp", "milp", "open"])
    return build_board(
        make_run(
            make_entry("a", (1.0, 1.0, 1.0, 0.2), **labelled("we", "crown")),
            make_entry("b", (0.5, 0.5, 0.2, 0.2), **labelled("we", "ibp")),
            make_entry("c", rows=staged, **labelled("mme", "crown")),
            make_entry("d", status="unsupported", reason="no norm", rows=no_rows(), **labelled("mme", "ibp")),
            make_entry("e", (0.2,) * 4, ensemble="gal", **labelled("we", "lp")),
            make_entry("f", (0.1,) * 4, ensemble="gal", **labelled("we", "ibp")),
            make_entry("alone", (0.1,) * 4, ensemble="adp", **labelled("we", "ibp")),
        )
    )


def test_a_classifier_is_a_row_and_a_certifier_a_group(
    make_run: MakeRun, make_entry: MakeEntry, make_rows: Callable[..., pd.DataFrame]
) -> None:
    view = side_by_side(board_of_two(make_run, make_entry, make_rows))
    assert view is not None
    assert view.certifiers == ("crown", "ibp", "lp")
    names = {key: [line.entry.name if line else None for line in lines] for key, lines in view.lines.items()}
    assert names == {
        ("drt", "we"): ["a", "b", None],
        ("drt", "mme"): ["c", "d", None],
        ("gal", "we"): [None, "f", "e"],
    }, "and none that meets one certifier alone"


def test_another_number_format_is_another_classifier(make_run: MakeRun, make_entry: MakeEntry) -> None:
    rounded = {"details": {"precision": "bfloat16", "labels": {}}}
    made = [
        make_entry(name, certifier=name[:3], **more) for name, more in (("ibp", {}), ("ibp2", rounded), ("lpp", {}))
    ]
    view = side_by_side(build_board(make_run(*made, make_entry("lpp2", certifier="lpp", **rounded))))
    assert view is not None
    assert set(view.lines) == {("drt", "we"), ("drt", "we, bfloat16")}


def test_without_two_certifiers_of_one_classifier_there_is_no_such_view(
    make_run: MakeRun, make_entry: MakeEntry
) -> None:
    board = build_board(make_run(make_entry("a"), make_entry("b", aggregation="mme", certifier="crown")))
    assert side_by_side(board) is None
    assert "side by side" not in markdown_page(board)
    assert "side by side" not in html_page(board)


def test_the_pages_show_the_numbers_of_each_certifier(
    make_run: MakeRun, make_entry: MakeEntry, make_rows: Callable[..., pd.DataFrame]
) -> None:
    board = board_of_two(make_run, make_entry, make_rows)
    (row,) = (line for line in markdown_page(board).splitlines() if line.startswith("| drt | we |"))
    # r = 0, 0.5 and 1 and the seconds, of crown, of ibp, and of lp, which did not meet it.
    assert [cell.strip() for cell in row.strip("|").split("|")][2:] == [
        *("100.0", "75.0", "75.0", "0.5"),
        *("100.0", "50.0", "0.0", "0.5"),
        *("–",) * 4,
    ]
    page = html_page(board)
    groups = page[page.index('id="certifiers"') : page.index('id="ranking"')]
    assert re.findall(r'<th scope="colgroup" colspan="4">(.*?)</th>', groups) == ["crown", "ibp", "lp"]
    assert '<td class="none first" colspan="4" title="no norm">unsupported</td>' in groups


def test_the_stages_of_a_cascade_are_counted(
    make_run: MakeRun, make_entry: MakeEntry, make_rows: Callable[..., pd.DataFrame]
) -> None:
    board = board_of_two(make_run, make_entry, make_rows)
    assert stages(board) == {"c": {"milp": 2, "ibp": 1, "open": 1}}
    assert "- c: milp 2, ibp 1, open 1" in markdown_page(board)


def test_hostile_names_stay_text(
    make_run: MakeRun, make_entry: MakeEntry, make_rows: Callable[..., pd.DataFrame]
) -> None:
    staged = make_rows((0.5, 1.0, 1.0, 0.0), evidence_stage=[HOSTILE] * 4)
    labels = {"details": {"labels": {"aggregation": HOSTILE, "certifier": HOSTILE}}, "ensemble": HOSTILE}
    board = build_board(
        make_run(
            make_entry("a", rows=staged, **labels),
            make_entry("b", **{**labels, "details": {"labels": {"aggregation": HOSTILE, "certifier": "x"}}}),
        )
    )
    assert "<img" not in html_page(board).partition("<main>")[2].partition("<script")[0].replace('<img src="data:', "")
    outside = markdown_page(board).partition("```toml")[0]
    assert "<" not in outside
    assert not re.search(r"(?<!\\)\]\(", outside)
