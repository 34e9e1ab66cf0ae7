import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from leaderboards.board import RANKING, build_board
from leaderboards.page import html_page
from leaderboards.records import Entry, Run

LOADING = {"src", "href", "srcset", "action", "data", "poster", "background", "formaction", "xlink:href"}


class Reader(HTMLParser):
    """All tags with their attributes, and the text, by the rules of HTML."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
def plain_page(make_run: Callable[..., Run], make_entry: Callable[..., Entry]) -> str:
    entries = (make_entry("one"), make_entry("two", (0.1, 0.1, 0.1, 0.1)))
    return html_page(build_board(make_run(*entries, make_entry("part", status="incomplete", reason="2 missing"))))


def test_the_page_loads_nothing(hostile_run: Run, plain_page: str) -> None:
    for page in (plain_page, html_page(build_board(hostile_run))):
        for tag, attributes in Reader(page).tags:
            for name in LOADING & set(attributes):
                assert attributes[name].startswith(("#entry-", "#board-view", "#compare", "data:image/svg+xml;base64,"))
            assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        style = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
        assert "url(" not in style
        assert "@import" not in style


def test_the_policy_forbids_loading_and_admits_our_script_only(plain_page: str) -> None:
    (policy,) = (a["content"] for tag, a in Reader(plain_page).tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")
    (script,) = re.findall(r'<script type="module">(.*?)</script>', plain_page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}' blob:;" in policy


def test_hostile_texts_stay_text(hostile_run: Run) -> None:
    page = html_page(build_board(hostile_run))
    found = Reader(page)
    assert [tag for tag, _ in found.tags].count("img") == 1
    assert [tag for tag, _ in found.tags].count("script") == 4
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert not any("javascript:" in value for _, a in found.tags for n, value in a.items() if n in LOADING)
    assert "<img src=x onerror=alert(1)> </script>" in "".join(found.words)
    for address in re.findall(r'(?:src|srcset)="data:image/svg\+xml;base64,([^"]*)"', page):
        assert b"<script" not in base64.b64decode(address)


def test_numeric_cells_sort_by_their_unrounded_value(plain_page: str) -> None:
    orders = [float(a["data-order"]) for tag, a in Reader(plain_page).tags if tag == "td" and "data-order" in a]
    # Two lines of ranks, mean, three radii, clean, ACR, median, abstention, passes, seconds, false certificates.
    assert len(orders) == 2 * 12
    assert orders[1:5] == [pytest.approx(5 / 12), 0.5, 0.5, 0.25]


def test_the_page_says_how_to_read_and_reproduce_it(plain_page: str) -> None:
    words = " ".join("".join(Reader(plain_page).words).split())
    for text in (RANKING, "exact 95 % interval", "4 images", "digits, test split", "radii in l2", "Clopper-Pearson"):
        assert text in words
    assert "certbench run spec.toml" in words
    assert "name = 'quick'" in words
    assert "part incomplete 2 missing" in words
    assert "41.7" in words
    assert "[6.8, 93.2]" in words


def test_every_link_leads_to_a_place_on_the_page(plain_page: str) -> None:
    tags = Reader(plain_page).tags
    places = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(places) == len(set(places))
    links = {attributes["href"] for tag, attributes in tags if tag == "a"}
    assert links == {"#board-view", "#compare", "#entry-1", "#entry-2", "#entry-3"}
    assert {link[1:] for link in links} <= set(places)
    named = {attributes["aria-labelledby"] for _, attributes in tags if "aria-labelledby" in attributes}
    assert named <= set(places)


def test_a_board_without_complete_entries_has_a_page(
    make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    page = html_page(build_board(make_run(make_entry("part", status="incomplete"))))
    assert "No entry is complete." in page


def test_the_data_of_the_views_end_no_element(hostile_run: Run) -> None:
    page = html_page(build_board(hostile_run))
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert not set("<>&") & set(data)
    assert hostile_run.entries[0].name in [entry["name"] for entry in json.loads(data)["entries"]]


def test_descriptions_are_written_for_readers(make_run: Callable[..., Run], make_entry: Callable[..., Entry]) -> None:
    details = {"certifier": {"name": "lp", "parameters": {"steps": 2}}, "jobs": [{"label": "a"}, {"label": "b"}]}
    entry = make_entry("one", details=details | {"none": None, "sizes": [1, 2]}, provenance={"note": "a\u202eb"})
    words = "".join(Reader(html_page(build_board(make_run(entry)))).words)
    for text in ("name: lp, parameters: (steps: 2)", "label: a\nlabel: b", "1, 2", "a\ufffdb"):
        assert text in words
    assert "\u202e" not in words
