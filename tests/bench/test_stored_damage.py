"""Damage to stored rows is noticed, the file is set aside, and its images are computed again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result

from bench.store import Store
from leaderboards.records import StoredDataError, read_rows
from tests.bench.stores_under_test import KEY, some_rows


def damage_at(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.9999])
def test_one_changed_bit_anywhere_is_noticed_and_the_file_set_aside(store: Store, share: float) -> None:
    store.write_rows(KEY, some_rows(0))
    store.write_rows(KEY, some_rows(5))
    path = sorted(store.cell(KEY).iterdir())[0]
    content = path.read_bytes()
    path.write_bytes(damage_at(content, int(share * len(content))))
    assert store.stored_images(KEY, set_aside=False)[0] == {5, 6, 7, 8, 9}
    assert path.exists()
    found, (message,) = store.stored_images(KEY)
    assert found == {5, 6, 7, 8, 9}
    assert message == (
        f"{path}: the bytes do not match the digest in the name; the file was altered or cut off. "
        f"Set aside as {path.name}.corrupt; its images are computed again."
    )
    assert not path.exists()
    assert path.with_name(f"{path.name}.corrupt").exists()
    assert store.stored_images(KEY) == ({5, 6, 7, 8, 9}, [])


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_truncated_file_is_noticed(store: Store, length: int) -> None:
    store.write_rows(KEY, some_rows())
    (path,) = store.cell(KEY).iterdir()
    path.write_bytes(path.read_bytes()[:length])
    found, messages = store.stored_images(KEY)
    assert (found, len(messages)) == (set(), 1)
    assert "was altered or cut off. Set aside as" in messages[0]


def test_bytes_added_at_the_end_are_noticed(store: Store) -> None:
    store.write_rows(KEY, some_rows())
    (path,) = store.cell(KEY).iterdir()
    path.write_bytes(path.read_bytes() + b"\0")
    assert len(store.stored_images(KEY)[1]) == 1


@pytest.mark.parametrize("name", ["rows-000000-" + "0" * 32 + ".parquet", "rows-copy.parquet", "rows-.parquet"])
def test_a_renamed_file_is_noticed(store: Store, name: str) -> None:
    store.write_rows(KEY, some_rows())
    (path,) = store.cell(KEY).iterdir()
    path.rename(path.with_name(name))
    found, messages = store.stored_images(KEY)
    assert found == set()
    assert f"Set aside as {name}.corrupt" in messages[0]


def test_images_that_are_in_two_files_count_once(store: Store) -> None:
    store.write_rows(KEY, some_rows(0, 5))
    store.write_rows(KEY, some_rows(4, 3, seconds=9.0))
    with pytest.raises(StoredDataError, match="an image has two stored rows"):
        read_rows(store.cell(KEY))
    found, (message,) = store.stored_images(KEY)
    assert found == {0, 1, 2, 3, 4}
    assert "repeats images that are stored already. Set aside as rows-000004-" in message
    assert read_rows(store.cell(KEY))["image_id"].tolist() == [0, 1, 2, 3, 4]


def test_an_image_that_is_twice_in_one_file_is_noticed(store: Store) -> None:
    store.write_rows(KEY, pd.concat([some_rows(0, 2), some_rows(1, 2)]))
    found, (message,) = store.stored_images(KEY)
    assert found == set()
    assert "repeats images that are stored already." in message


# ---- the same through the command


def test_damaged_blocks_are_set_aside_said_and_computed_again_to_the_same_rows(
    copied: Path,
    finished: tuple[Path, Result],
    tmp_path: Path,
    tiny: str,
    certbench: Callable[..., Result],
    assert_same_rows: Callable[..., None],
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny)
    # Of the entries that would share a pass one lacks other images than the others.
    cells = sorted((copied / "cells").iterdir())
    altered, cut, renamed = (sorted(cell.glob("rows-*"))[block] for cell, block in zip(cells, (0, 1, 0), strict=True))
    altered.write_bytes(damage_at(altered.read_bytes(), 500))
    cut.write_bytes(cut.read_bytes()[:-7])
    renamed = renamed.rename(renamed.with_name("rows-000000-" + "5" * 32 + ".parquet"))
    damaged = (altered, cut, renamed)

    shown = certbench("run", tmp_path / "tiny.toml", "--output", copied, "--dry-run")
    assert shown.stdout.count("to certify: 10 of 20 images, key ") == 3
    assert all(path.exists() for path in damaged)
    board = certbench("board", "tiny", "--output", copied)
    assert (board.exit_code, board.stdout) == (1, "")
    assert "the bytes do not match the digest in the name; the file was altered or cut off." in board.stderr

    result = certbench("run", tmp_path / "tiny.toml", "--output", copied)
    assert result.exit_code == 0
    assert "30 rows computed, 30 were stored." in result.stderr
    for path in damaged:
        assert f"Set aside as {path.name}.corrupt; its images are computed again." in result.stderr
        assert path.with_name(f"{path.name}.corrupt").exists()
    assert_same_rows(copied, finished[0])


def test_a_block_of_another_cell_is_set_aside(
    copied: Path, tmp_path: Path, tiny: str, certbench: Callable[..., Result], assert_same_rows: Any, finished: Any
) -> None:
    first, second = sorted((copied / "cells").iterdir())[:2]
    (foreign, *_), (own, *_) = sorted(first.glob("rows-*")), sorted(second.glob("rows-*"))
    own.unlink()
    shutil.copy(foreign, second)
    (tmp_path / "tiny.toml").write_text(tiny)
    result = certbench("run", tmp_path / "tiny.toml", "--output", copied)
    assert result.exit_code == 0
    assert f"holds rows of another cell, {first.name}. Set aside as {foreign.name}.corrupt" in result.stderr
    assert_same_rows(copied, finished[0])
