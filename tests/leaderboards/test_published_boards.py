"""The boards in this repository: their rows give their numbers."""

import json
from pathlib import Path
from typing import Any

import pytest

from leaderboards.documents import json_document
from leaderboards.page import html_page
from leaderboards.published import read_published
from leaderboards.reproduction_text import REPRODUCED, markdown_reproductions, published_reproductions

PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "published"
BOARDS = sorted(path.parent.name for path in PUBLISHED.glob("*/run.json"))


def known(committed: Any, made: Any, where: str = "") -> int:
    """How many values of a committed document the one made from rows has too; every one must be equal."""
    if isinstance(committed, dict):
        assert set(committed) <= set(made), where
        return sum(known(committed[name], made[name], f"{where}.{name}") for name in committed)
    if isinstance(committed, list):
        assert len(committed) == len(made), where
        return sum(known(*pair, f"{where}[{at}]") for at, pair in enumerate(zip(committed, made, strict=True)))
    assert committed == made, where
    return 1


def test_there_are_boards_with_rows() -> None:
    smoothed = {f"mnist-5k-sigma-{sigma}" for sigma in ("0.25", "0.5", "1")}
    assert {"quickstart", "training-zoo", "deterministic-mnist5k", "fashion-mnist"} | smoothed <= set(BOARDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_the_rows_of_a_published_board_give_its_numbers(name: str) -> None:
    found = read_published(PUBLISHED / name)
    committed = json.loads((PUBLISHED / name / "board.json").read_text(encoding="utf-8"))
    assert known(committed, json.loads(json_document(found.board))) > 100 * len(found.run.entries)
    assert found.run.name == name
    assert len(html_page(found.board, found).encode()) < 5e6


def test_what_reproduced_is_what_the_published_boards_say() -> None:
    found = published_reproductions(PUBLISHED)
    assert found
    assert (PUBLISHED / REPRODUCED).read_text(encoding="utf-8") == markdown_reproductions(found)


def test_all_of_it_is_small() -> None:
    assert sum(path.stat().st_size for path in PUBLISHED.rglob("*") if path.is_file()) < 30e6
    assert sum(path.stat().st_size for path in PUBLISHED.rglob("*.parquet")) < 10e6
