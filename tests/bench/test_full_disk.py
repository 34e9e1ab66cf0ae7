"""A disk that fills up loses nothing that was stored, and leaves no half of a file."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result

from bench.store import Store, StoreError
from tests.bench.stores_under_test import KEY, files_under, some_rows


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that refuses every file past `size` bytes: a real error of the kernel, halfway through a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_really_full_leaves_the_old_file_and_no_other(store: Store) -> None:
    store.write_rows(KEY, some_rows())
    before = files_under(store.root)
    with (
        largest_file(1000),
        pytest.raises(StoreError, match=r"^Cannot write .*rows-000005-.*: no space is left on the disk\. Free some"),
    ):
        store.write_rows(KEY, some_rows(5))
    assert files_under(store.root) == before
    store.write_rows(KEY, some_rows(5))
    assert store.stored_images(KEY) == (set(range(10)), [])


# ---- the same through the command


def test_a_disk_that_fills_up_while_certifying_loses_nothing(
    copied: Path,
    finished: tuple[Path, Result],
    tmp_path: Path,
    tiny: str,
    certbench: Callable[..., Result],
    assert_same_rows: Callable[..., None],
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny)
    first, *_ = sorted((copied / "cells").iterdir())
    size = max(path.stat().st_size for path in first.iterdir()) // 2
    for path in first.iterdir():
        path.unlink()
    before = files_under(copied)
    with largest_file(size):
        result = certbench("run", tmp_path / "tiny.toml", "--output", copied)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "error: Cannot write " in result.stderr
    assert "no space is left on the disk. Free some space and run the same command: what is stored" in result.stderr
    assert files_under(copied) == before
    assert certbench("run", tmp_path / "tiny.toml", "--output", copied).exit_code == 0
    assert_same_rows(copied, finished[0])


def test_a_disk_that_fills_up_while_training_stores_no_half_member(
    tmp_path: Path, tiny: str, certbench: Callable[..., Result]
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny)
    with largest_file(1000):
        result = certbench("run", tmp_path / "tiny.toml", "--output", tmp_path / "results")
    assert (result.exit_code, result.stdout) == (3, "")
    assert ".training: no space is left on the disk. Free some space" in result.stderr
    assert [path.name for path in (tmp_path / "results").rglob("*") if path.is_file()] == [".lock"]


def test_a_disk_that_fills_up_while_publishing_leaves_the_old_board(
    copied: Path, tmp_path: Path, tiny: str, certbench: Callable[..., Result]
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny)
    before = files_under(copied / "boards")
    size = len(before["tiny/board.html"]) // 2
    for words in (("run", tmp_path / "tiny.toml"), ("board", "tiny")):
        with largest_file(size):
            result = certbench(*words, "--output", copied)
        assert result.exit_code == 3
        assert "error: Cannot write the board: " in result.stderr
        assert files_under(copied / "boards") == before
