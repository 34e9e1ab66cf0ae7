"""The page says what board.json says of how sure a board is."""

import json
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from leaderboards.audits import Audit
from leaderboards.board import Board, board_of
from leaderboards.documents import json_document
from leaderboards.envelope import CAUTION
from leaderboards.page import html_page
from leaderboards.page_statistics import page_statistics, standing_order, standing_words
from leaderboards.records import Entry
from tests.leaderboards.test_page import Reader
from tests.leaderboards.test_standings import at_sigma, seeded

MakeEntry = Callable[..., Entry]


def section(page: str, place: str) -> list[str]:
    """The texts of the rows of a section's table."""
    (found,) = re.findall(rf'<section aria-labelledby="{place}".*?</section>', page, re.DOTALL)
    rows = re.findall(r"<tr>.*?</tr>", found, re.DOTALL)
    return [" ".join("".join(Reader(row.replace("</t", " </t")).words).split()) for row in rows]


def ranking_rows(page: str) -> list[str]:
    body = page[page.index('id="board"') :]
    rows = re.findall(r"<tr>.*?</tr>", body[body.index("<tbody>") : body.index("</tbody>")], re.DOTALL)
    return [" ".join("".join(Reader(row).words).split()) for row in rows]


def test_ranks_and_ties_stand_in_the_ranking(three: Board) -> None:
    said = json.loads(json_document(three))["statistics"]["standings"]
    page = html_page(three)
    for row, found in zip(ranking_rows(page), said, strict=True):
        low, high = found["rank_interval"]
        word = "best" if found["name"] == "best" else "tied" if found["tied_with_best"] else "behind"
        ranks = str(low) if low == high else f"{low}–{high}"
        assert f"probabilistic {ranks} {word} " in row
    assert [standing_words(standing) for standing in page_statistics(three).standings.values()] == [
        "best",
        "tied",
        "behind",
    ]
    beside = section(page, "standings")
    at = said[2]["mcnemar"][0]
    assert f"{100 * (at['gained'] - at['lost']) / 200:+.1f}".replace("-", "−") + "*" in beside[3]
    assert f"(−{at['lost']} +{at['gained']})" in beside[3]
    assert "*" not in beside[2]
    words = " ".join("".join(Reader(page).words).split())
    assert "3 rank, 3 with 95 %; behind the best" in words
    assert "≤ 0.2 expected false certificates" in words  # 200 images of alpha 0.001


def test_ranks_sort_by_their_lower_end_first(three: Board) -> None:
    standing = page_statistics(three).standings["best"]
    spans = [(1, 1), (1, 12), (2, 3), (11, 11)]
    orders = [standing_order(replace(standing, rank_interval=span)) for span in spans]
    assert orders == sorted(orders)
    assert len(set(orders)) == 4


def test_what_is_unsound_or_alone_has_no_ranks(make_entry: MakeEntry) -> None:
    alone = html_page(board_of([make_entry("one")], [0]))
    assert "How sure the ranks are" not in alone
    assert "of-ranks" not in alone[: alone.index('id="bundle"')].split("</style>")[1]
    caught = Audit(certificates=4, audited=4, refuted=1, enclosed=0, tightness=None)
    board = board_of([make_entry("one"), make_entry("two"), make_entry("caught", audit=caught)], [0])
    assert list(page_statistics(board).standings) == ["one", "two"]
    assert re.search(r"UNSOUND|caught", ranking_rows(html_page(board))[2])
    assert " – " in ranking_rows(html_page(board))[2]


def test_training_seeds_have_a_table(make_entry: MakeEntry) -> None:
    generator = np.random.default_rng(5)
    entries = [
        seeded(make_entry("x", np.where(generator.random(100) < share, 1.0, 0.2)), of, seed)
        for of, share in (("drt", 0.7), ("adp", 0.4))
        for seed in range(3)
    ]
    board = board_of([*entries, make_entry("alone", [0.2] * 100)], ["0.1", "0.5"])
    said = json.loads(json_document(board))["statistics"]["training_seeds"]
    rows = section(html_page(board), "seeds")
    assert rows[0] == "# Entry Ranks Seeds Mean r = 0.1 r = 0.5"
    for row, family in zip(rows[1:], said, strict=True):
        low, high = family["rank_interval"]
        start = f"{family['rank']} {family['name']} {low if low == high else f'{low}–{high}'} {len(family['entries'])} "
        assert row.startswith(start)
        spread = family["between_seed_deviation"]
        shown = f"{100 * family['mean_certified_accuracy']:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")
        assert row.removeprefix(start).startswith(shown + " ")
    assert "±" in rows[1]
    assert "±" not in rows[3]


def test_the_front_is_a_list_of_links(make_entry: MakeEntry) -> None:
    def timed(name: str, radii: tuple[float, ...], seconds: float) -> Entry:
        entry = make_entry(name, radii)
        return replace(entry, rows=entry.rows.assign(seconds=seconds))

    entries = [timed("slow", (1, 1, 1), 9), timed("fast", (1, 0.1, 0.1), 1), timed("silly", (1, 0.1, 0.1), 2)]
    page = html_page(board_of(entries, [0, "0.5"]))
    assert [row.split()[:2] for row in section(page, "front")[1:]] == [["1", "fast"], ["9", "slow"]]
    (found,) = re.findall(r'<section aria-labelledby="front".*?</section>', page, re.DOTALL)
    links = [attributes["href"] for tag, attributes in Reader(found).tags if tag == "a"]
    assert len(links) == 2
    for link, name in zip(links, ("fast", "slow"), strict=True):
        (entry,) = re.findall(rf'<details id="{link[1:]}".*?</summary>', page, re.DOTALL)
        assert name in entry


def test_envelopes_stand_apart_with_their_caution(make_entry: MakeEntry) -> None:
    small = at_sigma(make_entry("x", (0.4, 0.4, 0.4, None)), 0.25)
    large = at_sigma(make_entry("x", (1.5, 1.0, None, None)), 1.0)
    page = html_page(board_of([small, large], ["0.25", "1"]))
    assert section(page, "envelopes")[1].endswith("75.0 sigma 0.25 50.0 sigma 1")
    assert CAUTION in " ".join("".join(Reader(page).words).split())
    assert "sigma 0.25" not in " ".join(ranking_rows(page))


def test_hostile_names_stay_text_in_the_statistics(make_entry: MakeEntry) -> None:
    hostile = "<img src=x onerror=alert(1)>\u202e"
    entries = [seeded(make_entry("x"), hostile, seed) for seed in range(3)]
    small, large = (replace(at_sigma(make_entry("x"), s), name=f"{hostile}{s}", ensemble=hostile) for s in (0.25, 1.0))
    page = html_page(board_of([*entries, small, large], [0]))
    assert [tag for tag, _ in Reader(page).tags].count("img") == 1
    assert "\u202e" not in page
    for place in ("seeds", "envelopes"):
        assert "<img src=x onerror=alert(1)>\ufffd" in " ".join(section(page, place))
