"""Files of figures that papers print."""

import math
import tomllib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from leaderboards.paper_tables import PaperError, papers, read_paper

TEXT = """
title = "A paper"
authors = "Somebody"
venue = "Nowhere"
address = "https://example.org"
there = "large"
here = "small"
[boards]
"1" = "board"
[[tables]]
number = "3"
about = "rows"
sigmas = ["1"]
radii = ["0", "0.5"]
rows = [
    { name = "A", paper = [90.0, 51.3], here = ["a"] },
    { name = "B", paper = [91, nan] },
]
[[claims]]
says = "A is larger"
table = "3"
sigma = "1"
radius = "0"
first = "A"
second = "B"
here = ["a", "b"]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def written(text: str) -> Path:
        path = tmp_path / "paper.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_a_paper_is_read(write: Callable[[str], Path]) -> None:
    found = read_paper(write(TEXT))
    (table,), (claim,) = found.tables, found.claims
    assert table.radii == (0, Fraction(1, 2))
    assert table.row("A").paper == (90.0, 51.3)
    assert math.isnan(table.row("B").paper[1])
    assert table.row("B").here == ()
    assert claim.printed == -1.0, "the paper's own difference, which may be none"
    assert claim.here == ("a", "b")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[91, nan]", "[91]", "table 3 has 2 columns; not so many numbers: B"),
        ('first = "A"', 'first = "C"', "Table 3 has no row 'C'; it has: A, B"),
        ('radii = ["0", "0.5"]\n', "", "with 0 radii"),
        ('says = "A is larger"\n', "", "says"),
        ('here = ["a", "b"]', 'here = ["a"]', "not enough values"),
        ('table = "3"', 'table = "4"', "'4'"),
        ("[boards]", "[boards", "not the figures of a paper"),
    ],
)
def test_a_malformed_paper_is_refused(write: Callable[[str], Path], old: str, new: str, said: str) -> None:
    with pytest.raises(PaperError, match=said):
        read_paper(write(TEXT.replace(old, new)))


def test_a_claim_that_no_table_prints_has_no_printed_difference(write: Callable[[str], Path]) -> None:
    (claim,) = read_paper(write(TEXT.replace('table = "3"\n', ""))).claims
    assert math.isnan(claim.printed)


def test_our_papers_are_well_formed_and_name_entries_that_specs_have() -> None:
    found = papers()
    assert found
    specs = Path(__file__).parents[2] / "bench" / "specs"
    for paper in found:
        trained = {
            sigma: set(tomllib.loads((specs / f"{board}.toml").read_text(encoding="utf-8"))["ensembles"])
            for sigma, board in paper.boards.items()
        }
        # A board may train a part of what tables show; what a claim is tested by has to be on its own.
        shown = {name.split(" · ")[0] for table in paper.tables for row in table.rows for name in row.here}
        assert shown <= set().union(*trained.values())
        for claim in paper.claims:
            assert {name.split(" · ")[0] for name in claim.here} <= trained[claim.sigma], claim
        assert {claim.sigma for claim in paper.claims} <= set(paper.boards)
        printed = [
            value for table in paper.tables for row in table.rows for value in row.paper if not math.isnan(value)
        ]
        assert len(printed) > 500
        assert all(0 <= value <= 100 for value in printed)
