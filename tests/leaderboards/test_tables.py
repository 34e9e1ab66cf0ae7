import re
from collections.abc import Callable
from dataclasses import replace

from leaderboards.board import RANKING, build_board
from leaderboards.records import Entry, Run
from leaderboards.tables import latex_table, markdown_page


def test_the_markdown_table_holds_the_numbers(make_run: Callable[..., Run], make_entry: Callable[..., Entry]) -> None:
    run = make_run(make_entry("one"), make_entry("part", status="incomplete", reason="2 missing"))
    page = markdown_page(build_board(run))
    (line,) = (line for line in page.splitlines() if line.startswith("| 1 |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    # Clopper-Pearson of 2 and 1 of 4 images.
    assert cells[:5] == ["1", "one", "smoothing", "probabilistic", "41.7"]
    assert cells[5:8] == ["50.0 [6.8, 93.2]", "50.0 [6.8, 93.2]", "25.0 [0.6, 80.6]"]
    assert cells[8:] == ["100.0 [39.8, 100.0]", "0.375", "0.250", "25.0", "0.004", "0.5", "not checked"]
    assert "- part: **incomplete** (2 missing)" in page
    assert RANKING in page
    assert "certbench run spec.toml" in page
    assert "```toml\nname = 'quick'\n```" in page


def test_hostile_texts_stay_text_in_markdown(hostile_run: Run) -> None:
    page = markdown_page(build_board(hostile_run))
    outside, fenced = page.split("````toml\n")
    assert "<" not in outside
    assert not re.search(r"(?<!\\)\]\(", outside)
    assert "://" not in outside
    table = [line for line in outside.splitlines() if line.startswith("|")]
    assert len(table) == 8
    # All rows of the ranking, and of the standings, have the cells of their head: no name ends a cell.
    for rows in (table[:4], table[4:]):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    assert fenced.endswith("\n````\n")


def test_no_text_of_a_run_begins_a_block_of_markdown(
    make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    run = make_run(make_entry("-3"), make_entry("1. one", status="failed"), make_entry("# two", status="failed"))
    page = markdown_page(build_board(replace(run, description="- first")))
    assert "\n\n\\- first\n\n" in page
    assert "\n- 1\\. one: **failed**\n- \\# two: **failed**\n" in page
    assert "| 1 | -3 | smoothing |" in page


def test_a_board_without_complete_entries_says_so(
    make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    board = build_board(make_run(make_entry("part", status="incomplete")))
    assert "No entry is complete." in markdown_page(board)
    assert r"Without numbers: part (incomplete)." in latex_table(board)


def test_the_latex_table_is_balanced_and_escaped(hostile_run: Run) -> None:
    table = latex_table(build_board(hostile_run))
    assert r"\usepackage{booktabs}" in table.splitlines()[0]
    for environment in ("table", "tabular"):
        assert table.count(rf"\begin{{{environment}}}") == table.count(rf"\end{{{environment}}}") == 1
    # No foreign character is left that LaTeX would act on.
    bare = re.sub(r"\\[{}$&#%_\\]", "", table)
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 4
    assert "Unverified" in rows.pop(1)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {6}
    assert bare.count("{") == bare.count("}")
    # Only the dollar signs of our own column heads remain: two a radius.
    assert bare.count("$") == 6
    assert r"\frac" not in table


def test_unknown_clean_accuracy_is_a_dash(make_run: Callable[..., Run], make_entry: Callable[..., Entry]) -> None:
    entry = make_entry("one")
    board = build_board(make_run(replace(entry, rows=entry.rows.assign(clean_prediction=-1))))
    assert "& -- &" in latex_table(board)
    assert "| – |" in markdown_page(board)
