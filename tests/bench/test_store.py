import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from bench.rows import error_rows
from bench.store import Store, StoreError, write_file
from leaderboards.records import ROW_SCHEMA, StoredDataError, block_name, read_block, read_rows

KEY = "ab" * 32
HOLDER = """
import fcntl, sys
lock = open(sys.argv[1] + "/.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def some_rows(first: int = 0, count: int = 5, **columns: Any) -> pd.DataFrame:
    ids = list(range(first, first + count))
    rows = error_rows(ids, [image % 10 for image in ids], "")
    found = {"verdict": "CERTIFIED", "prediction": 3, "radius": [image / 7 for image in ids], "seconds": 0.25}
    return rows.assign(**found | columns, evidence_n_A=ids, evidence_side="one-sided")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk that refuses every file past `size` bytes: a real error of the kernel, halfway through a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- rows


def test_rows_come_back_as_they_were_written(store: Store) -> None:
    first, second = some_rows(0), some_rows(5, 3)
    store.write_rows(KEY, second)
    store.write_rows(KEY, first)
    expected = pd.concat([first, second], ignore_index=True)
    found = read_rows(store.cell(KEY))
    pd.testing.assert_frame_equal(found, expected.astype({name: found[name].dtype for name in found}), check_exact=True)
    assert store.stored_images(KEY) == (set(range(8)), [])


def test_a_block_has_the_schema_its_docs_and_page_checksums(store: Store) -> None:
    store.write_rows(KEY, some_rows())
    (path,) = store.cell(KEY).iterdir()
    assert path.name == block_name(path.read_bytes(), 0)
    schema = pq.read_schema(path)
    assert schema.names[: len(ROW_SCHEMA)] == ROW_SCHEMA.names
    assert [schema.field(name).type for name in ROW_SCHEMA.names] == list(ROW_SCHEMA.types)
    # Damage a page, and name the file as if it belonged so: what is left to notice it is the page's checksum.
    content = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(ROW_SCHEMA.names.index("radius"))
    start = column.dictionary_page_offset or column.data_page_offset
    content[start + column.total_compressed_size - 1] ^= 1
    forged = path.with_name(block_name(bytes(content), 0))
    forged.write_bytes(content)
    with pytest.raises(StoredDataError, match=r"not a readable Parquet file \(.*CRC checksum verification failed"):
        read_block(forged)


def test_writing_the_same_rows_twice_is_one_file(store: Store) -> None:
    store.write_rows(KEY, some_rows())
    store.write_rows(KEY, some_rows())
    assert len(list(store.cell(KEY).iterdir())) == 1


def test_failures_are_never_counted_as_stored(store: Store) -> None:
    rows = some_rows()
    rows.loc[[1, 3], ["verdict", "reason", "prediction", "radius"]] = ["ERROR", "it broke", -1, 0.0]
    store.write_rows(KEY, rows)
    assert store.stored_images(KEY) == ({0, 2, 4}, [])
    shown = read_rows(store.cell(KEY)).set_index("image_id")
    assert shown.loc[[1, 3], "reason"].tolist() == ["it broke"] * 2
    store.forget_failures(KEY)
    assert read_rows(store.cell(KEY))["image_id"].tolist() == [0, 2, 4]


def test_failures_under_the_name_of_finished_rows_are_noticed(store: Store) -> None:
    store.write_rows(KEY, error_rows([1, 2], [0, 0], "it broke"))
    (path,) = store.cell(KEY).iterdir()
    path.rename(path.with_name(path.name.replace("errors-", "rows-")))
    found, messages = store.stored_images(KEY)
    assert found == set()
    assert "holds failed rows under the name of finished ones. Set aside as rows-000001-" in messages[0]


# ---- damage


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


# ---- writing


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "no space is left on the disk. Free some space and run the same command: what is stored stays "),
        (errno.EDQUOT, "no space is left on the disk. Free some space and run the same command"),
        (errno.EACCES, "Permission denied. Make the folder writable or choose another --output and run the same"),
        (errno.EROFS, "Read-only file system. Make the folder writable or choose another --output"),
        (errno.EIO, "Input/output error. "),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, number: int, text: str
) -> None:
    store.write_rows(KEY, some_rows())
    path = store.cell(KEY) / "cell.json"
    write_file(path, b"old")
    before = files_under(store.root)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail) if step == "fsync" else patch.setattr(Path, "replace", fail)
        with pytest.raises(StoreError) as raised:
            write_file(path, b"new")
        with pytest.raises(StoreError):
            store.write_rows(KEY, some_rows(5))
    assert str(raised.value).startswith(f"Cannot write {path}: {text}")
    assert files_under(store.root) == before
    assert store.stored_images(KEY) == (set(range(5)), [])


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


def test_a_file_is_whole_when_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    synced = []
    fsync, replace = os.fsync, Path.replace

    def watch_sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def watch_replace(self: Path, target: Path) -> Path:
        seen.append((self.read_bytes(), self.stat().st_ino in synced, Path(target).exists()))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watch_sync)
    monkeypatch.setattr(Path, "replace", watch_replace)
    write_file(tmp_path / "new" / "file", b"content")
    assert seen == [(b"content", True, False)]  # written and synced under another name first
    assert synced[-1] == (tmp_path / "new").stat().st_ino  # then the folder, so that the name lasts


def test_what_cannot_be_set_aside_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_rows(KEY, some_rows())
    (path,) = store.cell(KEY).iterdir()
    path.write_bytes(b"")

    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StoreError, match="Read-only file system"):
        store.stored_images(KEY)


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("mine")
    with (
        pytest.raises(StoreError, match=r"^Cannot write .*results: .*Make the folder writable or choose another --out"),
        Store(tmp_path / "results").locked(),
    ):
        pass
    assert (tmp_path / "results").read_text() == "mine"


# ---- the lock


def test_a_second_program_is_refused_and_the_lock_goes_with_the_first(
    store: Store, certbench: Callable[..., Result], tmp_path: Path, tiny: str
) -> None:
    store.root.mkdir()
    (tmp_path / "tiny.toml").write_text(tiny)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        result = certbench("run", tmp_path / "tiny.toml", "--output", store.root)
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr == (
            f"error: Another certbench run is writing to {store.root}. Wait for it, or choose another --output.\n"
        )
        assert list(store.root.iterdir()) == [store.root / ".lock"]
    finally:
        holder.kill()
        holder.communicate()
    with store.locked():
        pass


def test_what_a_killed_run_left_half_written_is_removed(store: Store) -> None:
    store.write_rows(KEY, some_rows())
    before = files_under(store.root)
    left = store.cell(KEY) / ".rows-000005-abc.parquet.4711.tmp"
    left.write_bytes(b"half")
    with store.locked():
        assert not left.exists()
    assert {name: content for name, content in files_under(store.root).items() if name != ".lock"} == before


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
