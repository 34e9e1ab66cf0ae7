"""Rows come back from a store as they were written, and one program at a time writes them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from bench.rows import error_rows
from bench.store import Store
from leaderboards.records import ROW_SCHEMA, StoredDataError, block_name, read_block, read_rows
from tests.bench.stores_under_test import KEY, files_under, some_rows

HOLDER = """
import fcntl, sys
lock = open(sys.argv[1] + "/.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


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
