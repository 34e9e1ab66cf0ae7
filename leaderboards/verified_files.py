"""Stored Parquet files whose name ends in the digest of their bytes, and which say what cell they belong to."""

import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

#: In the metadata of a file of rows: the key of the cell that they belong to.
CELL_METADATA = b"certbench.cell"


class StoredDataError(ValueError):
    """A stored file does not hold what its name or its schema says."""


def cell_folder(key: str) -> str:
    """The folder of the cell of that key, below the root of a store: `cells/<first 128 bits of the key>`."""
    return f"cells/{key[:32]}"


def digest_of(content: bytes) -> str:
    """The first 128 bits of SHA-256, in hexadecimal: the digest in the name of a stored file."""
    return hashlib.sha256(content).hexdigest()[:32]


def read_verified(path: Path, named_digest: str | None, schema: pa.Schema) -> pa.Table:
    """The table in one file, verified: digest of its bytes, page checksums, cell, columns.

    Args:
        path: the file.
        named_digest: what its name says; None where the name is not of that form.
        schema: the columns that must be there, of these types and without empty cells.

    Raises:
        StoredDataError: the file was truncated or altered, lacks a column, or is that of another cell.
    """
    content = path.read_bytes()
    if named_digest is None or named_digest != digest_of(content):
        raise StoredDataError(
            f"{path}: the bytes do not match the digest in the name; the file was altered or cut off."
        )
    try:
        table = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise StoredDataError(f"{path}: not a readable Parquet file ({error}).") from error
    owner = (table.schema.metadata or {}).get(CELL_METADATA)
    if owner is not None and not owner.decode(errors="replace").startswith(path.parent.name):
        raise StoredDataError(f"{path}: holds rows of another cell, {owner.decode(errors='replace')[:32]}.")
    for expected in schema:
        if expected.name not in table.column_names or table.schema.field(expected.name).type != expected.type:
            raise StoredDataError(f"{path}: column {expected.name!r} is missing or not of type {expected.type}.")
        if table.column(expected.name).null_count:
            raise StoredDataError(f"{path}: column {expected.name!r} has empty cells.")
    return table
