import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from leaderboards.packed import CELL, is_packed_file, pack, unpack
from leaderboards.records import ROW_SCHEMA, StoredDataError
from leaderboards.verified_files import digest_of

MakeRows = Callable[..., pd.DataFrame]
ONE, TWO, THREE = "a" * 64, "b" * 64, "c" * 64


def plain(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as they come out of a file."""
    return rows.astype(dict.fromkeys(("verdict", "reason"), "str"))


@pytest.fixture
def cells(make_rows: MakeRows) -> dict[str, pd.DataFrame]:
    """Two cells with the same columns, of which one has NaN, and one with others."""
    return {
        ONE: plain(make_rows([0.5, None, 1 / 3], evidence_p=[0.1, float("nan"), 1e-300])),
        TWO: plain(make_rows([0.25], evidence_p=[2.0])),
        THREE: plain(make_rows([1.0, 2.0], evidence_n=[3, 4], evidence_looks=[np.array([1, 2]), np.array([3])])),
    }


@pytest.fixture
def folder(tmp_path: Path, cells: dict[str, pd.DataFrame]) -> Path:
    for name, content in pack("rows", cells, ROW_SCHEMA).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_cells_with_the_same_columns_share_a_file_and_come_back_as_they_were(
    folder: Path, cells: dict[str, pd.DataFrame]
) -> None:
    assert len(names(folder)) == 2
    assert all(is_packed_file(path) for path in folder.iterdir())
    found = unpack("rows", folder, names(folder), ROW_SCHEMA)
    assert sorted(found) == [f"cells/{key[:32]}" for key in (ONE, TWO, THREE)]
    for key, rows in cells.items():
        pd.testing.assert_frame_equal(found[f"cells/{key[:32]}"], rows, check_exact=True)


def test_equal_rows_give_equal_bytes(cells: dict[str, pd.DataFrame]) -> None:
    assert pack("rows", cells, ROW_SCHEMA) == pack("rows", cells, ROW_SCHEMA)


def test_no_rows_are_no_file(make_rows: MakeRows) -> None:
    assert pack("rows", {ONE: make_rows([0.5]).iloc[:0]}, ROW_SCHEMA) == {}


@pytest.mark.parametrize("position", [10, -10])
def test_a_changed_file_is_refused(folder: Path, position: int) -> None:
    path = folder / names(folder)[0]
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoredDataError, match="do not match the digest in the name"):
        unpack("rows", folder, names(folder), ROW_SCHEMA)


def test_a_missing_file_is_refused(folder: Path) -> None:
    wanted = names(folder)
    (folder / wanted[0]).unlink()
    with pytest.raises(StoredDataError, match=r"the file is missing\. Restore it, or publish the run again"):
        unpack("rows", folder, wanted, ROW_SCHEMA)


@pytest.mark.parametrize("name", ["../rows.parquet", "audits-" + "0" * 32 + ".parquet", "rows-x.parquet", ""])
def test_a_file_of_another_name_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(StoredDataError, match=r"is not the name of a file of rows\. Publish the run again"):
        unpack("rows", folder, [name], ROW_SCHEMA)


def test_two_files_of_one_cell_are_refused(folder: Path, make_rows: MakeRows) -> None:
    for name, content in pack("rows", {ONE: plain(make_rows([9.0]))}, ROW_SCHEMA).items():
        (folder / name).write_bytes(content)
    with pytest.raises(StoredDataError, match=f"holds rows of cells/{'a' * 32}, which another file holds too"):
        unpack("rows", folder, names(folder), ROW_SCHEMA)


def test_a_file_without_cells_is_refused(folder: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(folder / names(folder)[0]).drop_columns([CELL]), buffer)
    name = f"rows-{digest_of(buffer.getvalue())}.parquet"
    (folder / name).write_bytes(buffer.getvalue())
    with pytest.raises(StoredDataError, match="column 'cell' is missing"):
        unpack("rows", folder, [name], ROW_SCHEMA)


def test_rows_that_would_not_come_back_are_not_packed(make_rows: MakeRows) -> None:
    rows = plain(make_rows([0.5])).assign(label=[1.0])
    with pytest.raises(StoredDataError, match=f"Rows of cell {'a' * 32} cannot be packed as they are"):
        pack("rows", {ONE: rows}, ROW_SCHEMA)
