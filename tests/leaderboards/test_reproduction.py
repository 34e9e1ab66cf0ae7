"""Claims of a paper put to the test, and its tables beside ours."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from leaderboards.badges import Badge
from leaderboards.board import Board, board_of
from leaderboards.paired import holm, mcnemar
from leaderboards.paper_tables import AVERAGE_RADIUS, CERTIFIED, Claim, Paper, PaperRow, PaperTable
from leaderboards.records import Entry
from leaderboards.reproduction import Reproduction, Verdict, reproduction
from leaderboards.reproduction_text import markdown_reproductions, section_of
from leaderboards.site import reproduced_page
from tests.leaderboards.conftest import HOSTILE
from tests.leaderboards.test_page import Reader

AT, IMAGES = Fraction(1), 400
MakeEntry = Callable[..., Entry]


def claim(first: str = "a", second: str = "b", **changes: Any) -> Claim:
    made = Claim("a over b", AT, first.upper(), second.upper(), (first, second), "1", printed=9.2, table="1")
    return replace(made, **changes)


def table(rows: Sequence[PaperRow], **changes: Any) -> PaperTable:
    return replace(PaperTable("1", "rows", ("1",), (Fraction(0), AT), CERTIFIED, tuple(rows)), **changes)


def paper(*claims: Claim, tables: Sequence[PaperTable] = (), boards: dict[str, str] | None = None) -> Paper:
    return Paper("Title", "Who", "Where", "https://a.b", "there", "here", boards or {"1": "x"}, tuple(tables), claims)


@pytest.fixture
def entries(make_entry: MakeEntry) -> Callable[..., Entry]:
    """A verified entry that certifies radius 1 on the images of these numbers and 0.5 on the others."""
    badge = Badge(certifier={}, level=2, kit=1, seed=7)

    def make(name: str, certified: Sequence[int], seed: int | None = None, **changes: Any) -> Entry:
        radii = np.full(IMAGES, 0.5)
        radii[list(certified)] = 1.0
        details = {} if seed is None else {"training_seed": {"of": name, "seed": seed}}
        shown = name if seed is None else f"{name} · seed {seed}"
        return make_entry(shown, radii, details=details, **{"conformance": badge} | changes)

    return make


def outcome(*made: Entry, **changes: Any) -> Any:
    found = reproduction(paper(claim(**changes)), {"x": board_of(list(made), ["0", "1"])})
    assert found is not None
    return found.claims[0]


def test_what_is_larger_beyond_chance_is_held_and_the_reverse_is_the_opposite(entries: Callable[..., Entry]) -> None:
    made = entries("a", range(40)), entries("b", range(10))
    found = outcome(*made)
    assert (found.pairs[0].at.gained, found.pairs[0].at.lost) == (30, 0)
    assert found.difference == pytest.approx(100 * 30 / IMAGES)
    assert found.adjusted == mcnemar(30, 0)
    assert found.verdict is Verdict.HELD
    low, high = found.interval
    assert 0 < low < found.difference < high
    assert outcome(*made, first="b", second="a", here=("b", "a")).verdict is Verdict.OPPOSITE


def test_no_claim_stands_on_a_certifier_that_is_not_verified(entries: Callable[..., Entry]) -> None:
    failed = Badge(certifier={}, level=0, kit=1, seed=7, failed=("L1: linear-two-classes",))
    for conformance in (None, failed):
        made = entries("a", range(40)), entries("b", range(10), conformance=conformance)
        assert reproduction(paper(claim()), {"x": board_of(list(made), ["0", "1"])}) is None


def test_what_may_be_chance_is_open(entries: Callable[..., Entry]) -> None:
    found = outcome(entries("a", range(12)), entries("b", range(8)))
    assert found.verdict is Verdict.OPEN
    assert outcome(entries("a", range(9)), entries("b", range(9))).verdict is Verdict.OPEN, "equal is not larger"


def test_each_claim_is_corrected_for_all(entries: Callable[..., Entry]) -> None:
    board = board_of([entries("a", range(18)), entries("b", range(10)), entries("c", range(60))], ["0", "1"])
    asked = [claim("a", "b"), claim("c", "b"), claim("c", "a")]
    alone = reproduction(paper(asked[0]), {"x": board})
    together = reproduction(paper(*asked), {"x": board})
    assert alone is not None
    assert together is not None
    assert alone.claims[0].verdict is Verdict.HELD
    p_values = mcnemar([8, 50, 42], [0, 0, 0])
    assert [each.adjusted for each in together.claims] == holm(p_values).tolist()
    more = reproduction(paper(*asked, *[claim("b", "b")] * 10), {"x": board})
    assert more is not None
    assert more.claims[0].verdict is Verdict.OPEN, "13 claims of which most are nothing"


def test_alike_needs_the_whole_interval_within(entries: Callable[..., Entry]) -> None:
    made = entries("a", range(10)), entries("b", range(1, 10))
    low, high = reproduction(paper(claim()), {"x": board_of(list(made), ["1"])}).claims[0].pairs[0].interval(0.9)  # type: ignore[union-attr]
    least = max(-low, high)
    assert outcome(*made, alike=least + 1e-9).verdict is Verdict.HELD
    assert outcome(*made, alike=least - 1e-9).verdict is Verdict.OPEN
    far = entries("a", range(60)), entries("b", range(10))
    assert outcome(*far, alike=2.0).verdict is Verdict.OPPOSITE
    assert outcome(*far, alike=20.0).verdict is Verdict.HELD


def test_a_difference_that_may_be_within_the_points_is_not_the_opposite_of_alike(entries: Callable[..., Entry]) -> None:
    # 2.5 points, surely more than 0 and perhaps less than 2; either way around.
    for one, other in ((range(20), range(10)), (range(10), range(20))):
        made = entries("a", one), entries("b", other)
        assert outcome(*made, alike=2.0).adjusted < 0.01
        assert outcome(*made, alike=2.0).verdict is Verdict.OPEN
        assert outcome(*made).verdict is (Verdict.HELD if len(one) > len(other) else Verdict.OPPOSITE)
        least = min(abs(end) for end in outcome(*made).pairs[0].interval(0.95))
        assert outcome(*made, alike=least + 1e-9).verdict is Verdict.OPEN
        assert outcome(*made, alike=least - 1e-9).verdict is Verdict.OPPOSITE


def test_the_opposite_of_alike_is_corrected_for_all_claims(entries: Callable[..., Entry]) -> None:
    board = board_of([entries("a", range(30)), entries("b", range(10))], ["0", "1"])
    # Beyond this with one claim, and no longer with ten.
    (ends,) = (pair.interval(0.95) for pair in outcome(entries("a", range(30)), entries("b", range(10))).pairs)
    asked = claim(alike=ends[0] - 1e-9)
    for others, verdict in ((0, Verdict.OPPOSITE), (9, Verdict.OPEN)):
        found = reproduction(paper(asked, *[claim("b", "b")] * others), {"x": board})
        assert found is not None
        assert found.claims[0].verdict is verdict


def test_each_seed_must_say_that_two_are_not_alike(entries: Callable[..., Entry]) -> None:
    base = [entries("b", range(10), seed) for seed in range(2)]
    far = entries("a", range(60), 0)
    assert outcome(far, entries("a", range(50), 1), *base, alike=2.0).verdict is Verdict.OPPOSITE
    assert outcome(far, entries("a", range(20), 1), *base, alike=2.0).verdict is Verdict.OPEN
    assert outcome(entries("a", range(10), 0), entries("a", range(20), 1), *base, alike=2.0).verdict is Verdict.OPEN


def test_seeds_must_agree(entries: Callable[..., Entry]) -> None:
    good = [entries("a", range(40), seed) for seed in range(3)]
    base = [entries("b", range(10), seed) for seed in range(3)]
    found = outcome(*good, *base)
    assert [(pair.at.gained, pair.at.lost) for pair in found.pairs] == [(30, 0)] * 3
    assert found.verdict is Verdict.HELD
    weak = entries("a", range(14), 2)
    found = outcome(*good[:2], weak, *base)
    assert found.verdict is Verdict.OPEN
    assert found.adjusted == mcnemar(4, 0)
    reverse = entries("a", [], 2)
    found = outcome(*good[:2], reverse, *base)
    assert (found.adjusted, found.verdict) == (1.0, Verdict.OPEN)
    assert found.interval[0] < 0 < found.interval[1]


def test_an_entry_of_one_seed_meets_the_first_of_the_other(entries: Callable[..., Entry]) -> None:
    base = [entries("b", range(10 * seed), seed) for seed in range(3)]
    assert [pair.at.gained for pair in outcome(entries("a", range(40)), *base).pairs] == [40]


def test_what_has_no_rank_or_is_not_there_is_not_measured(entries: Callable[..., Entry], make_entry: MakeEntry) -> None:
    part = make_entry("b", np.ones(IMAGES), status="incomplete")
    imported = replace(entries("b", range(3)), source="a log")
    for second in (part, imported):
        assert reproduction(paper(claim()), {"x": board_of([entries("a", [1]), second], ["1"])}) is None
    assert reproduction(paper(claim()), {"other": board_of([entries("a", [1])], ["1"])}) is None


# ---- tables


def beside(shown: PaperTable, boards: dict[str, Board], names: dict[str, str] | None = None) -> Reproduction:
    found = reproduction(paper(tables=[shown], boards=names), boards)
    assert found is not None
    return found


def test_a_table_of_one_sigma_has_our_numbers_and_their_spread(entries: Callable[..., Entry]) -> None:
    board = board_of([*(entries("a", range(40 * seed), seed) for seed in range(3)), entries("b", [1])], ["0", "1"])
    rows = [PaperRow("A", (99.0, 50.0), ("a",)), PaperRow("B", (), ("b",)), PaperRow("C", (1.0, 2.0))]
    (shown,) = beside(table(rows), {"x": board}).tables
    assert not shown.envelope
    assert shown.here["A"].values == pytest.approx((100.0, 10.0))
    assert shown.here["A"].deviations == pytest.approx((0.0, 10.0))
    assert shown.here["A"].seeds == 3
    assert shown.here["B"].values == pytest.approx((100.0, 0.25))
    assert math.isnan(shown.here["B"].deviations[1])
    assert set(shown.here) == {"A", "B"}


def test_a_radius_that_the_board_lacks_is_no_number(entries: Callable[..., Entry]) -> None:
    (shown,) = beside(table([PaperRow("A", (), ("a",))]), {"x": board_of([entries("a", [1])], ["1"])}).tables
    assert math.isnan(shown.here["A"].values[0])
    assert shown.here["A"].values[1] == pytest.approx(0.25)
    # Nor is its deviation between seeds.
    seeds = [entries("a", range(40 * seed), seed) for seed in range(3)]
    (shown,) = beside(table([PaperRow("A", (), ("a",))]), {"x": board_of(seeds, ["1"])}).tables
    assert [math.isnan(value) for value in shown.here["A"].deviations] == [True, False]
    assert shown.here["A"].deviations[1] == pytest.approx(10.0)


def test_of_several_sigmas_and_entries_each_radius_has_the_best(entries: Callable[..., Entry]) -> None:
    small = board_of([entries("a", range(4)), entries("b", range(8))], ["0", "1"])
    large = board_of([entries("a", range(20))], ["1"])
    (shown,) = beside(
        table([PaperRow("A", (), ("a", "b"))], sigmas=("0.5", "1", "2")),
        {"small": small, "large": large},
        {"0.5": "small", "1": "large"},
    ).tables
    assert shown.envelope
    assert shown.here["A"].values == pytest.approx((100.0, 5.0))
    assert shown.boards == ("small", "large")


def test_average_radii_and_tables_that_nothing_here_is_in(entries: Callable[..., Entry]) -> None:
    radii = table([PaperRow("A", (1.5,), ("a",))], radii=(), measure=AVERAGE_RADIUS)
    other = table([PaperRow("A", (1.0, 2.0), ("a",))], number="9", sigmas=("7",))
    found = reproduction(paper(tables=[radii, other]), {"x": board_of([entries("a", range(IMAGES))], ["1"])})
    assert found is not None
    assert found.tables[0].here["A"].values == pytest.approx((1.0,))
    assert found.without == ("Table 9 (rows)",)


def test_average_radii_of_ours_are_rounded_down_as_on_boards(entries: Callable[..., Entry]) -> None:
    radii = table([PaperRow("A", (1.5,), ("a",))], radii=(), measure=AVERAGE_RADIUS)
    # 0.5 + 0.5 * 399 / 400 = 0.99875, and of two seeds 0.999375 ± 0.00088.
    for seeds, shown in ((1, "0.998"), (2, "0.999 ± 0.001")):
        made = [entries("a", range(IMAGES - 1 + seed), seed) for seed in range(seeds)]
        (section,) = map(section_of, [beside(radii, {"x": board_of(made, ["1"])})])
        assert [row.cells[-1] for row in section.tables[0].rows] == ["1.500", shown]


# ---- text


def test_the_page_and_the_markdown_say_the_same(entries: Callable[..., Entry]) -> None:
    board = board_of([entries("a", range(40)), entries("b", range(10))], ["0", "1"])
    rows = [PaperRow("A", (99.0, math.nan), ("a",)), PaperRow("C", (1.0, 2.0))]
    found = reproduction(paper(claim(), tables=[table(rows)]), {"x": board})
    assert found is not None
    section = section_of(found)
    claims, beside_ours = section.tables
    assert claims.heading == "Claims: 1 held, 0 the opposite, 0 open"
    assert claims.rows[0].cells[:7] == ("a over b", "held", "1", "1", "+9.2 (Table 1)", "+7.5 [+5.3, +10.5]", "+30 -0")
    assert [row.cells for row in beside_ours.rows] == [
        ("A", "paper", "99.0", "–"),
        ("A", "here", "100.0", "10.0"),
        ("C", "paper", "1.0", "2.0"),
    ]
    markdown = markdown_reproductions([found])
    words = " ".join(Reader(reproduced_page([found])).words)
    for text in ("a over b", "Table 1: rows", "+9.2 (Table 1)", "Ours: x."):
        assert text in words
        assert text in markdown


def test_entries_with_a_warning_are_marked(entries: Callable[..., Entry]) -> None:
    warned = [entries("a", range(40), 0), entries("a", range(40), 1, ensemble="a 1", warnings=("member 1 collapsed",))]
    board = board_of([*warned, entries("b", range(10), 0), entries("b", range(10), 1)], ["0", "1"])
    rows = [PaperRow("A", (99.0, 50.0), ("a",)), PaperRow("B", (99.0, 50.0), ("b",))]
    found = reproduction(paper(claim(), tables=[table(rows)]), {"x": board})
    assert found is not None
    section = section_of(found)
    assert "† a 1: member 1 collapsed" in section.notes
    claims, shown = section.tables
    assert claims.rows[0].cells[6] == "+30 -0, +30 -0†"
    assert [row.cells[1] for row in shown.rows] == ["paper", "here, 2 seeds†", "paper", "here, 2 seeds"]


def test_hostile_texts_stay_text(entries: Callable[..., Entry]) -> None:
    board = board_of([entries(HOSTILE, range(40)), entries("b", range(10))], ["0", "1"])
    asked = claim(says=HOSTILE, here=(HOSTILE, "b"), table=HOSTILE, first=HOSTILE)
    made = replace(
        paper(asked, tables=[table([PaperRow(HOSTILE, (1.0, 2.0), (HOSTILE,))], about=HOSTILE)]),
        title=HOSTILE,
        authors=HOSTILE,
        address="javascript:alert(1)",
        there=HOSTILE,
    )
    found = reproduction(made, {"x": board})
    assert found is not None
    tags = Reader(reproduced_page([found])).tags
    assert not {tag for tag, _ in tags} & {"img", "script"}
    assert [attributes["href"] for tag, attributes in tags if tag == "a"] == ["index.html"]
    assert "<img" not in markdown_reproductions([found])
