from collections.abc import Callable
from pathlib import Path

import pytest

from leaderboards.board import build_board
from leaderboards.records import Entry, Run, StoredDataError
from leaderboards.site import card, index_page, write_site
from tests.leaderboards.test_page import Reader

PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "published"


def words_of(page: str) -> str:
    return " ".join(" ".join(Reader(page).words).split())


def test_a_card_says_what_the_board_is(
    make_run: Callable[..., Run], make_entry: Callable[..., Entry], verified: Callable[..., Entry]
) -> None:
    entries = (
        verified(make_entry("one", provenance={"time": "2026-01-02T03:04:05+00:00"})),
        verified(make_entry("same")),
        verified(make_entry("worse", (0.1, None, None, None))),
        make_entry("unchecked", (2.0, 2.0, 2.0, 2.0)),
        make_entry("part", status="incomplete"),
    )
    words = words_of(index_page([card(build_board(make_run(*entries)), "quick.html")]))
    for text in (
        "Quick board",
        "4 images of digits, test split",
        "l2, r = 0, 0.5, 1",
        "5, 4 complete",
        "one and 1 of equal rank: 41.7 % mean certified accuracy",
        "2026-01-02",
    ):
        assert text in words
    assert "unchecked" not in words


def test_without_verified_entries_none_is_the_best(
    make_run: Callable[..., Run], make_entry: Callable[..., Entry]
) -> None:
    words = words_of(index_page([card(build_board(make_run(make_entry("one"))), "quick.html")], ["ci"]))
    assert "1, all complete" in words
    assert "no verified entry" in words
    assert "not known" in words
    assert "Without rows, so without a page: ci." in words


def test_hostile_texts_stay_text_on_the_index(hostile_run: Run) -> None:
    page = index_page([card(build_board(hostile_run), "x.html")])
    tags = Reader(page).tags
    assert not {tag for tag, _ in tags} & {"img", "script"}
    assert [attributes["href"] for tag, attributes in tags if tag == "a"] == ["x.html"]
    (policy,) = (attributes["content"] for _, attributes in tags if "http-equiv" in attributes)
    assert "script-src 'none'" in policy


@pytest.mark.parametrize("name", ["index", "a b", ".hidden", "<img>", "-x"])
def test_a_folder_whose_name_is_none_of_a_page_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "published" / name).mkdir(parents=True)
    (tmp_path / "published" / name / "run.json").write_text("{}")
    with pytest.raises(StoredDataError, match="Rename the folder"):
        write_site(tmp_path / "published", tmp_path / "pages")
    assert not (tmp_path / "pages").exists()
