"""How sure a board is, in a real browser: tests of two entries, ranks, bands, findings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from leaderboards.band import band_half_width
from leaderboards.board import Board, board_of
from leaderboards.page import html_page
from leaderboards.paired import compare_entries
from leaderboards.published import Published
from leaderboards.records import Entry, Run
from tests.leaderboards.conftest import HOSTILE

Page = Any
MakeEntry = Callable[..., Entry]
RADII = ["0", "0.25", "0.5", "0.75", "1"]


def texts(page: Page, selector: str) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(selector).all_inner_texts()]


def column(page: Page, heading: str) -> list[Page]:
    """The cells of a column of the paired table."""
    at = texts(page, "#compare .paired thead th").index(heading) + 1
    return list(page.locator(f"#compare .paired tbody td:nth-child({at})").all())


def two(make_entry: MakeEntry, images: int, both: float, one: float) -> Board:
    """Two entries of many images; at large radii the second is better in many more."""
    generator = np.random.default_rng(images)
    first = np.where(generator.random(images) < both, generator.random(images) * 1.2, 0)
    second = np.where(generator.random(images) < one, first + generator.random(images) - 0.35, first).clip(0)
    entries = [make_entry(name, radii) for name, radii in (("first", first), ("second", second))]
    return board_of(entries, RADII)


@pytest.mark.parametrize(("images", "both", "one"), [(40, 0.9, 0.5), (300, 0.8, 0.9), (4000, 1.0, 1.0)])
def test_p_values_are_scipys(
    opened: Callable[..., Page], make_entry: MakeEntry, images: int, both: float, one: float
) -> None:
    board = two(make_entry, images, both, one)
    names = [line.entry.name for line in board.ranked]
    a, b = names.index("first") + 1, names.index("second") + 1
    page = opened(html_page(board), f"#compare-{a}-{b}")
    lines = {line.entry.name: line.entry for line in board.ranked}
    expected = compare_entries(lines["first"], lines["second"], board.radii).at
    p, adjusted = column(page, "p"), column(page, "Holm")
    assert len(p) == len(adjusted) == len(RADII)
    for cell, corrected, test in zip(p, adjusted, expected, strict=True):
        # The title has the value unrounded. Independent of our own code: scipy's binomial test.
        found = float(cell.get_attribute("title"))
        alone = binomtest(test.lost, test.lost + test.gained).pvalue if test.lost + test.gained else 1.0
        assert found == pytest.approx(alone, rel=1e-9, abs=1e-300)
        assert float(corrected.get_attribute("title")) == pytest.approx(test.adjusted, rel=1e-9, abs=1e-300)
        shown = cell.inner_text()
        assert shown == "< 0.0001" if alone < 1e-4 else float(shown) == pytest.approx(alone, rel=0.051)
    assert any(0 < test.p_value < 1 for test in expected)
    assert "exact two-sided McNemar test" in page.locator("#compare .tests").inner_text()
    assert "chosen because of the board they are too small" in page.locator("#compare .tests").inner_text()


def test_an_entry_beside_itself_and_the_other_way_round(opened: Callable[..., Page], make_entry: MakeEntry) -> None:
    board = two(make_entry, 300, 0.8, 0.9)
    page = opened(html_page(board), "#compare-1-1")
    assert {cell.inner_text() for heading in ("p", "Holm") for cell in column(page, heading)} == {"1"}
    page = opened(html_page(board), "#compare-1-2")
    there = [cell.get_attribute("title") for cell in column(page, "p")]
    page = opened(html_page(board), "#compare-2-1")
    assert [cell.get_attribute("title") for cell in column(page, "p")] == there


def test_published_logs_are_counted_and_not_tested(opened: Callable[..., Page], make_entry: MakeEntry) -> None:
    board = board_of([make_entry("ours", (0.5, 1, 1, 0.2)), make_entry("log", source="https://x.y")], RADII)
    page = opened(html_page(board), "#compare-1-2")
    assert {cell.inner_text() for heading in ("p", "Holm") for cell in column(page, heading)} == {"–"}
    assert "nobody knows whether its images met the same noise" in page.locator("#compare .tests").inner_text()
    assert sum(int(cell.inner_text()) for cell in column(page, "lost by B")) > 0


def test_ranks_can_be_hidden_and_sort(opened: Callable[..., Page], three: Board) -> None:
    page = opened(html_page(three))
    assert texts(page, "#board tbody td:nth-child(3)") == ["1–2 best", "1–2 tied", "3 behind"]
    page.get_by_role("columnheader", name="Ranks").click()
    page.get_by_role("columnheader", name="Ranks").click()
    page.wait_for_selector("#board th.of-ranks.dt-ordering-desc")
    assert texts(page, "#board tbody th a")[0] == "far"
    page.get_by_role("button", name="Ranks with 95 %").click()
    page.get_by_role("columnheader", name="Ranks").wait_for(state="detached")
    assert "behind" not in " ".join(texts(page, "#board tbody td"))
    phone = opened(html_page(three), width=390)
    assert phone.get_by_role("columnheader", name="Ranks").count() == 0
    phone.get_by_role("button", name="Ranks with 95 %").click()
    phone.locator("#board").get_by_role("columnheader", name="Ranks").wait_for(state="visible")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_curve_has_the_band_of_the_whole_and_a_legend(opened: Callable[..., Page], three: Board) -> None:
    page = opened(html_page(three), "#entry-1")
    upper, lower = (page.locator(f"#entry-1 .chart .whole >> nth={at}").bounding_box() for at in (1, 0))
    line = page.locator("#entry-1 .chart .line").first.bounding_box()
    grid = [item.bounding_box()["y"] for item in page.locator("#entry-1 .chart >> nth=0 >> .grid").all()]
    unit = (grid[0] - grid[-1]) * 1.0  # from 0 to 100 %
    width = band_half_width(200) * unit
    # The curve begins at 1 and ends at 0: the band is cut there, and half as wide on the other side.
    assert lower["y"] - line["y"] == pytest.approx(width, abs=1.5)
    assert line["y"] + line["height"] - (upper["y"] + upper["height"]) == pytest.approx(width, abs=1.5)
    caption = texts(page, "#entry-1 figcaption")[0]
    assert "exact 95 % interval at one radius" in caption
    assert "95 % band of the whole curve, at all radii at once" in caption
    page = opened(html_page(three), "#compare-1-2")
    assert page.locator("#compare .chart .whole").count() == 0


def test_findings_are_text_on_the_page(opened: Callable[..., Page], three: Board) -> None:
    run = Run("three", "Three", "", ("0.5",), "", tuple(line.entry for line in three.lines))
    table = "| r | 0.5 |\n|---|--:|\n| a | 1.0 |"
    text = f"# Claims\n\nSee [the board](board.md).\n\n{table}\n\n{HOSTILE}\n\n<script>x</script>"
    page = opened(html_page(three, Published(run, three, findings=text)), width=390)
    page.get_by_role("link", name="What held").click()
    page.wait_for_timeout(100)
    assert page.locator("#findings").evaluate("heading => heading.getBoundingClientRect().top") < 700
    assert texts(page, ".findings h3") == ["Claims"]
    assert "<img src=x onerror=alert(1)>" in page.locator(".findings").inner_text()
    assert page.locator(".findings img").count() == 0
    page.locator(".findings").get_by_role("link", name="the board").click()
    assert page.locator("#board-view").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert opened(html_page(three)).get_by_role("link", name="What held").count() == 0
