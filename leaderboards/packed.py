"""Rows of a whole run in few files, small enough to be kept in a repository.

A store has a folder a cell and a file a block of images: hundreds of files, each with a head that is larger than its
rows. Packed, all cells whose rows have the same columns share one file, with the key of its cell in each row. As in a
store, the name of a file ends in the digest of its bytes; besides, `run.json` names every file, so that none can be
taken away unnoticed.

    <folder>/rows-<digest>.parquet      rows, and `cell`, the key of the cell that a row belongs to
    <folder>/audits-<digest>.parquet    what attacks found, likewise
"""

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from leaderboards.verified_files import StoredDataError, cell_folder, digest_of, read_verified

#: The column that says which cell a packed row belongs to.
CELL = "cell"

Kind = Literal["rows", "audits"]

_NAME = re.compile(r"^(?P<kind>rows|audits)-(?P<digest>[0-9a-f]{32})\.parquet$")
_CELL_FIELD = pa.field(CELL, pa.string(), nullable=False)


def pack(kind: Kind, cells: Mapping[str, pd.DataFrame], schema: pa.Schema) -> dict[str, bytes]:
    """The files that hold the rows of some cells.

    Args:
        kind: what the rows are; the names of the files begin with it.
        cells: the rows of each cell, by its key.
        schema: the columns that all of them have; others may follow, as evidence does.

    Returns:
        The content of each file by its name; equal rows give equal bytes.

    Raises:
        StoredDataError: packed rows would not come back as they were.
    """
    alike: dict[tuple[tuple[str, str], ...], list[pa.Table]] = {}
    for key, rows in cells.items():
        if len(rows):
            table = _table(key, rows, schema)
            alike.setdefault(tuple((item.name, str(item.type)) for item in table.schema), []).append(table)
    files: dict[str, bytes] = {}
    for tables in alike.values():
        buffer = io.BytesIO()
        pq.write_table(pa.concat_tables(tables), buffer, write_page_checksum=True, compression="zstd")
        files[f"{kind}-{digest_of(buffer.getvalue())}.parquet"] = buffer.getvalue()
    return files


def unpack(kind: Kind, folder: Path, names: Iterable[str], schema: pa.Schema) -> dict[str, pd.DataFrame]:
    """The rows of each cell, by its folder (`cells/<first 128 bits of its key>`), every file verified.

    Raises:
        StoredDataError: a file is missing, altered, lacks a column, or is not of that kind; or two files hold one cell.
    """
    found: dict[str, pd.DataFrame] = {}
    for name in names:
        match = _NAME.match(name)
        if match is None or match["kind"] != kind:
            raise StoredDataError(
                f"{folder}: {name!r} is not the name of a file of {kind}. Publish the run again: certbench publish RUN."
            )
        path = folder / name
        if not path.is_file():
            raise StoredDataError(f"{path}: the file is missing. Restore it, or publish the run again.")
        table = read_verified(path, match["digest"], pa.schema([*schema, _CELL_FIELD]))
        for key in pc.unique(table[CELL]).to_pylist():
            own = table.filter(pc.equal(table[CELL], key)).drop_columns([CELL])
            if (cell := cell_folder(key)) in found:
                raise StoredDataError(f"{path}: holds rows of {cell}, which another file holds too.")
            found[cell] = own.to_pandas()
    return found


def is_packed_file(path: Path) -> bool:
    """Whether a file's name is that of a file of packed rows or audits."""
    return _NAME.match(path.name) is not None


def _table(key: str, rows: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    further = [name for name in rows.columns if name not in schema.names]
    columns = {item.name: pa.array(rows[item.name], type=item.type) for item in schema}
    columns |= {name: pa.array(rows[name]) for name in further}
    table = pa.table({**columns, CELL: pa.array([key] * len(rows), type=pa.string())})
    # What a reader gets must be what was stored, to the last bit: a column of mixed types would not.
    back = table.drop_columns([CELL]).to_pandas()
    try:
        pd.testing.assert_frame_equal(back, rows[list(back.columns)].reset_index(drop=True), check_exact=True)
    except AssertionError as error:
        raise StoredDataError(f"Rows of cell {key[:32]} cannot be packed as they are: {error}") from error
    return table
