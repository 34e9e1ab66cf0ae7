"""The pages in a real browser, opened as files: what a reader does with them works, and nothing else happens."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from leaderboards.board import Board, build_board
from leaderboards.metrics import correct_at
from leaderboards.page import html_page
from leaderboards.paired import compare_entries
from leaderboards.pictures import Pictures
from leaderboards.published import Log, Published
from leaderboards.records import Entry, Run
from leaderboards.site import card, index_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")

Page = Any
HOSTILE = "<img src=x onerror=\"document.title='broken in'\">"
LINK, UP, TURNED = "javascript:document.title='broken in'", "../../etc/passwd", "\u202egnp.exe\u200f"


@pytest.fixture
def board(make_run: Callable[..., Run], make_entry: Callable[..., Entry], verified: Callable[..., Entry]) -> Board:
    entries = (
        make_entry("alpha", (0.5, 1.0, None, -2.0), attack_radii={0: 0.75, 10: float("inf")}),
        make_entry("beta", (0.25, 1.5, 1.25, 0.125), aggregation="mme"),
        make_entry("gamma", (0.1, None, None, None)),
    )
    return build_board(make_run(*map(verified, entries), make_entry("part", status="incomplete", reason="no rows")))


def texts(page: Page, selector: str) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(selector).all_inner_texts()]


def names(page: Page) -> list[str]:
    return texts(page, "#board tbody th a")


def become(page: Page, selector: str, expected: list[str]) -> None:
    """The texts are these within five seconds: DataTables draws after the event."""
    playwright.expect(page.locator(selector)).to_have_text(expected, use_inner_text=True, timeout=5000)


def test_the_board_opens_sorts_and_searches(opened: Callable[..., Page], board: Board) -> None:
    page = opened(html_page(board))
    assert names(page) == ["beta", "alpha", "gamma"]
    page.get_by_role("columnheader", name="ACR").click()
    become(page, "#board tbody th a", ["beta", "alpha", "gamma"])
    page.get_by_role("columnheader", name="ACR").click()
    become(page, "#board tbody th a", ["gamma", "alpha", "beta"])
    page.get_by_label("Search entries").fill("mme")
    become(page, "#board tbody th a", ["beta"])
    page.get_by_label("Search entries").fill("nothing of this name")
    become(page, "#board tbody", ["None of the entries matches."])
    assert page.locator("#entries").is_hidden()


def test_groups_of_columns_can_be_hidden(opened: Callable[..., Page], board: Board) -> None:
    page = opened(html_page(board))
    seconds = page.get_by_role("columnheader", name="Seconds")
    assert seconds.is_visible()
    page.get_by_role("button", name="Answers and cost").click()
    seconds.wait_for(state="detached")
    assert "Answers and cost" not in texts(page, "#board thead th")
    page.get_by_role("button", name="Answers and cost").click()
    seconds.wait_for(state="visible")


def test_the_head_of_a_long_table_stays_in_sight(
    opened: Callable[..., Page], make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    page = opened(html_page(build_board(make_run(*(make_entry(f"entry {n}") for n in range(60))))))
    scroll = page.locator(".scroll.tall").first
    scroll.evaluate("element => element.scrollTo(0, 2000)")
    top = scroll.bounding_box()["y"]
    head = page.locator("table.ranking thead").bounding_box()
    assert abs(head["y"] - top) <= 2
    assert page.locator("table.ranking tbody tr").first.bounding_box()["y"] < top - 500


def test_an_entry_shows_its_images(opened: Callable[..., Page], board: Board) -> None:
    page = opened(html_page(board))
    page.get_by_role("link", name="alpha").click()
    page.wait_for_selector("#entry-2 .strip")
    assert page.locator("#board-view").is_hidden()
    assert page.locator("#entry-1").is_hidden()
    states = [cell.get_attribute("class") for cell in page.locator("#entry-2 .strip li").all()]
    assert states == ["right", "right", "abstained", "wrong"]
    assert texts(page, "#entry-2 .legend li") == [
        "certified, right class: 2",
        "✕ certified, wrong class: 1",
        "– abstains: 1",
    ]
    page.locator("#entry-2 .strip li").nth(0).click()
    assert texts(page, "#entry-2 .told") == [
        "image 0, class 1; certified as 1 within 0.500; nearest other answer found at 0.750"
    ]
    page.get_by_label("Order of the images").locator("visible=true").select_option("largest radius first")
    states = [cell.get_attribute("class") for cell in page.locator("#entry-2 .strip li").all()]
    assert states == ["wrong", "right", "right", "abstained"]
    page.get_by_text("Every image as a table (4)").locator("visible=true").click()
    page.wait_for_selector("#entry-2 .inner .dt-search")
    rows = texts(page, "#entry-2 table.images tbody tr")
    assert rows[0] == "0 1 1 1 1 CERTIFIED 0.500 0.750"
    assert rows[1].endswith("1.000 none found")
    assert rows[2] == "20 1 1 1 – ABSTAINED 0.000 – abstained"
    table, around = (page.locator(f"#entry-2 {part}").bounding_box() for part in ("table.images", ".inner .scroll"))
    assert table["width"] >= around["width"] - 2
    page.locator("#entry-2 table.images").get_by_role("columnheader", name="Radius").click()
    become(page, "#entry-2 table.images tbody tr td:first-child", ["20", "0", "10", "30"])
    page.go_back()
    page.wait_for_selector("#board-view", state="visible")


def test_certified_radii_are_rounded_down_and_attacks_up(
    opened: Callable[..., Page], make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    attacks = {0: 0.1230001, 10: 0.00049999, 20: 1.9995, 30: 0.25}
    entry = make_entry("one", (0.1229999, 0.00049999, 1.9999999, 0.25), attack_radii=attacks)
    page = opened(html_page(build_board(make_run(entry))), "#entry-1")
    page.get_by_text("Every image as a table (4)").click()
    rows = [row.split() for row in texts(page, "table.images tbody tr")]
    assert [row[-2:] for row in rows] == [
        ["0.122", "0.124"],
        ["4.99e-4", "5.00e-4"],
        ["1.999", "2.000"],
        ["0.250", "0.250"],
    ]


def test_a_negative_loss_stays_on_the_drawing(opened: Callable[..., Page], board: Board) -> None:
    run = Run(board.name, board.title, "", ("0",), "", tuple(line.entry for line in board.lines))
    log = Log("drt", tuple({"loss": loss, "validation_accuracy": 0.5} for loss in (1.0, -2.0, -6.5)))
    page = opened(html_page(board, Published(run, board, (log,), {"beta": (0,)})), "#entry-1")
    boxes = [item.bounding_box() for item in (page.locator(".pair svg").nth(1), page.locator(".pair svg .line").nth(1))]
    assert boxes[0]["y"] <= boxes[1]["y"]
    assert boxes[1]["y"] + boxes[1]["height"] <= boxes[0]["y"] + boxes[0]["height"]


def test_two_entries_are_compared_as_the_metrics_say(opened: Callable[..., Page], board: Board) -> None:
    page = opened(html_page(board), "#compare-2-1")
    first, second = board.ranked[1].entry.rows, board.ranked[0].entry.rows
    tests = compare_entries(board.ranked[1].entry, board.ranked[0].entry, board.radii).at
    expected = []
    for radius, test in zip(board.radii, tests, strict=True):
        a, b = correct_at(first, radius), correct_at(second, radius)
        counts = [int(found.sum()) for found in (b & ~a, a & ~b, a & b, ~a & ~b)]
        points = 100 * (int(b.sum()) - int(a.sum())) / 4
        words = [f"{float(radius):g}", f"{25 * a.sum():.1f}", f"{25 * b.sum():.1f}", f"{points:+.1f}".replace("-", "−")]
        expected.append(
            " ".join([*words, *map(str, counts), f"{test.p_value:g}", f"{test.adjusted:g}"]).replace("+0.0", "0.0")
        )
    assert texts(page, "#compare .paired tbody tr") == expected
    assert "A: alpha" in texts(page, "#compare figcaption")[0]
    page.get_by_label("Entry B").select_option(label="gamma")
    assert page.url.endswith("#compare-2-3")
    assert "B: gamma" in texts(page, "#compare figcaption")[0]
    page.get_by_label("Radius", exact=True).select_option("0.5")
    assert texts(page, "#compare h4") == ["Gained by B: 0", "Lost by B: 2"]
    assert page.locator("#compare .strip li").count() == 2


def test_one_entry_alone_is_not_compared(
    opened: Callable[..., Page], make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    page = opened(html_page(build_board(make_run(make_entry("alone")))), "#compare")
    assert "Two complete entries are needed" in page.locator("#compare").inner_text()
    page = opened(html_page(build_board(make_run(make_entry("part", status="incomplete")))), "#entry-1")
    assert page.locator("#entry-1 .strip").count() == 1
    assert page.locator("#entry-1 .chart").count() == 0


def test_pictures_and_trainings_are_drawn(opened: Callable[..., Page], board: Board) -> None:
    buffer = io.BytesIO()
    Image.new("L", (16, 16), 255).save(buffer, format="PNG")
    pictures = Pictures(buffer.getvalue(), (0, 10, 20), 2, 8, 8)
    log = Log("training one", tuple({"loss": 1 / n, "validation_accuracy": 0.5} for n in (1, 2, 3)))
    run = Run(board.name, board.title, "", ("0",), "", tuple(line.entry for line in board.lines))
    published = Published(run, board, (log,), {"beta": (0,)}, pictures)
    page = opened(html_page(board, published), "#entry-1")
    assert page.locator("#entry-1 .strip .drawn").count() == 3
    image = page.locator("#entry-1 .strip .drawn").first.evaluate("cell => getComputedStyle(cell).backgroundImage")
    assert image.startswith('url("data:image/png;base64,')
    assert "training one" in " ".join(texts(page, "#entry-1 .pair figcaption"))
    assert page.locator("#entry-1 .chart").count() == 3


def test_hostile_texts_stay_text(
    opened: Callable[..., Page], make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    rows = make_entry("x").rows.assign(reason=["", "", HOSTILE, LINK])
    entries = [
        make_entry(f"{text} {n}", rows=rows, certifier=text) for n, text in enumerate((HOSTILE, LINK, UP, TURNED))
    ]
    logs = (Log(HOSTILE, ({"loss": 1.0}, {"loss": 0.5})),)
    run = make_run(*entries)
    board = build_board(run)
    published = Published(run, board, logs, {entry.name: (0,) for entry in entries}, None)
    page = opened(html_page(board, published))
    found = names(page)
    assert f"{HOSTILE} 0" in found
    assert f"{LINK} 1" in found
    assert f"{UP} 2" in found
    assert "\ufffdgnp.exe\ufffd 3" in found
    for number in range(1, 5):
        page.evaluate(f"location.hash = '#entry-{number}'")
        page.wait_for_selector(f"#entry-{number} .strip")
        page.locator(f"#entry-{number} details.inner summary").click()
        page.wait_for_selector(f"#entry-{number} .inner .dt-search")
        page.locator(f"#entry-{number} table.images").get_by_role("columnheader", name="Reason").click()
        assert HOSTILE in page.locator(f"#entry-{number} table.images").inner_text()
    page.evaluate("location.hash = '#compare-1-2'")
    page.wait_for_selector("#compare .paired")
    page.get_by_label("Entry B").select_option(index=2)
    assert page.title() == "Quick board"
    assert page.locator("img").count() == 1  # that of the curves
    links = {link.get_attribute("href") for link in page.locator("a").all()}
    assert all(re.fullmatch(r"#[a-z0-9-]+", link) for link in links)
    assert "\u202e" not in page.content()


@pytest.mark.parametrize(
    "attack",
    [
        "document.body.insertAdjacentHTML('beforeend', '<img src=http://127.0.0.1:9/x.png>')",
        "document.body.insertAdjacentHTML('beforeend', '<p onclick=alert(1)>'); document.body.lastChild.click()",
        "const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s)",
        "const f = document.createElement('iframe'); f.src = 'data:text/html,x'; document.body.append(f)",
    ],
)
def test_what_breaks_out_is_stopped_and_seen(
    opened: Callable[..., Page], problems: list[str], board: Board, attack: str
) -> None:
    page = opened(html_page(board))
    assert problems == []
    page.evaluate(f"() => {{ {attack} }}")
    page.wait_for_timeout(200)
    assert any("Content Security Policy" in problem for problem in problems)
    assert page.title() == "Quick board"
    problems.clear()


def test_a_broken_address_shows_the_board(opened: Callable[..., Page], board: Board) -> None:
    for view in ("#entry-99", "#nothing", "#compare-x", "#%E0%A4%A"):
        page = opened(html_page(board), view)
        assert page.locator("#board-view").is_visible()
    page = opened(html_page(board), "#compare-77-77")
    assert page.locator("#compare .paired").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(opened: Callable[..., Page], board: Board, scheme: str) -> None:
    for view in ("", "#entry-1", "#compare-1-2"):
        page = opened(html_page(board), view, width=390, scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(246, 247, 249)", "dark": "rgb(14, 18, 23)"}[scheme]


def test_a_keyboard_is_enough(opened: Callable[..., Page], board: Board) -> None:
    page = opened(html_page(board))
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent).trim()"
            )
        )
        if reached[-1] == "beta":
            break
    assert {"Compare two entries", "Search entries", "Each radius", "Ranks with 95 %", "Ranking", "beta"} <= set(
        reached
    )
    page.keyboard.press("Enter")
    page.wait_for_selector("#entry-1 .strip")
    assert page.evaluate("document.activeElement.textContent") == "beta"


def test_the_index_opens(opened: Callable[..., Page], browser: Any, board: Board, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(index_page([card(board, "page.html")]))
    page = opened(html_page(board, home="index.html"))
    page.get_by_role("link", name="All boards").click()
    assert texts(page, "h1") == ["Boards"]
    page.get_by_role("link", name="Quick board").click()
    assert names(page) == ["beta", "alpha", "gamma"]
